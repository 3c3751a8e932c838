"""VGG: a classifier of images, whose layers measure the content and the style of images."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import nn


@dataclass
class VGGOutput(BaseOutput):
    """
    The output of [`VGG`].

    Args:
        logits (`torch.Tensor` of shape `(N, num_classes)`, *optional*):
            Unnormalised log-probabilities of the classes, if the network has any.
        hidden_states (`list[torch.Tensor]`):
            The maps after each ReLU, in the order of [`VGG.layers`].
    """

    logits: torch.Tensor | None = None
    hidden_states: list[torch.Tensor] | None = None


class VGG(ModelMixin, ConfigMixin):
    r"""
    Levels of convolutions of 3x3 pixels; between two levels, images are halved.

    "Very Deep Convolutional Networks for Large-Scale Image Recognition" (Simonyan and Zisserman 2015,
    https://huggingface.co/papers/1409.1556), whose configuration E, VGG-19, is the default here. Classes come from the
    mean of the last map, instead of the three dense layers of the paper.

    Args:
        block_out_channels (`tuple[int, ...]`, defaults to `(64, 128, 256, 512, 512)`):
            Channels of the levels.
        layers_per_block (`tuple[int, ...]`, defaults to `(2, 2, 4, 4, 4)`):
            Convolutions of the levels; `(2, 2, 3, 3, 3)` is VGG-16.
        padding_mode (`str`, defaults to `"zeros"`):
            `"zeros"`, or `"reflect"` for features that do not see where an image ends.
        image_mean, image_std (`tuple[float, float, float]`):
            What images in `[0, 1]` are normalized by; by default the statistics of ImageNet.
        num_classes (`int`, defaults to 0):
            The number of classes; 0 for a network of features alone.
        id2label (`dict[int, str]`, *optional*):
            The name of each class id.

    Raises:
        ValueError: if an argument is out of range.
    """

    @register_to_config
    def __init__(
        self,
        block_out_channels: tuple[int, ...] = (64, 128, 256, 512, 512),
        layers_per_block: tuple[int, ...] = (2, 2, 4, 4, 4),
        padding_mode: str = "zeros",
        image_mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        image_std: tuple[float, float, float] = (0.229, 0.224, 0.225),
        num_classes: int = 0,
        id2label: dict[int, str] | None = None,
    ):
        super().__init__()
        if len(block_out_channels) != len(layers_per_block) or min(*block_out_channels, *layers_per_block, 1) < 1:
            raise ValueError(
                "`block_out_channels` and `layers_per_block` must be positive numbers, one for each level, but are "
                f"{tuple(block_out_channels)} and {tuple(layers_per_block)}."
            )
        if padding_mode not in ("zeros", "reflect"):
            raise ValueError(f'`padding_mode` must be "zeros" or "reflect", but is {padding_mode!r}.')
        if min(image_std) <= 0 or num_classes < 0:
            raise ValueError(
                f"`image_std` must be positive and `num_classes` at least 0, but are {tuple(image_std)} and "
                f"{num_classes}."
            )
        self.blocks, before = nn.ModuleList(), 3
        for width, count in zip(block_out_channels, layers_per_block, strict=True):
            widths = [before] + [width] * count
            self.blocks.append(
                nn.ModuleList(
                    nn.Conv2d(*pair, kernel_size=3, padding=1, padding_mode=padding_mode)
                    for pair in zip(widths[:-1], widths[1:], strict=True)
                )
            )
            before = width
        self.classifier = nn.Linear(before, num_classes) if num_classes > 0 else None
        # With the usual initialization of PyTorch, signals would fade in a network without normalization.
        for block in self.blocks:
            for conv in block:
                nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
                nn.init.zeros_(conv.bias)

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the maps that `encode` returns: relu1_1, relu1_2, relu2_1 and so on."""
        counts = enumerate(self.config.layers_per_block, start=1)
        return tuple(f"relu{level}_{index}" for level, count in counts for index in range(1, count + 1))

    @property
    def smallest_side(self) -> int:
        """The smallest height and width: each level needs a pixel, or two to be padded by reflection."""
        least = 2 if self.config.padding_mode == "reflect" else 1
        return least * 2 ** (len(self.config.block_out_channels) - 1)

    @apply_forward_hook
    def encode(self, sample: torch.Tensor) -> list[torch.Tensor]:
        """The maps after each ReLU for images `(N, 3, H, W)` in `[0, 1]`, in the order of `layers`.

        Raises:
            ValueError: for another number of channels, and for images smaller than `smallest_side`.
        """
        if sample.ndim != 4 or sample.shape[1] != 3 or min(sample.shape[2:]) < self.smallest_side:
            raise ValueError(
                f"`sample` must be of the shape (N, 3, H, W), with sides of at least {self.smallest_side}, but is of "
                f"{tuple(sample.shape)}."
            )
        mean, std = (
            sample.new_tensor(values).view(3, 1, 1) for values in (self.config.image_mean, self.config.image_std)
        )
        hidden_states, features = (sample - mean) / std, []
        for level, block in enumerate(self.blocks):
            if level > 0:
                hidden_states = F.max_pool2d(hidden_states, 2)
            for conv in block:
                hidden_states = F.relu(conv(hidden_states))
                features.append(hidden_states)
        return features

    def forward(self, sample: torch.Tensor, return_dict: bool = True) -> VGGOutput | tuple:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, 3, H, W)`):
                Images in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`VGGOutput`] instead of a tuple.

        Returns:
            [`VGGOutput`] or `tuple`: the logits, and the maps of all layers.

        Raises:
            ValueError: for another number of channels, and for images smaller than `smallest_side`.
        """
        hidden_states = self.encode(sample)
        logits = None if self.classifier is None else self.classifier(hidden_states[-1].mean(dim=(2, 3)))

        if not return_dict:
            return logits, hidden_states
        return VGGOutput(logits=logits, hidden_states=hidden_states)
