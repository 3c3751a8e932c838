"""PSNR and SSIM of a super-resolution pipeline, as a whole and in tiles, beside bicubic interpolation.

    python -m tests.benchmarks.bench_super_resolution srgan

The first argument is the folder of a RestorationPipeline. The images are those of scikit-image (`pip install
scikit-image`), made smaller by Pillow's bicubic filter. The measures are scikit-image's, too: its SSIM has a uniform
window of 7 pixels.
"""

import argparse

import numpy as np
from PIL import Image

from diffusers_ext.pipelines import RestorationPipeline


IMAGES = ("astronaut", "chelsea", "coffee")


def measure(pipeline: RestorationPipeline, truth: Image.Image, tile_size: int) -> dict[str, tuple[float, float]]:
    """PSNR and SSIM of three restorations of a reduced image."""
    small = truth.resize([side // pipeline.generator.scale for side in truth.size], Image.Resampling.BICUBIC)
    restored = {
        "bicubic": small.resize(truth.size, Image.Resampling.BICUBIC),
        "whole": pipeline(small).images[0],
        "tiles": pipeline(small, tile_size=tile_size).images[0],
    }
    return {name: similarity(truth, picture) for name, picture in restored.items()}


def similarity(truth: Image.Image, picture: Image.Image) -> tuple[float, float]:
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    arrays = np.asarray(truth), np.asarray(picture)
    return peak_signal_noise_ratio(*arrays), structural_similarity(*arrays, channel_axis=2)


def main() -> None:
    from skimage import data

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", help="of a RestorationPipeline")
    parser.add_argument("--tile_size", type=int, default=64, help="in pixels of the small image")
    args = parser.parse_args()
    pipeline = RestorationPipeline.from_pretrained(args.folder)
    pipeline.set_progress_bar_config(disable=True)
    for name in IMAGES:
        picture = Image.fromarray(getattr(data, name)())
        sides = [side - side % pipeline.generator.scale for side in picture.size]
        values = measure(pipeline, picture.crop((0, 0, *sides)), args.tile_size)
        print(name, *(f"{method} {p:.2f}/{s:.3f}" for method, (p, s) in values.items()), sep="  ")


if __name__ == "__main__":
    main()
