"""The picture of the README: what the examples make, on one sheet.

    python examples/contact_sheet.py

A picture of another example is one more line in `ROWS`: a caption, a file of this folder, and the part of it that is
shown (left, upper, right, lower, as shares of its sides).
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont


EXAMPLES = Path(__file__).parent
WIDTH, GAP, CAPTION = 1280, 12, 26
WHOLE = (0, 0, 1, 1)
ROWS = [
    [
        ("Restoration: colour, holes, borders, JPEG, detail", "palette_photos.png", WHOLE),
        ("Panoramas from one photograph", "palette_panorama.jpg", WHOLE),
    ],
    [
        ("Diffusion by class", "digits.png", (0, 0, 1, 0.53)),
        ("Ten steps, and one", "digits_in_one_step.png", (0, 0, 0.74, 1)),
        ("Outlines to digits", "pix2pix_digits.png", (0, 0, 1, 0.7)),
        ("Threes to eights and back", "cyclegan_digits.png", (0, 0, 1, 0.68)),
    ],
    [
        ("Mode collapse of a GAN, and its cures", "mode_collapse.png", (0, 0, 1, 0.52)),
        ("A variational autoencoder", "vae_digits.png", (0, 0, 1, 0.66)),
        ("A conditional DCGAN", "dcgan_digits.png", (0, 0, 1, 0.53)),
    ],
]


def cut(file: str, part: tuple[float, float, float, float]) -> Image.Image:
    picture = Image.open(EXAMPLES / file).convert("RGB")
    sides = (picture.width, picture.height) * 2
    return picture.crop([round(share * side) for share, side in zip(part, sides, strict=True)])


def row(entries: list[tuple]) -> Image.Image:
    """Pictures side by side at one height, which together fill the width."""
    pictures = [cut(file, part) for _, file, part in entries]
    ratios = [picture.width / picture.height for picture in pictures]
    height = (WIDTH - GAP * (len(entries) + 1)) / sum(ratios)
    sheet = Image.new("RGB", (WIDTH, round(height) + CAPTION + GAP), "white")
    draw, font, left = ImageDraw.Draw(sheet), ImageFont.load_default(15), float(GAP)
    for (caption, *_), picture, ratio in zip(entries, pictures, ratios, strict=True):
        draw.text((left, 4), caption, fill="black", font=font)
        size = (round(height * ratio), round(height))
        sheet.paste(picture.resize(size, Image.Resampling.LANCZOS), (round(left), CAPTION))
        left += height * ratio + GAP
    return sheet


def main() -> None:
    rows = [row(entries) for entries in ROWS]
    sheet = Image.new("RGB", (WIDTH, sum(picture.height for picture in rows)), "white")
    top = 0
    for picture in rows:
        sheet.paste(picture, (0, top))
        top += picture.height
    sheet.save(EXAMPLES / "contact_sheet.jpg", quality=85, optimize=True)


if __name__ == "__main__":
    main()
