"""At which noise the caption decides where a digit moves, for a model of moving digits.

    python examples/mini_video/judge_noise.py outputs/mini_video/model

Films of the test split get noise, and the model estimates the clean films, once told the right direction and once the
opposite one. The table says how far the estimated digits move between the first and the last frame in the direction of
the real film, and the squared error of pixels in [-1, 1]. The last row is pure noise; what the error would be without
any network stands below it.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from judge import centres, read_films
from make_films import DIRECTIONS

from diffusers_ext import TextToVideoPixelPipeline
from diffusers_ext.losses import noise_levels, pred_original_sample
from diffusers_ext.pipelines.prompts import film_inputs


NAMES = list(DIRECTIONS)
OPPOSITE = dict(zip(NAMES, (NAMES[i] for i in (1, 0, 3, 2)), strict=True))
DARK = 0.05  # pixels are in [0, 1]; below this they do not move the centre of mass
FRACTIONS = (0.5, 0.7, 0.85, 0.95, 0.999)  # of the timesteps


@torch.no_grad()
def estimate(pipe: TextToVideoPixelPipeline, films, noise, timestep: int, captions: list[str]) -> torch.Tensor:
    """The clean films (N, 1, F, H, W) that the model sees behind those of this noise level."""
    alpha, sigma = (level[..., None] for level in noise_levels(pipe.scheduler, torch.tensor([timestep])))
    noisy = alpha * films + sigma * noise
    told = film_inputs(pipe.unet, pipe.encode_prompt(captions, 1), films.shape[2])
    prediction = pipe.unet(noisy, torch.full((len(films),), timestep), **told).sample
    kind = pipe.scheduler.config.prediction_type
    return pred_original_sample(kind, prediction, noisy, alpha, sigma).clamp(-1, 1)


def shift(films: torch.Tensor, directions: list[str]) -> float:
    """How many pixels digits move in these directions, on average."""
    found = centres((((films[:, 0] + 1) / 2).double().numpy() - DARK).clip(min=0))
    return float(np.einsum("nd,nd->n", found[:, -1] - found[:, 0], [DIRECTIONS[name] for name in directions]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="A pipeline that train_video.py left, of v, epsilon or the sample.")
    parser.add_argument("--data_dir", type=Path, default=Path("outputs/mini_video/films"), help="From make_films.py.")
    parser.add_argument("--count", type=int, default=60, help="How many films of the test split.")
    parser.add_argument("--seed", type=int, default=0, help="The seed of the noise.")
    options = parser.parse_args()

    pipe = TextToVideoPixelPipeline.from_pretrained(options.folder)
    films, digits, directions = read_films(options.data_dir / "test", options.count)
    films = torch.from_numpy(films).float()[:, None] / 127.5 - 1
    noise = torch.randn(films.shape, generator=torch.Generator().manual_seed(options.seed))
    opposite = [OPPOSITE[name] for name in directions]
    print(f"The digits move by {shift(films, directions):.2f} pixels.\n")
    print("| noise / signal | right caption | opposite caption | error | with opposite caption |")
    print("|---:|---:|---:|---:|---:|")
    for fraction in FRACTIONS:
        timestep = int(fraction * pipe.scheduler.config.num_train_timesteps)
        alpha, sigma = noise_levels(pipe.scheduler, torch.tensor([timestep]))
        moves, errors = [], []
        for ways in (directions, opposite):
            captions = [
                f"{'an' if digit == 'eight' else 'a'} {digit} moving {way}"
                for digit, way in zip(digits, ways, strict=True)
            ]
            found = estimate(pipe, films, noise, timestep, captions)
            moves.append(f"{shift(found, directions):+.2f}")
            errors.append(f"{(found - films).square().mean():.4f}")
        print(f"| {float(sigma / alpha):.1f} | {' | '.join(moves + errors)} |", flush=True)
    alike = films.mean(dim=(0, 2), keepdim=True)
    print(f"\nThe mean of all frames in place of each film: {(films - alike).square().mean():.4f}")


if __name__ == "__main__":
    main()
