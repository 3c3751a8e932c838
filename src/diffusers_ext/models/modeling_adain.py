"""Style transfer to any style by adaptive instance normalization: a part of VGG-19, and a decoder of its features."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import nn


@dataclass
class AdaINStyleOutput(BaseOutput):
    """
    The output of [`AdaINStyleNet`].

    Args:
        sample (`torch.Tensor` of shape `(N, 3, H', W')`):
            The painted images, about in `[0, 1]`.
        target (`torch.Tensor` of shape `(N, C, H' / 8, W' / 8)`):
            The features that the painted images should have at relu4_1.
        style_features (`list[torch.Tensor]`):
            The features of the style at relu1_1, relu2_1, relu3_1 and relu4_1.
    """

    sample: torch.Tensor
    target: torch.Tensor | None = None
    style_features: list[torch.Tensor] | None = None


class AdaINStyleNet(ModelMixin, ConfigMixin):
    r"""
    Paints an image in the style of another: its features get the mean and the deviation of the other's, per channel.

    "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization" (Huang and Belongie 2017,
    https://huggingface.co/papers/1703.06868), as in https://github.com/naoto0804/pytorch-AdaIN. The encoder is VGG-19
    until relu4_1, padded by reflection, after a convolution that normalizes colours; only the decoder is trained.

    Args:
        block_out_channels (`tuple[int, int, int, int]`, defaults to `(64, 128, 256, 512)`):
            Channels of VGG's four levels.

    Raises:
        ValueError: if there are not four levels of positive widths.
    """

    _no_split_modules = ["ReflectedConv"]
    layers = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")  # of the maps that `encode` returns

    @register_to_config
    def __init__(self, block_out_channels: tuple[int, ...] = (64, 128, 256, 512)):
        super().__init__()
        if len(block_out_channels) != 4 or min(block_out_channels) < 1:
            raise ValueError(
                f"`block_out_channels` must be four positive numbers, but are {tuple(block_out_channels)}."
            )
        first, second, third, fourth = block_out_channels
        self.conv_colors = nn.Conv2d(3, 3, 1)
        # The stages end with relu1_1, relu2_1, relu3_1 and relu4_1. Each but the first begins with the rest of a level
        # of VGG, then the image is halved, and the last convolution belongs to the next level.
        self.stages = nn.ModuleList(
            [
                reflected_convs(3, first),
                reflected_convs(first, first, second),
                reflected_convs(second, second, third),
                reflected_convs(third, third, third, third, fourth),
            ]
        )
        # Maps are doubled between the groups.
        self.decoder = nn.ModuleList(
            [
                reflected_convs(fourth, third),
                reflected_convs(third, third, third, third, second),
                reflected_convs(second, second, first),
                reflected_convs(first, first, 3),
            ]
        )

    @property
    def in_channels(self) -> int:
        """Channels of the images."""
        return 3

    @property
    def smallest_side(self) -> int:
        """The smallest height and width: at an eighth of it, maps are still padded by reflection."""
        return 9

    @apply_forward_hook
    def encode(self, sample: torch.Tensor) -> list[torch.Tensor]:
        """The features relu1_1, relu2_1, relu3_1 and relu4_1 of images `(N, 3, H, W)` in `[0, 1]`.

        Raises:
            ValueError: for another number of channels, and for images smaller than `smallest_side`.
        """
        if sample.ndim != 4 or sample.shape[1] != 3 or min(sample.shape[2:]) < self.smallest_side:
            raise ValueError(
                f"`sample` must be of the shape (N, 3, H, W), with sides of at least {self.smallest_side}, but is of "
                f"{tuple(sample.shape)}."
            )
        hidden_states, features = self.conv_colors(sample), []
        for index, stage in enumerate(self.stages):
            for conv in stage[:-1]:
                hidden_states = F.relu(conv(hidden_states))
            if index > 0:
                hidden_states = F.max_pool2d(hidden_states, 2, ceil_mode=True)
            hidden_states = F.relu(stage[-1](hidden_states))
            features.append(hidden_states)
        return features

    @apply_forward_hook
    def decode(self, features: torch.Tensor) -> torch.Tensor:
        """Images `(N, 3, 8 * h, 8 * w)`, about in `[0, 1]`, from features `(N, C, h, w)` of relu4_1."""
        hidden_states = features
        for index, group in enumerate(self.decoder):
            if index > 0:
                hidden_states = F.interpolate(hidden_states, scale_factor=2.0)
            for conv in group[:-1]:
                hidden_states = F.relu(conv(hidden_states))
            hidden_states = group[-1](hidden_states)
            if index < len(self.decoder) - 1:
                hidden_states = F.relu(hidden_states)
        return hidden_states

    @staticmethod
    def restyle(content: torch.Tensor, style: torch.Tensor, epsilon: float = 1e-5) -> torch.Tensor:
        """Features with the means and deviations per channel of others (Huang and Belongie 2017, eq. 8).

        Args:
            content (`torch.Tensor` of shape `(N, C, H, W)`): the features that change.
            style (`torch.Tensor` of shape `(N, C, h, w)`): the others.
            epsilon (`float`): added to the unbiased variances.
        """
        deviations = [(features.var(dim=(2, 3), keepdim=True) + epsilon).sqrt() for features in (content, style)]
        means = [features.mean(dim=(2, 3), keepdim=True) for features in (content, style)]
        return (content - means[0]) / deviations[0] * deviations[1] + means[1]

    def forward(
        self, sample: torch.Tensor, style: torch.Tensor, strength: float = 1.0, return_dict: bool = True
    ) -> AdaINStyleOutput | tuple:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, 3, H, W)`):
                The images that are painted, in `[0, 1]`.
            style (`torch.Tensor` of shape `(N, 3, h, w)`):
                The images whose style they get, in `[0, 1]`.
            strength (`float`, defaults to 1.0):
                How much of the style they get; 0 for none.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`AdaINStyleOutput`] instead of a tuple.

        Returns:
            [`AdaINStyleOutput`] or `tuple`: the painted images, whose H' and W' are H and W rounded up to multiples of
            8; the features they should have; and those of the style.
        """
        content, style_features = self.encode(sample)[-1], self.encode(style)
        target = strength * self.restyle(content, style_features[-1]) + (1 - strength) * content
        sample = self.decode(target)

        if not return_dict:
            return sample, target, style_features
        return AdaINStyleOutput(sample=sample, target=target, style_features=style_features)


class ReflectedConv(nn.Module):
    """
    A convolution of 3x3 pixels, padded by reflection.

    Args:
        in_channels, out_channels (`int`): The channels before and after.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode="reflect")

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """From `(N, in_channels, H, W)` to `(N, out_channels, H, W)`."""
        return self.conv(hidden_states)


def reflected_convs(*widths: int) -> nn.ModuleList:
    """A convolution from each width to the next."""
    return nn.ModuleList(ReflectedConv(*pair) for pair in zip(widths[:-1], widths[1:], strict=True))
