"""PSNR and SSIM of a restoration pipeline on a folder of photographs, beside methods that are not trained.

    python -m tests.benchmarks.bench_restoration outputs/deblur ~/photos/test motion_blur --options '{"length": 8}'

The task is one of `motion_blur`, `denoising`, `inpainting` (of the centre: `{"center": true}`), or
`super_resolution`, whose factor is that of the pipeline. The other methods are Pillow's bicubic filter, and those of
scikit-image (`pip install scikit-image`): Richardson-Lucy and Wiener, which know the kernel of the blur, and non-local
means, which knows the strength of the noise.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diffusers_ext.data.corruptions import load_corruptions
from diffusers_ext.data.corruptions.levels import from_levels, to_levels
from diffusers_ext.data.corruptions.motion_blur import draw_kernels
from diffusers_ext.data.corruptions.option_checks import check_range
from diffusers_ext.data.corruptions.resampling import resample
from diffusers_ext.data.untrained_fills import visible
from diffusers_ext.metrics.similarity import psnr, ssim
from diffusers_ext.pipelines import RestorationPipeline
from diffusers_ext.pixels import as_uint8
from diffusers_ext.training.loop.draws import Draw


def degrade(task: str, options: dict, truth: torch.Tensor, draw: Draw, scale: int) -> torch.Tensor:
    """What the pipeline is shown, (1, 3, H, W) in [-1, 1]."""
    if task == "super_resolution":
        return from_levels(resample(to_levels(truth), tuple(side // scale for side in truth.shape[2:])))
    return visible(load_corruptions([task], {task: options})[task](truth, draw))


def without_training(task: str, options: dict, shown: torch.Tensor, draw: Draw, size: tuple[int, int]) -> dict:
    """Restorations by name, (1, 3, H, W) in [-1, 1]."""
    from skimage.restoration import denoise_nl_means, richardson_lucy, wiener

    if task == "super_resolution":
        return {"bicubic": from_levels(resample(to_levels(shown), size))}
    image = (shown[0].permute(1, 2, 0).numpy() + 1) / 2
    if task == "motion_blur":
        ranges = {"length": (5.0, 20.0), "shake": (0.0, 2.0), **options}
        kernel = draw_kernels(draw, *(check_range(name, ranges[name], 0) for name in ("length", "shake")))[0].numpy()
        width = len(kernel)
        padded = np.pad(image, ((width, width), (width, width), (0, 0)), mode="edge")
        channels = [padded[..., channel] for channel in range(3)]
        results = {
            "Richardson-Lucy, 10 steps": [richardson_lucy(c, kernel, num_iter=10) for c in channels],
            "Wiener, balance 0.003": [wiener(c, kernel, balance=0.003) for c in channels],
        }
        results = {name: np.stack(c, -1)[width:-width, width:-width] for name, c in results.items()}
    elif task == "denoising":
        sigma = options["sigma"] / 255
        arguments = {"patch_size": 5, "patch_distance": 6, "fast_mode": True, "channel_axis": -1}
        results = {"non-local means": denoise_nl_means(image, h=0.8 * sigma, sigma=sigma, **arguments)}
    else:
        height, width = size
        hole = np.zeros((height, width), bool)
        hole[height // 4 : height // 4 + height // 2, width // 4 : width // 4 + width // 2] = True
        results = {"mean of the rest": np.where(hole[..., None], image[~hole].mean(0), image)}
    arrays = {name: torch.from_numpy(np.clip(array, 0, 1)).float() for name, array in results.items()}
    return {name: array.permute(2, 0, 1)[None] * 2 - 1 for name, array in arrays.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", help="of a RestorationPipeline")
    parser.add_argument("photos", help="a folder of photographs")
    parser.add_argument("task", choices=["motion_blur", "denoising", "inpainting", "super_resolution"])
    parser.add_argument("--options", type=json.loads, default={}, help="of the task, as JSON")
    args = parser.parse_args()
    pipeline = RestorationPipeline.from_pretrained(args.folder)
    pipeline.set_progress_bar_config(disable=True)
    scale = getattr(pipeline.generator, "scale", 1)
    values: dict[str, list] = {}
    for index, path in enumerate(sorted(Path(args.photos).glob("*.*"))):
        picture = np.asarray(Image.open(path).convert("RGB"))
        truth = from_levels(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float())
        draw = Draw(0, torch.device("cpu"))
        shown = degrade(args.task, args.options, truth, draw.begin(0, [index]), scale)
        images = {} if args.task == "super_resolution" else {"input": shown}
        images |= without_training(args.task, args.options, shown, draw.begin(0, [index]), tuple(truth.shape[2:]))
        images["model"] = pipeline(shown / 2 + 0.5, output_type="pt").images * 2 - 1
        for name, image in images.items():
            pair = as_uint8(truth), as_uint8(image)
            values.setdefault(name, []).append((psnr(*pair).item(), ssim(*pair).item()))
    for name, measured in values.items():
        mean = np.mean(measured, axis=0)
        print(f"{name:30} PSNR {mean[0]:.2f}  SSIM {mean[1]:.3f}  ({len(measured)} photographs)")


if __name__ == "__main__":
    main()
