"""A convolutional autoencoder with one latent vector per image: deterministic or variational."""

import math
from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.utils import BaseOutput
from torch import nn

from .activations import ACTIVATIONS, check_activation, check_sample_range
from .diagonal_gaussian import DiagonalGaussian
from .disk_offloading import DiskOffloadMixin


@dataclass
class AutoencoderConvEncoderOutput(BaseOutput):
    """
    The output of [`AutoencoderConv.encode`].

    Args:
        latents (`torch.Tensor` of shape `(N, latent_dim)`, *optional*):
            The latent vector of each image, if the model is deterministic.
        latent_dist (`DiagonalGaussian`, *optional*):
            The posterior of each image, if the model is variational, with `mean`, `logvar`, `sample()`, `mode()` and
            `kl()`.
    """

    latents: torch.Tensor | None = None
    latent_dist: DiagonalGaussian | None = None


@dataclass
class AutoencoderConvOutput(BaseOutput):
    """
    The output of [`AutoencoderConv`].

    Args:
        sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
            The reconstructions, in the model's `sample_range`.
        latents (`torch.Tensor` of shape `(N, latent_dim)`):
            The latent vectors that they were decoded from.
        mean, logvar (`torch.Tensor` of shape `(N, latent_dim)`, *optional*):
            The posterior, if the model is variational; `latent_dist` returns it as a distribution.
    """

    sample: torch.Tensor
    latents: torch.Tensor | None = None
    mean: torch.Tensor | None = None
    logvar: torch.Tensor | None = None

    @property
    def latent_dist(self) -> DiagonalGaussian:
        return DiagonalGaussian(self.mean, self.logvar)


