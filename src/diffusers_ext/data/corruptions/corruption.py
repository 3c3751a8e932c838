"""What a restoration task makes of clean images."""

from dataclasses import dataclass

import torch


@dataclass
class Corruption:
    """Degraded images, as a network is shown them.

    Attributes:
        conditioning_image: float32 (N, C, H, W), of the size of the clean images. In [-1, 1], except where pixels are
            hidden: these hold standard normal noise.
        mask: float32 (N, 1, H, W), 1 where pixels are hidden and have to be made, 0 where they are the clean ones
            exactly; None if all have to be made.
        hidden: float32 (N, 1, H, W), 1 where the conditioning image holds noise; None if nowhere. By default this is
            `mask`, but where what is left is degraded, all pixels have to be made.
    """

    conditioning_image: torch.Tensor
    mask: torch.Tensor | None = None
    hidden: torch.Tensor | None = None

    def __post_init__(self):
        if self.hidden is None:
            self.hidden = self.mask
