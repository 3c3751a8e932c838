"""The photograph for photo_singan.yaml, and the picture and the measures of the SinGAN that learned it.

    python examples/photo_singan.py photo
    python examples/photo_singan.py draw --output_file outputs/photo_singan.png

The photograph is scikit-learn's, of a temple in front of hills. `draw` puts beside each other: the photograph; samples
of three sizes; a crude painting and what becomes of it; the photograph enlarged by bicubic interpolation and by the
SinGAN. It prints SIFID of samples of each size and of the photograph with shuffled patches.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from diffusers_ext import SinGANPipeline
from diffusers_ext.metrics import shuffle_patches, single_image_fid
from diffusers_ext.pipelines.films import write_film


COUNT = 20  # samples of each size that are measured
GAP = 4


def photograph(height: int, width: int) -> Image.Image:
    """The temple in a size of this aspect, as large as it is."""
    return Image.fromarray(load_sample_image("china.jpg")).resize((width, height), Image.Resampling.LANCZOS)


def painting(photo: Image.Image, colors: int = 6) -> Image.Image:
    """The photograph, mirrored and painted in few colours and broad strokes."""
    small = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((24, 16), Image.Resampling.BOX)
    return small.quantize(colors).convert("RGB").resize(photo.size, Image.Resampling.NEAREST)


def rows_of(rows: list[list[Image.Image]]) -> Image.Image:
    """Pictures in rows on white."""
    width = max(sum(picture.width + GAP for picture in row) for row in rows) + GAP
    heights = [max(picture.height for picture in row) + GAP for row in rows]
    sheet, top = Image.new("RGB", (width, sum(heights) + GAP), "white"), GAP
    for row, height in zip(rows, heights, strict=True):
        left = GAP
        for picture in row:
            sheet.paste(picture, (left, top))
            left += picture.width + GAP
        top += height
    return sheet


def as_bytes(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)


def draw(folder: Path, output_file: Path, gif: Path | None, seed: int) -> None:
    pipe = SinGANPipeline.from_pretrained(folder)
    _, height, width = pipe.image_shape
    photo, source = photograph(height, width), torch.Generator().manual_seed(seed)
    real, start = as_bytes(photo), time.process_time()
    print("| images | size | SIFID |\n|---|---|---:|")
    shown = []
    for size in ((height, width), (height, 2 * width), (3 * height // 2, width)):
        pictures = pipe(batch_size=COUNT, height=size[0], width=size[1], generator=source).images
        value = single_image_fid(real, torch.stack([as_bytes(picture) for picture in pictures])).mean()
        print(f"| samples | {size[0]}x{size[1]} | {value:.3f} |")
        shown.append(pictures[:3])
    for size in (4, 8, 16):
        shuffled = torch.stack([shuffle_patches(real, size, source) for _ in range(COUNT)])
        value = single_image_fid(real, shuffled).mean()
        print(f"| the photograph, {size}x{size} patches shuffled | {height}x{width} | {value:.3f} |")
    print(f"{time.process_time() - start:.0f} CPU seconds")
    painted = painting(photo)
    photos = [pipe(image=painted, first_scale=scale, generator=source).images[0] for scale in (1, 2)]
    enlarged = pipe.super_resolve(photo, scale=2, generator=source).images[0]
    bicubic = photo.resize(enlarged.size, Image.Resampling.BICUBIC)
    one, wide, tall = shown
    rows = [[photo, *pipe.reconstruct(), *one[:2]], wide[:2], [*tall], [painted, *photos], [bicubic, enlarged]]
    sheet = rows_of(rows)
    sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST).quantize(128).save(output_file)
    if gif is not None:
        write_film(pipe.animate(generator=source).frames[0], gif, fps=10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=["photo", "draw"], help="Write the photograph, or draw what was learned.")
    parser.add_argument("--photo_dir", type=Path, default=Path("outputs/photo"), help="The folder of the photograph.")
    parser.add_argument("--pipeline", type=Path, default=Path("outputs/photo_singan"), help="From train_singan.py.")
    parser.add_argument("--output_file", type=Path, default=Path("outputs/photo_singan.png"), help="The picture.")
    parser.add_argument("--gif", type=Path, help="Also write a film of the photograph in motion.")
    parser.add_argument("--seed", type=int, default=0, help="The seed of the samples.")
    options = parser.parse_args()
    if options.job == "photo":
        options.photo_dir.mkdir(parents=True)
        photograph(427, 640).save(options.photo_dir / "temple.png")
    else:
        draw(options.pipeline, options.output_file, options.gif, options.seed)


if __name__ == "__main__":
    main()