class AutoencoderConv(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    An autoencoder of strided convolutions between images and vectors.

    Each level halves the image, and a linear layer maps the result to the latent vector. It is a plain autoencoder, or
    with `variational=True` the one of Kingma & Welling 2014 (https://huggingface.co/papers/1312.6114). The defaults
    are those of `VanillaVAE` in https://github.com/AntixK/PyTorch-VAE.

    Args:
        sample_size (`int` or `tuple[int, int]`, defaults to 64):
            Height and width of the images. At least one pixel must be left after the last level.
        in_channels (`int`, defaults to 3):
            Channels of the images.
        latent_dim (`int`, defaults to 128):
            The length of the latent vector.
        block_out_channels (`tuple[int]`, defaults to `(32, 64, 128, 256, 512)`):
            The channels of each level of the encoder.
        kernel_size (`int`, defaults to 3):
            The size of the encoder's convolutions. Odd sizes round halves up, even sizes round them down.
        decoder_block_out_channels (`tuple[int]`, *optional*, defaults to `block_out_channels` in reverse):
            The channels of each level of the decoder, starting from the latent vector.
        decoder_kernel_size (`int`, *optional*, defaults to `kernel_size`):
            The size of the decoder's transposed convolutions.
        add_conv_out (`bool`, defaults to `True`):
            Whether the last layer is a 3x3 convolution at the full size. Otherwise it is the last transposed
            convolution.
        variational (`bool`, defaults to `True`):
            Whether an image has a normal distribution of latent vectors instead of a single one.
        normalization (`str`, defaults to `"batch"`):
            The normalization after each convolution: `"batch"`, `"group"` or `"none"`.
        norm_num_groups (`int`, defaults to 8):
            The number of groups of `"group"`.
        activation (`str`, defaults to `"leaky_relu"`):
            The activation after each normalization: a name in `ACTIVATIONS`.
        output_activation (`str`, defaults to `"tanh"`):
            The activation after the last layer: a name in `ACTIVATIONS`.
        sample_range (`tuple[float, float]`, defaults to `(-1.0, 1.0)`):
            The range of the images that the network takes and makes: `(0.0, 1.0)` with `"sigmoid"`, and `(-1.0, 1.0)`
            with `"tanh"`.

    Raises:
        ValueError: if the arguments do not fit together.
    """

    _skip_layerwise_casting_patterns = ["norm"]

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] = 64,
        in_channels: int = 3,
        latent_dim: int = 128,
        block_out_channels: tuple[int, ...] = (32, 64, 128, 256, 512),
        kernel_size: int = 3,
        decoder_block_out_channels: tuple[int, ...] | None = None,
        decoder_kernel_size: int | None = None,
        add_conv_out: bool = True,
        variational: bool = True,
        normalization: str = "batch",
        norm_num_groups: int = 8,
        activation: str = "leaky_relu",
        output_activation: str = "tanh",
        sample_range: tuple[float, float] = (-1.0, 1.0),
    ):
        super().__init__()
        self.sample_shape = (in_channels, *((sample_size,) * 2 if isinstance(sample_size, int) else sample_size))
        down_channels = tuple(block_out_channels)
        up_channels = tuple(decoder_block_out_channels or reversed(down_channels))
        up_kernel_size = decoder_kernel_size or kernel_size
        check_conv_autoencoder_arguments(
            sample_size, self.sample_shape, latent_dim, down_channels, up_channels, min(kernel_size, up_kernel_size)
        )
        check_normalization(normalization, norm_num_groups, down_channels, up_channels)
        check_activation("activation", activation, ACTIVATIONS)
        check_activation("output_activation", output_activation, ACTIVATIONS)
        check_sample_range(sample_range, output_activation)
        down_sizes = halved(self.sample_shape[1:], kernel_size, len(down_channels))
        up_sizes = halved(self.sample_shape[1:], up_kernel_size, len(up_channels))
        if min(*down_sizes[-1], *up_sizes[-1]) < 1:
            raise ValueError(f"`sample_size` {sample_size} is too small to be halved {len(down_channels)} times.")

        def norm(channels: int) -> nn.Module:
            return NORMALIZATIONS[normalization](channels, norm_num_groups)

        # 1. encoder
        self.down_blocks = nn.ModuleList()
        width = in_channels
        for channels in down_channels:
            self.down_blocks.append(DownBlock(width, channels, kernel_size, norm(channels), ACTIVATIONS[activation]()))
            width = channels
        self.smallest_map = math.prod(down_sizes[-1])
        num_features = width * self.smallest_map
        self.to_mean = nn.Linear(num_features, latent_dim)
        self.to_logvar = nn.Linear(num_features, latent_dim) if variational else None

        # 2. decoder
        self.feature_shape = (up_channels[0], *up_sizes[-1])
        self.from_latents = nn.Linear(latent_dim, math.prod(self.feature_shape))
        self.up_blocks = nn.ModuleList()
        width = up_channels[0]
        for channels, size in zip(up_channels[1:], up_sizes[-2:0:-1], strict=True):
            self.up_blocks.append(
                UpBlock(width, channels, up_kernel_size, size, norm(channels), ACTIVATIONS[activation]())
            )
            width = channels
        if add_conv_out:
            self.up_blocks.append(
                UpBlock(width, width, up_kernel_size, up_sizes[0], norm(width), ACTIVATIONS[activation]())
            )
            self.conv_out = nn.Conv2d(width, in_channels, kernel_size=3, padding=1)
        else:
            self.up_blocks.append(
                UpBlock(width, in_channels, up_kernel_size, up_sizes[0], nn.Identity(), nn.Identity())
            )
            self.conv_out = nn.Identity()
        self.output_act = ACTIVATIONS[output_activation]()

    def encode(
        self, sample: torch.Tensor, return_dict: bool = True
    ) -> AutoencoderConvEncoderOutput | tuple[torch.Tensor | DiagonalGaussian]:
        r"""
        The latent vector of each image, or its posterior distribution.

        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`): images in the model's `sample_range`.
            return_dict (`bool`, defaults to `True`): whether to return an [`AutoencoderConvEncoderOutput`].

        Raises:
            ValueError: if the images have another size or other channels.
        """
        if tuple(sample.shape[1:]) != self.sample_shape:
            raise ValueError(
                f"`sample` must be of the shape (N, {', '.join(map(str, self.sample_shape))}), but is of "
                f"{tuple(sample.shape)}."
            )
        if self.training and self.config.normalization == "batch" and sample.shape[0] * self.smallest_map == 1:
            raise ValueError(
                "A batch of one image has no variance: train with more images, or with another `normalization`."
            )
        hidden_states = sample
        for down_block in self.down_blocks:
            hidden_states = down_block(hidden_states)
        hidden_states = hidden_states.flatten(1)
        mean = self.to_mean(hidden_states)

        if not self.config.variational:
            return AutoencoderConvEncoderOutput(latents=mean) if return_dict else (mean,)
        latent_dist = DiagonalGaussian(mean, self.to_logvar(hidden_states))
        return AutoencoderConvEncoderOutput(latent_dist=latent_dist) if return_dict else (latent_dist,)

    def decode(self, latents: torch.Tensor, return_dict: bool = True) -> DecoderOutput | tuple[torch.Tensor]:
        r"""
        The image of each latent vector.

        Args:
            latents (`torch.Tensor` of shape `(N, latent_dim)`): latent vectors.
            return_dict (`bool`, defaults to `True`): whether to return a `DecoderOutput` instead of a tuple.

        Returns:
            `DecoderOutput` or `tuple`: images `(N, in_channels, H, W)` in the model's `sample_range`.

        Raises:
            ValueError: if the latents have another length.
        """
        if latents.ndim != 2 or latents.shape[1] != self.config.latent_dim:
            raise ValueError(
                f"`latents` must be of the shape (N, {self.config.latent_dim}), but is of {tuple(latents.shape)}."
            )
        hidden_states = self.from_latents(latents).unflatten(1, self.feature_shape)
        for up_block in self.up_blocks:
            hidden_states = up_block(hidden_states)
        sample = self.output_act(self.conv_out(hidden_states))
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def forward(
        self,
        sample: torch.Tensor,
        sample_posterior: bool = False,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> AutoencoderConvOutput | tuple[torch.Tensor, ...]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                Images in the model's `sample_range`.
            sample_posterior (`bool`, defaults to `False`):
                Whether a variational model decodes a random sample of each posterior, instead of its mean.
            generator (`torch.Generator` or a list of N, *optional*):
                The random generator of `sample_posterior`.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`AutoencoderConvOutput`] instead of a tuple.

        Returns:
            [`AutoencoderConvOutput`] or `tuple`: reconstructions, their latents and, if the model is variational,
            the mean and log variance of the posterior.

        Raises:
            ValueError: if the images have another size or other channels.
        """
        (encoded,) = self.encode(sample, return_dict=False)
        posterior = ()
        latents = encoded
        if self.config.variational:
            posterior = (encoded.mean, encoded.logvar)
            latents = encoded.sample(generator) if sample_posterior else encoded.mode()
        (reconstruction,) = self.decode(latents, return_dict=False)
        if not return_dict:
            return (reconstruction, latents, *posterior)
        return AutoencoderConvOutput(reconstruction, latents, *posterior)


class DownBlock(nn.Module):
    """A convolution that halves the map, normalization, and activation."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, norm: nn.Module, activation: nn.Module):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride=2, padding=(kernel_size - 1) // 2)
        self.norm = norm
        self.act = activation

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.act(self.norm(self.conv(hidden_states)))


class UpBlock(nn.Module):
    """A transposed convolution that doubles the map to the given `size`, normalization, and activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        size: tuple[int, int],
        norm: nn.Module,
        activation: nn.Module,
    ):
        super().__init__()
        # Two sizes have the same half. Without padding, an odd kernel gives one less than the smaller of them, and an
        # even kernel the smaller one.
        output_padding = tuple((side + 1) % 2 if kernel_size % 2 else side % 2 for side in size)
        self.conv = nn.ConvTranspose2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=2,
            padding=(kernel_size - 1) // 2,
            output_padding=output_padding,
        )
        self.norm = norm
        self.act = activation

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.act(self.norm(self.conv(hidden_states)))


# Functions of the number of channels and the number of groups.
NORMALIZATIONS = {
    "batch": lambda channels, groups: nn.BatchNorm2d(channels),
    "group": lambda channels, groups: nn.GroupNorm(groups, channels),
    "none": lambda channels, groups: nn.Identity(),
}


def halved(size: tuple[int, int], kernel_size: int, times: int) -> list[tuple[int, int]]:
    """The sizes of an image before and after each convolution with stride 2; odd kernels round up, even ones down."""
    sizes = [tuple(size)]
    for _ in range(times):
        sizes.append(tuple((side + kernel_size % 2) // 2 for side in sizes[-1]))
    return sizes


def check_conv_autoencoder_arguments(
    sample_size: int | tuple[int, int],
    sample_shape: tuple[int, int, int],
    latent_dim: int,
    down_channels: tuple[int, ...],
    up_channels: tuple[int, ...],
    kernel_size: int,
) -> None:
    if len(down_channels) == 0:
        raise ValueError("`block_out_channels` must have an entry for each level, but is empty.")
    if min(*sample_shape, latent_dim, *down_channels, *up_channels) < 1:
        raise ValueError(
            f"`sample_size`, `in_channels`, `latent_dim` and `block_out_channels` must be positive, but are "
            f"{sample_size}, {sample_shape[0]}, {latent_dim} and {down_channels}."
        )
    if kernel_size < 2:
        raise ValueError(f"`kernel_size` must be at least 2, but is {kernel_size}.")


def check_normalization(
    normalization: str, num_groups: int, down_channels: tuple[int, ...], up_channels: tuple[int, ...]
) -> None:
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"`normalization` must be one of {', '.join(NORMALIZATIONS)}, but is {normalization!r}.")
    if normalization == "group" and any(width % num_groups for width in down_channels + up_channels):
        raise ValueError(f"`norm_num_groups` must divide {down_channels}, but is {num_groups}.")
