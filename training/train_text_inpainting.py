"""Tune a text-to-image diffusion model of pixels to fill the holes of images, as GLIDE's inpainting models.

    accelerate launch training/train_text_inpainting.py --config examples/mini_text_to_image/inpaint.yaml

The denoiser of `--pretrained_model_name_or_path` gets more input channels, for the known pixels and their mask, whose
weights start at zero (Nichol et al. 2021, section 2.4). The result is a [`TextToImagePixelPipeline`], which takes an
`image` and a `mask_image`.
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel

from diffusers_ext.data.corruptions import load_corruptions
from diffusers_ext.training.loop.configuration import JSONObject, option
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.text_and_image.text_diffusion import TextDiffusionConfig, TextDiffusionRecipe


class TextInpaintingRecipe(TextDiffusionRecipe):
    """Nichol et al. 2021, section 2.4: random regions are erased, and the denoiser sees what remains."""

    shown_per_channel, shown_once = 1, 1
    task, call = "Inpainting by a text", ", image=image, mask_image=mask"
    trained_for = {"shows_known_pixels": True}  # noqa: RUF012, never changed

    def step(self, batch, draw):
        clean, texts = batch["pixel_values"], self.texts(batch, draw)
        known = self.known(clean, draw)
        timesteps, noise = self.objective.draw_timesteps(draw), draw.normal_like(clean)
        noisy = self.objective.add_noise(clean, noise, timesteps)

        output = self.unet(torch.cat([noisy, known * clean, known], dim=1), timesteps, **texts).sample

        losses = self.objective.losses(output, clean, noisy, noise, timesteps)
        self.minimise(tuple(self.context.networks), losses)

    def known(self, clean: torch.Tensor, draw: Draw) -> torch.Tensor:
        """1 where pixels are known, 0 in the holes and, now and then, everywhere: (N, 1, H, W)."""
        holes = self.corrupt(clean, draw).mask
        erased = draw.uniform(1, 1, 1) < self.config.erase_everything
        return torch.where(erased, 0.0, 1 - holes)

    # What stands around the algorithm

    def __init__(self, config: TextInpaintingConfig, context):
        super().__init__(config, context)
        options = {"inpainting": config.holes} if config.holes else {}
        self.corrupt = load_corruptions(["inpainting"], options)["inpainting"]
        blank = torch.zeros(1, config.channels, *config.size)
        self.corrupt(blank, Draw(0, blank.device).begin(0, [0]))  # options are checked by use

    def pretrained_unet(self) -> UNet2DConditionModel:
        """The denoiser of the pipeline: of an inpainting model as it is, of a base model with more input channels."""
        if not isinstance(self.pretrained.unet, UNet2DConditionModel):
            raise ValueError(
                "--pretrained_model_name_or_path must have a UNet2DConditionModel for inpainting, but has a "
                f"{type(self.pretrained.unet).__name__}."
            )
        if not self.pretrained.config.shows_known_pixels:
            self.pretrained.unet = widened(self.pretrained.unet, self.channels()["in_channels"])
            self.pretrained.register_to_config(shows_known_pixels=True)
        return super().pretrained_unet()

    def identity(self) -> dict:
        options = {"holes": dict(self.config.holes), "erase_everything": self.config.erase_everything}
        return {**super().identity(), **options}

    def call_inputs(self, count: int) -> dict[str, list]:
        """Captions, their images, and holes in these."""
        real = torch.cat([row["pixel_values"] for row in self.rows(count)]).float() / 255
        draw = Draw(self.config.seed, real.device).begin(0, range(count))
        holes = self.corrupt(real * 2 - 1, draw).mask
        return {**super().call_inputs(count), "image": list(real), "mask_image": list(holes)}


def widened(unet: UNet2DConditionModel, in_channels: int) -> UNet2DConditionModel:
    """The same network with more input channels, which have no effect at first."""
    wider = UNet2DConditionModel.from_config(unet.config, in_channels=in_channels)
    weights = dict(unet.state_dict())
    first = torch.zeros_like(wider.conv_in.weight)
    first[:, : unet.config.in_channels] = weights["conv_in.weight"]
    wider.load_state_dict(weights | {"conv_in.weight": first})
    return wider


@dataclass
class TextInpaintingConfig(TextDiffusionConfig):
    """The options of train_text_inpainting.py."""

    holes: JSONObject = option(
        JSONObject(), help="The holes: options of the task inpainting, such as area, as JSON or a YAML mapping."
    )
    erase_everything: float = option(
        0.1,
        help="How often a whole image is erased in training, so that images can still be made of texts alone.",
    )

    def __post_init__(self):
        super().__post_init__()
        self.require(
            self.pretrained_model_name_or_path is not None,
            "inpainting tunes a trained model: give --pretrained_model_name_or_path",
        )
        self.require(
            0 <= self.erase_everything <= 1, f"--erase_everything must be in [0, 1], not {self.erase_everything}"
        )


if __name__ == "__main__":
    run(TextInpaintingRecipe, TextInpaintingConfig)
