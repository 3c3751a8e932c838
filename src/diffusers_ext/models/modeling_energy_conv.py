"""The energy of an image by a stack of convolutions."""

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from .energies import EnergyModelOutput, check_energy_arguments, check_energy_inputs, energy_output


class EnergyConvNet(ModelMixin, ConfigMixin):
    r"""
    Computes the energy of images of one size by convolutions and SiLU, which gives chains smooth gradients.

    With the default arguments it is the network of tutorial 8 in https://github.com/phlippe/uvadlc_notebooks.

    Args:
        sample_size (`int` or `tuple[int, int]`, defaults to 28):
            Height and width of the images.
        in_channels (`int`, defaults to 1):
            Channels of the images.
        hidden_channels (`tuple[int, ...]`, defaults to `(16, 32, 64, 64)`):
            The features of each convolution.
        strides (`tuple[int, ...]`, defaults to `(2, 2, 2, 2)`):
            The stride of each convolution.
        first_kernel_size (`int`, defaults to 5):
            The size of the first convolution's kernel; the others have 3.
        first_padding (`int`, defaults to 4):
            How many pixels of zeros surround the image.
        head_dim (`int`, defaults to 64):
            The features between the two dense layers at the end.
        num_classes (`int`, *optional*):
            The number of classes: the last layer computes an energy for each.

    Raises:
        ValueError: if the arguments do not fit together.
    """

    has_fixed_size = True
    needs_class_labels = False

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] = 28,
        in_channels: int = 1,
        hidden_channels: tuple[int, ...] = (16, 32, 64, 64),
        strides: tuple[int, ...] = (2, 2, 2, 2),
        first_kernel_size: int = 5,
        first_padding: int = 4,
        head_dim: int = 64,
        num_classes: int | None = None,
    ):
        super().__init__()
        height, width = (sample_size, sample_size) if isinstance(sample_size, int) else sample_size
        check_energy_arguments(
            num_classes,
            sample_size=min(height, width),
            in_channels=in_channels,
            hidden_channels=min(hidden_channels, default=0),
            strides=min(strides, default=0),
            first_kernel_size=first_kernel_size,
            head_dim=head_dim,
        )
        if len(strides) != len(hidden_channels):
            raise ValueError(
                f"`strides` must be {len(hidden_channels)} numbers, one for each of `hidden_channels`, but are "
                f"{list(strides)}."
            )
        features, kernel_size, padding = in_channels, first_kernel_size, first_padding
        self.convs = nn.ModuleList()
        for channels, stride in zip(hidden_channels, strides, strict=True):
            self.convs.append(nn.Conv2d(features, channels, kernel_size, stride, padding))
            height, width = ((side + 2 * padding - kernel_size) // stride + 1 for side in (height, width))
            if min(height, width) < 1:
                raise ValueError("`sample_size` is too small for these convolutions, which leave no pixel.")
            features, kernel_size, padding = channels, 3, 1
        self.proj_hidden = nn.Linear(features * height * width, head_dim)
        self.proj_out = nn.Linear(head_dim, num_classes or 1)

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
        hidden_states = sample
        for conv in self.convs:
            hidden_states = F.silu(conv(hidden_states))
        hidden_states = F.silu(self.proj_hidden(hidden_states.flatten(1)))
        return energy_output(self.proj_out(hidden_states), class_labels, return_dict)
