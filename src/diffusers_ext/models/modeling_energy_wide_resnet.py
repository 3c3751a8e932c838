"""The wide residual network of JEM, a classifier whose logits are energies (Grathwohl et al. 2020)."""

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from .disk_offloading import DiskOffloadMixin
from .energies import EnergyModelOutput, check_energy_arguments, check_energy_inputs, energy_output


class EnergyWideResNet(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Computes the energy of images with each class by a wide residual network, whose logits are minus the energies.

    The network of "Your Classifier is Secretly an Energy Based Model and You Should Treat it Like One" (Grathwohl et
    al. 2020, https://huggingface.co/papers/1912.03263), as https://github.com/wgrathwohl/JEM has it, with the mean of
    the last features over all pixels.

    Args:
        sample_size (`int` or `tuple[int, int]`, defaults to 32):
            Height and width of the images that a pipeline makes; the network takes others, too.
        in_channels (`int`, defaults to 3):
            Channels of the images.
        depth (`int`, defaults to 28):
            The number of layers: 4 more than a multiple of 6.
        width (`int`, defaults to 10):
            How many times as many features the blocks have as those of a plain residual network: 16, 32 and 64.
        normalization (`str`, *optional*):
            What stands before each activation: `"batch"`, `"instance"`, `"layer"` or `"affine"`, a scale and a shift,
            which are what remains of JEM's `act` after its first batch. By default nothing.
        dropout (`float`, defaults to 0.0):
            The probability that a feature inside of a block is zeroed in training.
        num_classes (`int`, *optional*, defaults to 10):
            The number of classes; `None` for a single energy.

    Raises:
        ValueError: if the arguments do not fit together.
    """

    has_fixed_size = False
    needs_class_labels = False

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] = 32,
        in_channels: int = 3,
        depth: int = 28,
        width: int = 10,
        normalization: str | None = None,
        dropout: float = 0.0,
        num_classes: int | None = 10,
    ):
        super().__init__()
        check_energy_arguments(num_classes, in_channels=in_channels, width=width)
        if depth < 10 or (depth - 4) % 6 != 0:
            raise ValueError(f"`depth` must be 4 more than a multiple of 6, as 10, 16 or 28, but is {depth}.")
        if normalization not in NORMALIZATIONS:
            *known, last = map(repr, NORMALIZATIONS)
            raise ValueError(f"`normalization` must be {', '.join(known)} or {last}, but is {normalization!r}.")
        self.conv_in = nn.Conv2d(in_channels, 16, 3, padding=1)
        self.stages, features = nn.ModuleList(), 16
        for channels, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
            stage = nn.ModuleList()
            for index in range((depth - 4) // 6):
                stage.append(WideBlock(features, channels, stride if index == 0 else 1, normalization, dropout))
                features = channels
            self.stages.append(stage)
        self.norm_out = make_energy_norm(normalization, features)
        self.proj_out = nn.Linear(features, num_classes or 1)

    def forward(
        self, sample: torch.Tensor, class_labels: torch.Tensor | None = None, return_dict: bool = True
    ) -> EnergyModelOutput | tuple[torch.Tensor, ...]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                Images in `[-1, 1]`.
            class_labels (`torch.Tensor` of shape `(N,)`, *optional*):
                The class of each image. Without it, a network with classes computes the energy for any class.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`EnergyModelOutput`] instead of a tuple.

        Returns:
            [`EnergyModelOutput`] or `tuple`: energies `(N,)`, and with classes `(N, num_classes)`.

        Raises:
            ValueError: if the images or the labels do not fit the network.
        """
        check_energy_inputs(self, sample, class_labels)
        hidden_states = self.conv_in(sample)
        for stage in self.stages:
            for block in stage:
                hidden_states = block(hidden_states)
        hidden_states = F.leaky_relu(self.norm_out(hidden_states), NEGATIVE_SLOPE).mean(dim=(2, 3))
        return energy_output(self.proj_out(hidden_states), class_labels, return_dict)


class WideBlock(nn.Module):
    """Two convolutions, each after a normalization and leaky ReLU, beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, normalization: str | None, dropout: float):
        super().__init__()
        self.norm1 = make_energy_norm(normalization, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.norm2 = make_energy_norm(normalization, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, stride, padding=1)
        self.shortcut = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        residual = self.dropout(self.conv1(F.leaky_relu(self.norm1(hidden_states), NEGATIVE_SLOPE)))
        residual = self.conv2(F.leaky_relu(self.norm2(residual), NEGATIVE_SLOPE))
        if self.shortcut is not None:
            hidden_states = self.shortcut(hidden_states)
        return hidden_states + residual


class ChannelAffine(nn.Module):
    """A scale and a shift of each channel, the shift first."""

    def __init__(self, features: int):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1, features, 1, 1))
        self.scale = nn.Parameter(torch.ones(1, features, 1, 1))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.scale * (hidden_states + self.shift)


NORMALIZATIONS = ("batch", "instance", "layer", "affine", None)
NEGATIVE_SLOPE = 0.2  # of leaky ReLU


def make_energy_norm(normalization: str | None, features: int) -> nn.Module:
    """The normalization of this name; see [`EnergyWideResNet`]."""
    if normalization == "batch":
        return nn.BatchNorm2d(features, momentum=0.9)
    if normalization == "instance":
        return nn.InstanceNorm2d(features, affine=True)
    if normalization == "layer":
        return nn.GroupNorm(1, features)
    return ChannelAffine(features) if normalization == "affine" else nn.Identity()
