"""Layers with an equalized learning rate, and what the GANs of Karras et al. put around them."""

import math

import torch
import torch.nn.functional as F
from torch import nn


NORM_EPSILON = 1e-8  # keeps square roots and divisions finite
SQRT2 = math.sqrt(2)

EQUALIZED_ACTIVATIONS = ("linear", "lrelu", "relu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish")

# The function of each activation, and the factor that keeps the variance of normal features.
FUNCTIONS_AND_GAINS = {
    "linear": (nn.Identity(), 1.0),
    "lrelu": (nn.LeakyReLU(0.2), SQRT2),
    "relu": (nn.ReLU(), SQRT2),
    "tanh": (nn.Tanh(), 1.0),
    "sigmoid": (nn.Sigmoid(), 1.0),
    "elu": (nn.ELU(), 1.0),
    "selu": (nn.SELU(), 1.0),
    "softplus": (nn.Softplus(), 1.0),
    "swish": (nn.SiLU(), SQRT2),
}


class EqualizedLinear(nn.Module):
    r"""
    A linear layer whose weights are scaled where they are used, so that all layers learn at the same pace (Karras et
    al. 2018, section 4.1, https://huggingface.co/papers/1710.10196).

    Args:
        in_features, out_features (`int`): lengths of the vectors.
        bias (`float`, *optional*, defaults to 0): the bias to begin with; `None` for none.
        lr_multiplier (`float`, defaults to 1): how fast it learns, compared with other layers.
        gain (`float`, defaults to 1): the standard deviation of its outputs for normal inputs.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: float | None = 0.0,
        lr_multiplier: float = 1.0,
        gain: float = 1.0,
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = None if bias is None else nn.Parameter(torch.full((out_features,), bias / lr_multiplier))
        self.weight_gain = gain * lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """From `(..., in_features)` to `(..., out_features)`."""
        bias = self.bias if self.bias is None or self.bias_gain == 1 else self.bias * self.bias_gain
        return F.linear(hidden_states, self.weight * self.weight_gain, bias)


class EqualizedConv2d(nn.Module):
    """
    A convolution whose weights are scaled where they are used, like those of [`EqualizedLinear`].

    Args:
        in_channels, out_channels (`int`): of the features.
        kernel_size (`int`): odd.
        bias (`bool`, defaults to `True`): whether there is a bias, which begins at 0.
        gain (`float`, defaults to 1): the standard deviation of its outputs for normal inputs.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, bias: bool = True, gain: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.weight_gain = gain / math.sqrt(in_channels * kernel_size**2)
        self.kernel_size = kernel_size

    def forward(self, hidden_states: torch.Tensor, stride: int = 1, padding: int | None = None) -> torch.Tensor:
        """From `(N, in_channels, H, W)` to `(N, out_channels, H, W)`, with zeros around unless `padding` is given."""
        padding = self.kernel_size // 2 if padding is None else padding
        return F.conv2d(hidden_states, self.weight * self.weight_gain, self.bias, stride=stride, padding=padding)


def activate(
    hidden_states: torch.Tensor, activation: str = "lrelu", gain: float = 1.0, clamp: float | None = None
) -> torch.Tensor:
    """An activation of `EQUALIZED_ACTIVATIONS`, times `gain`, and limited to `clamp * gain` in size."""
    function, usual_gain = FUNCTIONS_AND_GAINS[activation]
    gain_of_both = usual_gain * gain
    hidden_states = function(hidden_states)
    hidden_states = hidden_states if gain_of_both == 1 else hidden_states * gain_of_both
    return hidden_states if clamp is None else hidden_states.clamp(-clamp * gain, clamp * gain)


def normalize_length(hidden_states: torch.Tensor, epsilon: float = NORM_EPSILON) -> torch.Tensor:
    """Vectors along dimension 1, divided by the root of their mean square (PixelNorm of Karras et al. 2018, 4.2)."""
    return hidden_states * (hidden_states.square().mean(dim=1, keepdim=True) + epsilon).rsqrt()


def append_minibatch_stddev(
    hidden_states: torch.Tensor, group_size: int | None, num_channels: int = 1
) -> torch.Tensor:
    r"""
    Features and, as more channels, how much they vary in the batch (Karras et al. 2018, section 3).

    Args:
        hidden_states (`torch.Tensor` of shape `(N, C, H, W)`): features; C is a multiple of `num_channels`.
        group_size (`int`, *optional*): how many images are compared. Image i is in group `i % (N / group_size)`. A
            smaller batch, or `None`, is one group.
        num_channels (`int`): how many groups of channels get an average of their own.

    Returns:
        `torch.Tensor` of shape `(N, C + num_channels, H, W)`.

    Raises:
        ValueError: if the batch can't be divided into groups.
    """
    number, channels, height, width = hidden_states.shape
    group = number if group_size is None else min(group_size, number)
    if number % group != 0:
        raise ValueError(f"The batch must be a multiple of the {group} images that are compared, but has {number}.")
    grouped = hidden_states.float().reshape(group, -1, num_channels, channels // num_channels, height, width)
    stddev = (grouped.var(dim=0, correction=0) + NORM_EPSILON).sqrt().mean(dim=(2, 3, 4))
    stddev = stddev.to(hidden_states.dtype)[:, :, None, None].expand(-1, -1, height, width)
    return torch.cat([hidden_states, stddev.repeat(group, 1, 1, 1)], dim=1)
