"""What networks of image restoration share: the check of their input, and small weights to begin with."""

import torch
from torch import nn


def check_restoration_input(sample: torch.Tensor, channels: int, multiple: int = 1) -> None:
    """Refuses what is not a batch of images `(N, channels, H, W)` with sides that are multiples of `multiple`."""
    if sample.ndim != 4 or sample.shape[1] != channels:
        raise ValueError(f"`sample` must be of the shape (N, {channels}, H, W), but is of {tuple(sample.shape)}.")
    height, width = sample.shape[2:]
    if height % multiple != 0 or width % multiple != 0:
        raise ValueError(
            f"`sample` must have a height and a width that are multiples of {multiple}, but is of the size "
            f"{(height, width)}."
        )


def initialize_small(module: nn.Module) -> None:
    """A tenth of He's normal weights, and zero biases, for a convolution (Wang et al. 2018, ESRGAN, section 3.1)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
        module.weight.data.mul_(0.1)
        nn.init.zeros_(module.bias)
