"""The result of a corruption: degraded images, and which of their pixels are hidden."""

from dataclasses import dataclass

import torch


@dataclass
class Corruption:
    """Degraded images, the input of a restoration network.

    Attributes:
        conditioning_image: float32 (N, C, H, W), with the size of the clean images. Values are in [-1, 1], except that
            hidden pixels are standard normal noise.
        mask: float32 (N, 1, H, W), 1 for pixels that must be generated, 0 for pixels that are equal to those of the
            clean image; None if all pixels must be generated.
        hidden: float32 (N, 1, H, W), 1 where the conditioning image is noise; None if nowhere. By default this is
            `mask`. It differs from `mask` if the visible pixels are degraded too, so that all pixels must be
            generated.
    """

    conditioning_image: torch.Tensor
    mask: torch.Tensor | None = None
    hidden: torch.Tensor | None = None

    def __post_init__(self):
        if self.hidden is None:
            self.hidden = self.mask
