"""LeNet-5: a small classifier of handwritten digits and similar images, whose features can measure generated ones."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn


SMALLEST_SAMPLE_SIZE = 32  # a single position is left before the dense layers


@dataclass
class LeNetOutput(BaseOutput):
    """
    The output of [`LeNet`].

    Args:
        logits (`torch.Tensor` of shape `(N, num_classes)`):
            Unnormalised log-probabilities of the classes.
        features (`torch.Tensor` of shape `(N, 84)`):
            The last hidden layer.
    """

    logits: torch.Tensor
    features: torch.Tensor | None = None


class LeNet(ModelMixin, ConfigMixin):
    r"""
    Predicts the class of a small image.

    The network of "Gradient-Based Learning Applied to Document Recognition" (LeCun et al. 1998, section II.B), with
    ReLU and max pooling, as is usual today.

    Args:
        sample_size (`int`, defaults to 32):
            Height and width of the images, at least 32.
        in_channels (`int`, defaults to 1):
            Channels of the images.
        num_classes (`int`, defaults to 10):
            The number of classes.
        id2label (`dict[int, str]`, *optional*):
            The name of each class id.
        sample_range (`tuple[float, float]`, defaults to `(0.0, 1.0)`):
            The values of black and white in the input.

    Raises:
        ValueError: if `sample_size` is too small.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 32,
        in_channels: int = 1,
        num_classes: int = 10,
        id2label: dict[int, str] | None = None,
        sample_range: tuple[float, float] = (0.0, 1.0),
    ):
        super().__init__()
        if sample_size < SMALLEST_SAMPLE_SIZE:
            raise ValueError(f"`sample_size` must be at least {SMALLEST_SAMPLE_SIZE}, but is {sample_size}.")
        side = ((sample_size - 4) // 2 - 4) // 2
        self.conv1 = nn.Conv2d(in_channels, 6, kernel_size=5)
        self.conv2 = nn.Conv2d(6, 16, kernel_size=5)
        self.conv3 = nn.Conv2d(16, 120, kernel_size=5)
        self.fc1 = nn.Linear(120 * (side - 4) ** 2, 84)
        self.fc2 = nn.Linear(84, num_classes)

    def forward(self, sample: torch.Tensor, return_dict: bool = True) -> LeNetOutput | tuple[torch.Tensor, ...]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, sample_size, sample_size)`):
                Images, in `sample_range`.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`LeNetOutput`] instead of a tuple.

        Returns:
            [`LeNetOutput`] or `tuple`: logits and features.

        Raises:
            ValueError: if the images have another shape.
        """
        config = self.config
        shape = (config.in_channels, config.sample_size, config.sample_size)
        if tuple(sample.shape[1:]) != shape:
            raise ValueError(f"`sample` must be (N, {', '.join(map(str, shape))}), but is {tuple(sample.shape)}.")
        hidden_states = F.max_pool2d(self.conv1(sample).relu(), 2)
        hidden_states = F.max_pool2d(self.conv2(hidden_states).relu(), 2)
        hidden_states = self.conv3(hidden_states).relu().flatten(1)
        features = self.fc1(hidden_states).relu()
        logits = self.fc2(features)

        if not return_dict:
            return logits, features
        return LeNetOutput(logits=logits, features=features)
