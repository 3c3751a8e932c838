"""Colours weighted by their opacity, for sums over several pixels: the hidden colours of transparent pixels count 0.

Pillow does the same when it resizes LA and RGBA. Without it, these colours, which nobody sees, bleed into the edges.
"""

import torch


def weight_by_alpha(levels: torch.Tensor) -> torch.Tensor:
    """Images (..., C, H, W) in 0..255 whose last channel is alpha (C is 2 or 4), with colours times alpha; float32."""
    colour, alpha = levels[..., :-1, :, :].float(), levels[..., -1:, :, :].float()
    return torch.cat([colour * alpha / 255, alpha], dim=-3)


def divide_by_alpha(levels: torch.Tensor) -> torch.Tensor:
    """The inverse of `weight_by_alpha`, where alpha is not 0; float32, at most 255."""
    colour, alpha = levels[..., :-1, :, :].float(), levels[..., -1:, :, :].float()
    return torch.cat([(colour * 255 / alpha.clamp(min=1)).clamp(max=255), alpha], dim=-3)


def has_alpha(images: torch.Tensor) -> bool:
    """Whether the last channel of images (..., C, H, W) is alpha, by the number of channels."""
    return images.shape[-3] in (2, 4)
