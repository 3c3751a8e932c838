"""Each film of make_films.py as one picture, from which a CLIP learns digits and directions.

    python examples/mini_video/make_pictures.py

The red, green and blue of a picture are the first, a middle and the last frame of the film, so that a motion is a
fringe of colours. The captions and words stay those of the films.
"""

import argparse
from pathlib import Path

from PIL import Image

from diffusers_ext.data.decoding import decode_frames


def picture_of(film: Path) -> Image.Image:
    """The first, a middle and the last frame of a gray film as red, green and blue."""
    frames = decode_frames(str(film), 1)[:, 0].numpy()
    return Image.merge("RGB", [Image.fromarray(frames[index]) for index in (0, len(frames) // 2, -1)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, default=Path("outputs/mini_video/films"), help="From make_films.py.")
    parser.add_argument(
        "--output_dir",
        type=Path,
        default=Path("outputs/mini_video/pictures"),
        help="A folder, not there yet.",
    )
    options = parser.parse_args()
    if options.output_dir.exists():
        parser.error(f"{options.output_dir} already exists: remove it, or choose another --output_dir")
    for split in ("train", "test"):
        source, target = options.data_dir / split, options.output_dir / split
        target.mkdir(parents=True)
        for film in sorted(source.glob("*.gif")):
            picture_of(film).save(target / f"{film.stem}.png")
        lines = (source / "metadata.jsonl").read_text().replace('.gif"', '.png"')
        (target / "metadata.jsonl").write_text(lines)


if __name__ == "__main__":
    main()
