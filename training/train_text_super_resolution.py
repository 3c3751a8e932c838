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

from diffusers_ext.pipelines.prompts import NOISE_LEVELS
from diffusers_ext.training.text_and_image.small_images import SmallImagesConfig, add_level, shrink
from diffusers_ext.training.text_and_image.text_diffusion import (
    POOLED_BY_ATTENTION,
    TextDiffusionConfig,
    TextDiffusionRecipe,
)


class TextSuperResolutionRecipe(TextDiffusionRecipe):
    """Saharia et al. 2022, section 2.4 and appendix C: the denoiser sees a noised small image, and its noise level."""

    shown_per_channel, tells_noise_level = 1, True
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

    def conditional_unet(self, text_width: int):
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


@dataclass
class TextSuperResolutionConfig(SmallImagesConfig, TextDiffusionConfig):
    """The options of train_text_super_resolution.py."""

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(2, "factor")


if __name__ == "__main__":
    run(TextSuperResolutionRecipe, TextSuperResolutionConfig)
