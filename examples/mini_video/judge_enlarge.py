"""How near the films of a super-resolver are to real ones, beside interpolation.

    python examples/mini_video/judge_enlarge.py outputs/mini_video/enlarge

Films of the test split are made small as in the training, and enlarged again: by repeating frames, by linear
interpolation over time with the bicubic filter in space, and by the super-resolver with the caption. The PSNR of a
film is over all its pixels. `--strip` writes a picture: repeated frames, interpolation, the super-resolver and the
truth.
"""

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from judge import enlarged, read_films

from diffusers_ext import TextToVideoPixelPipeline
from diffusers_ext.pipelines.films import arrange_pictures, enlarge_films
from diffusers_ext.training.train_video_super_resolution import shrink_films


NUM_SHOWN = 4


def interpolate(small: torch.Tensor, num_frames: int, size: tuple[int, int]) -> torch.Tensor:
    """Films (N, C, f, h, w) by linear interpolation over time, where the last frame stays, and bicubic in space."""
    frames = small.transpose(1, 2)
    large = F.interpolate(frames.flatten(0, 1), size, mode="bicubic").unflatten(0, frames.shape[:2]).transpose(1, 2)
    places = torch.arange(num_frames) * large.shape[2] / num_frames
    before = places.long()
    after, weights = (before + 1).clamp(max=large.shape[2] - 1), (places - before).view(-1, 1, 1)
    return torch.lerp(large[:, :, before], large[:, :, after], weights).clamp(-1, 1)


def psnr(films: torch.Tensor, truth: torch.Tensor) -> float:
    """The mean over films in [-1, 1], in decibels."""
    errors = (films - truth).square().mean(dim=(1, 2, 3, 4)) / 4
    return float(-10 * errors.log10().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="A pipeline that train_video_super_resolution.py left.")
    parser.add_argument("--data_dir", type=Path, default=Path("outputs/mini_video/films"), help="From make_films.py.")
    parser.add_argument("--factor", type=int, default=2, help="As in the training.")
    parser.add_argument("--frame_factor", type=int, default=4, help="As in the training.")
    parser.add_argument("--noise_level", type=float, default=0.0, help="Of the noise that is added to small films.")
    parser.add_argument("--num_inference_steps", type=int, default=8, help="The steps of the sampler.")
    parser.add_argument("--count", type=int, default=100, help="Films.")
    parser.add_argument("--strip", type=Path, help="A PNG of some films.")
    options = parser.parse_args()

    pipe = TextToVideoPixelPipeline.from_pretrained(options.folder)
    pipe.set_progress_bar_config(disable=True)
    films, digits, directions = read_films(options.data_dir / "test", options.count)
    truth = torch.from_numpy(films).float()[:, None] / 127.5 - 1
    num_frames, size = truth.shape[2], truth.shape[3:]
    small = shrink_films(truth, tuple(side // options.factor for side in size), options.frame_factor)

    start = time.process_time()
    made = pipe(
        [
            f"{'an' if digit == 'eight' else 'a'} {digit} moving {way}"
            for digit, way in zip(digits, directions, strict=True)
        ],
        low_res_video=(small.transpose(1, 2) + 1) / 2,
        conditioning_noise_level=options.noise_level,
        num_inference_steps=options.num_inference_steps,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    ).frames.transpose(1, 2)
    made, seconds = made * 2 - 1, time.process_time() - start
    repeated, linear = enlarge_films(small, num_frames, size), interpolate(small, num_frames, size)

    print("| films | PSNR | CPU seconds |\n|---|---:|---:|")
    print(f"| repeated frames, bilinear | {psnr(repeated, truth):.2f} dB | |")
    print(f"| linear over time, bicubic | {psnr(linear, truth):.2f} dB | |")
    print(f"| super-resolver | {psnr(made, truth):.2f} dB | {seconds:.0f} |")
    if options.strip is not None:
        rows = [kind[number, 0] for number in range(NUM_SHOWN) for kind in (repeated, linear, made, truth)]
        frames = [enlarged(((frame + 1) * 127.5).numpy().round()) for film in rows for frame in film]
        arrange_pictures(frames, num_frames).save(options.strip)


if __name__ == "__main__":
    main()
