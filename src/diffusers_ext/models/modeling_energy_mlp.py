"""The energy of an image by dense layers."""

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from .energies import EnergyModelOutput, check_energy_arguments, check_energy_inputs, energy_output


class EnergyMLP(ModelMixin, ConfigMixin):
    r"""
    Computes the energy of images, or of latents, by dense layers and SiLU.

    Args:
        sample_size (`int` or `tuple[int, int]`, defaults to 8):
            Height and width of the images.
        in_channels (`int`, defaults to 1):
            Channels of the images.
        hidden_dims (`tuple[int, ...]`, defaults to `(256, 256)`):
            The width of each hidden layer.
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
        sample_size: int | tuple[int, int] = 8,
        in_channels: int = 1,
        hidden_dims: tuple[int, ...] = (256, 256),
        num_classes: int | None = None,
    ):
        super().__init__()
        height, width = (sample_size, sample_size) if isinstance(sample_size, int) else sample_size
        check_energy_arguments(
            num_classes,
            sample_size=min(height, width),
            in_channels=in_channels,
            hidden_dims=min(hidden_dims, default=1),
        )
        features = in_channels * height * width
        self.layers = nn.ModuleList()
        for hidden_dim in hidden_dims:
            self.layers.append(nn.Linear(features, hidden_dim))
            features = hidden_dim
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
        hidden_states = sample.flatten(1)
        for layer in self.layers:
            hidden_states = F.silu(layer(hidden_states))
        return energy_output(self.proj_out(hidden_states), class_labels, return_dict)
