"""The residual network of "Implicit Generation and Modeling with Energy-Based Models" (Du & Mordatch 2019)."""

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from .disk_offloading import DiskOffloadMixin
from .energies import EnergyModelOutput, check_energy_arguments, check_energy_inputs


class EnergyResNet(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Computes the energy of images of any size by residual blocks whose weights are divided by their spectral norms.

    The IGEBM of "Implicit Generation and Modeling with Energy-Based Models" (Du & Mordatch 2019,
    https://huggingface.co/papers/1903.08689), as https://github.com/rosinality/igebm-pytorch has it. There, each
    forward changes the vectors that estimate the spectral norms, also in eval mode, so that a chain of Langevin steps
    changes the network that it follows. Here it is so in training mode only: chains run in eval mode, and leave the
    network as it is.

    Args:
        sample_size (`int` or `tuple[int, int]`, defaults to 32):
            Height and width of the images that a pipeline makes; the network takes others, too.
        in_channels (`int`, defaults to 3):
            Channels of the images.
        hidden_channels (`tuple[int, ...]`, defaults to `(128, 128, 128, 256, 256, 256, 256)`):
            The features of the first convolution, and of each residual block. The first, third, fifth ... block halve
            the image.
        num_classes (`int`, *optional*):
            The number of classes of a conditional network: each scales and shifts the features of each block.

    Raises:
        ValueError: if the arguments do not fit together.
    """

    has_fixed_size = False

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] = 32,
        in_channels: int = 3,
        hidden_channels: tuple[int, ...] = (128, 128, 128, 256, 256, 256, 256),
        num_classes: int | None = None,
    ):
        super().__init__()
        check_energy_arguments(num_classes, in_channels=in_channels, hidden_channels=min(hidden_channels, default=0))
        features, *block_channels = hidden_channels
        self.conv_in = SpectralConv2d(in_channels, features, 3)
        self.blocks = nn.ModuleList()
        for index, channels in enumerate(block_channels):
            self.blocks.append(EnergyResidualBlock(features, channels, num_classes, is_halving=index % 2 == 0))
            features = channels
        self.proj_out = nn.Linear(features, 1)

    @property
    def needs_class_labels(self) -> bool:
        """Whether the network has no energy of images without a class."""
        return self.config.num_classes is not None

    def forward(
        self, sample: torch.Tensor, class_labels: torch.Tensor | None = None, return_dict: bool = True
    ) -> EnergyModelOutput | tuple[torch.Tensor, ...]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                Images in `[-1, 1]`. The convolutions see them in `[0, 1]`, as the original's do.
            class_labels (`torch.Tensor` of shape `(N,)`, *optional*):
                The class of each image, for a conditional network.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`EnergyModelOutput`] instead of a tuple.

        Returns:
            [`EnergyModelOutput`] or `tuple`: energies `(N,)`.

        Raises:
            ValueError: if the images or the labels do not fit the network.
        """
        check_energy_inputs(self, sample, class_labels)
        hidden_states = F.leaky_relu(self.conv_in(sample / 2 + 0.5), NEGATIVE_SLOPE)
        for block in self.blocks:
            hidden_states = block(hidden_states, class_labels)
        hidden_states = hidden_states.relu().sum(dim=(2, 3))
        energy = self.proj_out(hidden_states).squeeze(1)
        return EnergyModelOutput(energy=energy) if return_dict else (energy,)


class EnergyResidualBlock(nn.Module):
    """Two convolutions beside a shortcut; classes scale and shift what each convolution gives."""

    def __init__(self, in_channels: int, out_channels: int, num_classes: int | None, is_halving: bool):
        super().__init__()
        has_bias = num_classes is None
        self.conv1 = SpectralConv2d(in_channels, out_channels, 3, bias=has_bias)
        self.conv2 = SpectralConv2d(out_channels, out_channels, 3, bias=has_bias, init_std=TINY, enlarges=False)
        self.class_embedding = None
        if num_classes is not None:
            self.class_embedding = nn.Embedding(num_classes, 4 * out_channels)
            with torch.no_grad():
                self.class_embedding.weight[:, : 2 * out_channels] = 1
                self.class_embedding.weight[:, 2 * out_channels :] = 0
        self.shortcut = None
        if in_channels != out_channels or is_halving:
            self.shortcut = SpectralConv2d(in_channels, out_channels, 1, bias=False)
        self.is_halving = is_halving

    def forward(self, hidden_states: torch.Tensor, class_labels: torch.Tensor | None) -> torch.Tensor:
        residual = self.conv1(hidden_states)
        if self.class_embedding is not None:
            embedded = self.class_embedding(class_labels)[:, :, None, None]
            scale1, scale2, shift1, shift2 = embedded.chunk(4, dim=1)
            residual = scale1 * residual + shift1
        residual = self.conv2(F.leaky_relu(residual, NEGATIVE_SLOPE))
        if self.class_embedding is not None:
            residual = scale2 * residual + shift2
        if self.shortcut is not None:
            hidden_states = self.shortcut(hidden_states)
        hidden_states = hidden_states + residual
        if self.is_halving:
            hidden_states = F.avg_pool2d(hidden_states, 2)
        return F.leaky_relu(hidden_states, NEGATIVE_SLOPE)


class SpectralConv2d(nn.Module):
    """
    A convolution whose weight is divided by an estimate of its spectral norm (Miyato et al. 2018, algorithm 1).

    Args:
        enlarges (`bool`): whether the weight is divided by a norm below 1, too, which makes it larger.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        bias: bool = True,
        init_std: float = 1.0,
        enlarges: bool = True,
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size) * init_std)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.register_buffer("u", torch.randn(out_channels))
        self.enlarges = enlarges

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        matrix = self.weight.flatten(1)
        with torch.no_grad():  # one step of the power method
            v = matrix.T @ self.u
            v = v / v.norm()
            u = matrix @ v
            u = u / u.norm()
            if self.training:
                self.u.copy_(u)
        sigma = u @ matrix @ v
        weight = self.weight / sigma if self.enlarges else self.weight / (sigma + 1e-6) * sigma.clamp(max=1)
        return F.conv2d(hidden_states, weight, self.bias, padding=weight.shape[-1] // 2)


NEGATIVE_SLOPE = 0.2  # of leaky ReLU
TINY = 1e-10  # the standard deviation of the weights that make a fresh block the identity
