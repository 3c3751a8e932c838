"""Train a text-to-image diffusion model of pixels on captioned images, as GLIDE and the base model of Imagen.

    accelerate launch training/train_text_to_pixels.py --config examples/mini_text_to_image/pixels.yaml

GLIDE (Nichol et al. 2021) trains a text transformer with the denoiser, which is the default; Imagen (Saharia et al.
2022) has a frozen `--text_encoder`. The result is a [`TextToImagePixelPipeline`].
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from diffusers_ext.training.text_and_image.text_diffusion import TextDiffusionConfig, TextDiffusionRecipe


class TextToPixelsRecipe(TextDiffusionRecipe):
    """Ho et al. 2020, algorithm 1, with the caption of each image."""

    def step(self, batch, draw):
        clean, texts = batch["pixel_values"], self.texts(batch, draw)
        timesteps, noise = self.objective.draw_timesteps(draw), draw.normal_like(clean)
        noisy = self.objective.add_noise(clean, noise, timesteps)

        output = self.unet(noisy, timesteps, **texts).sample

        losses = self.objective.losses(output, clean, noisy, noise, timesteps)
        self.minimise(tuple(self.context.networks), losses)


if __name__ == "__main__":
    run(TextToPixelsRecipe, TextDiffusionConfig)
