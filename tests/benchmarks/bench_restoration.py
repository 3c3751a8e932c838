"""PSNR and SSIM of a restoration pipeline on a folder of photographs, beside methods that are not trained.

    python -m tests.benchmarks.bench_restoration outputs/deblur ~/photos/test motion_blur --options '{"length": 8}'

The task is one of `motion_blur`, `denoising`, `camera_noise`, `inpainting` (of the centre: `{"center": true}`), or
`super_resolution`, whose factor is that of the pipeline; `motion_blur+denoising` is blur and noise. The other methods
are Pillow's bicubic filter, and those of scikit-image (`pip install scikit-image PyWavelets`): Richardson-Lucy and
Wiener, which know the kernel of the blur, each with the best of its settings in `STEPS` and `BALANCES`, and non-local
means, which knows the strength of Gaussian noise and estimates that of others. `--feature_extractor` measures
perceptual distances too, of squares of 64 pixels.
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
from diffusers_ext.metrics import load_feature_extractor
from diffusers_ext.metrics.perceptual_distances import perceptual_distance
from diffusers_ext.metrics.similarity import psnr, ssim
from diffusers_ext.pipelines import RestorationPipeline
from diffusers_ext.pixels import as_uint8
from diffusers_ext.training.loop.draws import Draw


TASKS = ("motion_blur", "motion_blur+denoising", "denoising", "camera_noise", "inpainting", "super_resolution")
STEPS = (10, 30)  # of Richardson-Lucy
BALANCES = (0.003, 0.01, 0.03)  # of Wiener's filter, between sharpness and noise


def degrade(task: str, options: dict, truth: torch.Tensor, draw: Draw, scale: int) -> torch.Tensor:
    """What the pipeline is shown, (1, 3, H, W) in [-1, 1]."""
    if task == "super_resolution":
        return from_levels(resample(to_levels(truth), tuple(side // scale for side in truth.shape[2:])))
    return visible(load_corruptions([task], options)[task](truth, draw))


def without_training(task: str, options: dict, shown: torch.Tensor, draw: Draw, size: tuple[int, int]) -> dict:
    """Restorations by name, (1, 3, H, W) in [-1, 1]."""
    from skimage.restoration import denoise_nl_means, estimate_sigma, richardson_lucy, wiener

    if task == "super_resolution":
        return {"bicubic": from_levels(resample(to_levels(shown), size))}
    image = (shown[0].permute(1, 2, 0).numpy() + 1) / 2
    if "motion_blur" in task:
        ranges = {"length": (5.0, 20.0), "shake": (0.0, 2.0), **options.get("motion_blur", {})}
        kernel = draw_kernels(draw, *(check_range(name, ranges[name], 0) for name in ("length", "shake")))[0].numpy()
        width = len(kernel)
        padded = np.pad(image, ((width, width), (width, width), (0, 0)), mode="edge")
        channels = [padded[..., channel] for channel in range(3)]
        results = {
            f"Richardson-Lucy, {n} steps": [richardson_lucy(c, kernel, num_iter=n) for c in channels] for n in STEPS
        }
        results |= {f"Wiener, balance {b}": [wiener(c, kernel, balance=b) for c in channels] for b in BALANCES}
        results = {name: np.stack(c, -1)[width:-width, width:-width] for name, c in results.items()}
    elif task in ("denoising", "camera_noise"):
        known = options.get("denoising", {}).get("sigma")
        sigma = known / 255 if known else estimate_sigma(image, average_sigmas=True, channel_axis=-1)
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
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--options", type=json.loads, default={}, help="of the task, or by task if it is two, as JSON")
    parser.add_argument("--feature_extractor", help="for perceptual distances; see load_feature_extractor")
    args = parser.parse_args()
    pipeline = RestorationPipeline.from_pretrained(args.folder)
    pipeline.set_progress_bar_config(disable=True)
    scale = getattr(pipeline.generator, "scale", 1)
    options = args.options if "+" in args.task else {args.task: args.options}
    extractor = load_feature_extractor(args.feature_extractor) if args.feature_extractor else None
    values: dict[str, list] = {}
    for index, path in enumerate(sorted(Path(args.photos).glob("*.*"))):
        picture = np.asarray(Image.open(path).convert("RGB"))
        truth = from_levels(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float())
        draw = Draw(0, torch.device("cpu"))
        shown = degrade(args.task, options, truth, draw.begin(0, [index]), scale)
        images = {} if args.task == "super_resolution" else {"input": shown}
        images |= without_training(args.task, options, shown, draw.begin(0, [index]), tuple(truth.shape[2:]))
        images["model"] = pipeline(shown / 2 + 0.5, output_type="pt").images * 2 - 1
        for name, image in images.items():
            pair = as_uint8(truth), as_uint8(image)
            measures = [psnr(*pair).item(), ssim(*pair).item()]
            if extractor is not None:
                measures.append(distance(extractor, *pair))
            values.setdefault(name, []).append(measures)
    for name, measured in values.items():
        mean, count = np.mean(measured, axis=0), len(measured)
        far = f"  perceptual distance {mean[2]:.3f}" if extractor is not None else ""
        print(f"{name:30} PSNR {mean[0]:.2f}  SSIM {mean[1]:.3f}{far}  ({count} photographs)")


def distance(extractor, truth: torch.Tensor, image: torch.Tensor) -> float:
    """The mean perceptual distance of the squares of 64 pixels in two images (1, 3, H, W)."""
    squares = [
        images.unfold(2, 64, 64).unfold(3, 64, 64).permute(0, 2, 3, 1, 4, 5).flatten(0, 2) for images in (truth, image)
    ]
    return perceptual_distance(*(extractor(part).features for part in squares)).mean().item()


if __name__ == "__main__":
    main()
