"""Train a super-resolver that sees a text: the second stage of Imagen and GLIDE.

    accelerate launch training/train_text_super_resolution.py --config examples/mini_text_to_image/enlarge.yaml

Its small images are noised in training (conditioning augmentation: Ho et al. 2022, "CDM"; Saharia et al. 2022,
section 2.4), so that it forgives the flaws of generated ones. The result is a [`TextToImagePixelPipeline`] that
enlarges what another one makes.
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from diffusers_ext.pipelines.pipeline_text_to_image_pixel import NOISE_LEVELS
from diffusers_ext.training.loop.configuration import option
from diffusers_ext.training.text_and_image.text_diffusion import (
    POOLED_BY_ATTENTION,
    TextDiffusionConfig,
    TextDiffusionRecipe,
)


class TextSuperResolutionRecipe(TextDiffusionRecipe):
    """Saharia et al. 2022, section 2.4 and appendix C: the denoiser sees a noised small image, and its noise level."""

    shown_per_channel = 1
    task, call = "Super-resolution of images by a text", ", low_res_image=small"

    def step(self, batch, draw):
        clean, texts = batch["pixel_values"], self.texts(batch, draw)
        levels = self.config.conditioning_augmentation * draw.uniform()
        small = shrink(clean, self.config.small_size)
        small = add_level(small, draw.normal_like(small), levels)
        timesteps, noise = self.objective.draw_timesteps(draw), draw.normal_like(clean)
        noisy = self.objective.add_noise(clean, noise, timesteps)

        sample = torch.cat([noisy, F.interpolate(small, clean.shape[2:], mode="bilinear")], dim=1)
        output = self.unet(sample, timesteps, class_labels=NOISE_LEVELS * levels, **texts).sample

        losses = self.objective.losses(output, clean, noisy, noise, timesteps)
        self.minimise(tuple(self.context.networks), losses)

    def new_unet(self, text_width: int):
        """The U-Net of the base model, which is also told the noise level of the small image."""
        decided = {"class_embed_type": "timestep"}
        return self.build_unet(text_width, POOLED_BY_ATTENTION, decided, class_labels=torch.zeros(1))

    @property
    def trained_for(self) -> dict:
        return {"conditioning_augmentation": self.config.conditioning_augmentation}

    def identity(self) -> dict:
        return {**super().identity(), "factor": self.config.factor}

    def call_inputs(self, count: int) -> dict[str, list]:
        """Captions and the small versions of their images."""
        real = torch.cat([row["pixel_values"] for row in self.rows(count)])
        small = shrink(real.float() / 127.5 - 1, self.config.small_size)
        return {**super().call_inputs(count), "low_res_image": list((small + 1) / 2)}


def shrink(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Images (N, C, H, W) in [-1, 1] at a smaller size, by the bicubic filter, rounded to bytes."""
    small = F.interpolate(images, size, mode="bicubic", antialias=True)
    return ((small + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1


def add_level(images: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """`sqrt(1 - level**2) * image + level * noise` for levels (N,) in [0, 1)."""
    levels = levels[:, None, None, None]
    return (1 - levels**2).sqrt() * images + levels * noise


@dataclass
class TextSuperResolutionConfig(TextDiffusionConfig):
    """The options of train_text_super_resolution.py."""

    factor: int = option(2, help="How many times larger than the small images --resolution is.", essential=True)
    conditioning_augmentation: float = option(
        0.5, help="The highest level of the noise in small images, in [0, 1); levels are uniform up to it."
    )

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(2, "factor")
        level = self.conditioning_augmentation
        self.require(0 <= level < 1, f"--conditioning_augmentation must be in [0, 1), not {level}")
        self.require(
            not any(side % self.factor for side in self.size),
            f"--resolution must be a multiple of --factor {self.factor}, not {' '.join(map(str, self.size))}",
        )

    @property
    def small_size(self) -> tuple[int, int]:
        """Height and width of the small images."""
        return tuple(side // self.factor for side in self.size)


if __name__ == "__main__":
    run(TextSuperResolutionRecipe, TextSuperResolutionConfig)
