"""Styles of images as latents: drawn at random, or from the distributions that an encoder gives style images."""

import torch
from diffusers import ModelMixin
from diffusers.utils.torch_utils import randn_tensor

from .images import ImageInput, fit_channels, list_images, read_image


def read_style_images(style_image: ImageInput | list[ImageInput], channels: int, count: int) -> list[torch.Tensor]:
    """
    A style image `(1, C, H, W)` in `[-1, 1]` for each of `count` inputs.

    Raises:
        ValueError: for what is no image, and if there is neither one image nor one for each input.
    """
    styles = [
        fit_channels("style_image", read_image("style_image", entry), channels)[None] * 2 - 1
        for entry in list_images("style_image", style_image)
    ]
    if len(styles) not in (1, count):
        raise ValueError(f"`style_image` must be one image or {count}, one for each input, not {len(styles)}.")
    return styles * count if len(styles) == 1 else styles


def draw_style_latents(
    styles: list[torch.Tensor] | None,
    style_encoder: ModelMixin | None,
    shape: tuple[int, int],
    num_images_per_input: int,
    generator: torch.Generator | list[torch.Generator] | None,
    device: torch.device,
) -> torch.Tensor:
    """
    Latents of this shape, float32: standard normal, or of the distributions of the style images.

    Args:
        styles (`list[torch.Tensor]`, *optional*): of `read_style_images`, an image for each input.
        style_encoder (`ModelMixin`, *optional*): `style_encoder(sample, return_dict=False)[0]` has `mean` and `std`.
        shape (`tuple[int, int]`): how many latents, `num_images_per_input` for each input, and their length.
        num_images_per_input (`int`): how many latents follow each other for an input.
        generator (`torch.Generator` or `list[torch.Generator]`, *optional*): one for all or one for each latent.
        device (`torch.device`): where the encoder is.
    """
    noise = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
    if styles is None:
        return noise
    parts = [style_encoder(style.to(device, style_encoder.dtype), return_dict=False)[0] for style in styles]
    mean, std = (
        torch.cat([getattr(part, name) for part in parts]).float().repeat_interleave(num_images_per_input, dim=0)
        for name in ("mean", "std")
    )
    return mean + std * noise
