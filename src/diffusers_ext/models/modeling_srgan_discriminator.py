"""The discriminator of SRGAN, which scores whole images of any size."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn

from .disk_offloading import DiskOffloadMixin
from .restoration_layers import check_restoration_input


@dataclass
class SRGANDiscriminatorOutput(BaseOutput):
    """
    The output of [`SRGANDiscriminator`].

    Args:
        logits (`torch.Tensor` of shape `(N,)`):
            A score for each image, before any sigmoid: the higher, the more real.
    """

    logits: torch.Tensor


class SRGANDiscriminator(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Scores images by convolutions that halve them, and the mean over what is left.

    The discriminator of SRGAN (Ledig et al. 2017, figure 4, https://huggingface.co/papers/1609.04802) with a mean over
    all positions where the paper has a dense layer for one size of images, as in
    https://github.com/leftthomas/SRGAN.

    Args:
        in_channels (`int`, defaults to 3):
            Channels of the images.
        base_channels (`int`, defaults to 64):
            Channels of the first level; they double from each level to the next.
        num_levels (`int`, defaults to 4):
            The number of levels. Each has two convolutions, of which the second halves the image.

    Raises:
        ValueError: if an argument is out of range.
    """

    _no_split_modules = ["NormalizedConv"]

    @register_to_config
    def __init__(self, in_channels: int = 3, base_channels: int = 64, num_levels: int = 4):
        super().__init__()
        if min(in_channels, base_channels, num_levels) < 1:
            raise ValueError(
                f"`in_channels`, `base_channels` and `num_levels` must be positive, but are {in_channels}, "
                f"{base_channels} and {num_levels}."
            )
        widths = [base_channels * 2**level for level in range(num_levels)]
        self.conv_in = nn.Conv2d(in_channels, base_channels, 3, padding=1)
        self.layers = nn.ModuleList([NormalizedConv(base_channels, base_channels, 2)])
        for before, width in zip(widths[:-1], widths[1:], strict=True):
            self.layers.extend([NormalizedConv(before, width, 1), NormalizedConv(width, width, 2)])
        self.fc1 = nn.Linear(widths[-1], 2 * widths[-1])
        self.fc2 = nn.Linear(2 * widths[-1], 1)

    def forward(self, sample: torch.Tensor, return_dict: bool = True) -> SRGANDiscriminatorOutput | tuple:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                The images, in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`SRGANDiscriminatorOutput`] instead of a tuple.

        Returns:
            [`SRGANDiscriminatorOutput`] or `tuple`: the `logits` `(N,)`.

        Raises:
            ValueError: for another number of channels.
        """
        check_restoration_input(sample, self.config.in_channels)

        hidden_states = F.leaky_relu(self.conv_in(sample), 0.2)
        for layer in self.layers:
            hidden_states = F.leaky_relu(layer(hidden_states), 0.2)
        hidden_states = hidden_states.mean(dim=(2, 3))
        logits = self.fc2(F.leaky_relu(self.fc1(hidden_states), 0.2)).squeeze(1)

        if not return_dict:
            return (logits,)
        return SRGANDiscriminatorOutput(logits=logits)


class NormalizedConv(nn.Module):
    """
    A convolution and batch norm.

    Args:
        in_channels, out_channels (`int`): The channels before and after.
        stride (`int`): 2 halves the map.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """From `(N, in_channels, H, W)` to `(N, out_channels, H / stride, W / stride)`."""
        return self.norm(self.conv(hidden_states))
