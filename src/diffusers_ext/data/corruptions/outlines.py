"""The task "edges": outlines of images, as inputs of a translation from edges to images."""

import torch
import torch.nn.functional as F

from diffusers_ext.data.corruptions.corruption import Corruption


def outlines(images: torch.Tensor, draw, *, threshold: float = 0.3) -> Corruption:
    """Outlines: white where the brightness changes fast (by Sobel's filter), black elsewhere.

    Args:
        images: (N, C, H, W) in [-1, 1]. An alpha channel (C = 2 or 4) stays as it is.
        draw: not used, because nothing is random here.
        threshold: how much the brightness must change from one pixel to the next, in the units of the images.

    Raises:
        ValueError: if the threshold is not positive.
    """
    if not threshold > 0:
        raise ValueError(f"edges need a positive threshold, not {threshold!r}")
    has_alpha = images.shape[1] in (2, 4)
    colours, alpha = (images[:, :-1], images[:, -1:]) if has_alpha else (images, images[:, :0])
    kernel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=images.device) / 8
    gray = F.pad(colours.mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    slopes = F.conv2d(gray, torch.stack([kernel, kernel.T])[:, None])
    outline = torch.where(slopes.norm(dim=1, keepdim=True) > threshold, 1.0, -1.0)
    return Corruption(torch.cat([outline.expand_as(colours), alpha], dim=1))
