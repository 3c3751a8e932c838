"""The autoencoder of beta-VAE and related work: four convolutions and two linear layers, and the same in reverse."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.utils import BaseOutput
from torch import nn

from .activations import OUTPUT_ACTIVATIONS, check_activation, check_sample_range
from .diagonal_gaussian import DiagonalGaussian


@dataclass
class AutoencoderBurgessEncoderOutput(BaseOutput):
    """
    The output of [`AutoencoderBurgess.encode`].

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
class AutoencoderBurgessOutput(BaseOutput):
    """
    The output of [`AutoencoderBurgess`].

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


class AutoencoderBurgess(ModelMixin, ConfigMixin):
    r"""
    The autoencoder of most research on disentangled latents.

    It comes from "Understanding disentangling in beta-VAE" (Burgess et al. 2018, appendix A.1,
    https://huggingface.co/papers/1804.03599). For 64x64 pixels it has four 4x4 convolutions with 32 channels and
    stride 2, two linear layers with 256 units, ReLU after each layer, and the same in reverse. For 32x32 pixels it has
    one convolution less, as in https://github.com/YannDubs/disentangling-vae.

    Args:
        sample_size (`int` or `tuple[int, int]`, defaults to 64):
            Height and width of the images. At least one pixel must be left after the last convolution.
        in_channels (`int`, defaults to 1):
            Channels of the images.
        latent_dim (`int`, defaults to 10):
            The length of the latent vector.
        num_convs (`int`, *optional*):
            The number of convolutions that halve the image; by default as many as possible with at least 4x4 pixels
            left.
        hidden_channels (`int`, defaults to 32):
            The channels of the convolutions.
        hidden_dim (`int`, defaults to 256):
            The units of the linear layers.
        variational (`bool`, defaults to `True`):
            Whether an image has a normal distribution of latent vectors instead of a single one.
        output_activation (`str`, defaults to `"sigmoid"`):
            The activation after the last layer: `"sigmoid"`, `"tanh"` or `"identity"`.
        sample_range (`tuple[float, float]`, defaults to `(0.0, 1.0)`):
            The range of the images that the network takes and makes: `(0.0, 1.0)` with `"sigmoid"`, and `(-1.0, 1.0)`
            with `"tanh"`.

    Raises:
        ValueError: if the arguments do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] = 64,
        in_channels: int = 1,
        latent_dim: int = 10,
        num_convs: int | None = None,
        hidden_channels: int = 32,
        hidden_dim: int = 256,
        variational: bool = True,
        output_activation: str = "sigmoid",
        sample_range: tuple[float, float] = (0.0, 1.0),
    ):
        super().__init__()
        self.sample_shape = (in_channels, *((sample_size,) * 2 if isinstance(sample_size, int) else sample_size))
        if num_convs is None:
            num_convs = max(1, (min(self.sample_shape[1:]) // 4).bit_length() - 1)
        check_burgess_arguments(sample_size, in_channels, latent_dim, num_convs, hidden_channels, hidden_dim)
        check_activation("output_activation", output_activation, OUTPUT_ACTIVATIONS)
        check_sample_range(sample_range, output_activation)

        sizes = [tuple(side >> i for side in self.sample_shape[1:]) for i in range(num_convs + 1)]
        self.feature_shape = (hidden_channels, *sizes[-1])
        num_features = math.prod(self.feature_shape)

        # 1. encoder
        widths = [in_channels] + [hidden_channels] * num_convs
        self.encoder_convs = nn.ModuleList(
            nn.Conv2d(*channels, kernel_size=4, stride=2, padding=1)
            for channels in zip(widths[:-1], widths[1:], strict=True)
        )
        self.encoder_layers = nn.ModuleList([nn.Linear(num_features, hidden_dim), nn.Linear(hidden_dim, hidden_dim)])
        self.to_mean = nn.Linear(hidden_dim, latent_dim)
        self.to_logvar = nn.Linear(hidden_dim, latent_dim) if variational else None

        # 2. decoder; `output_padding` restores the last row or column of odd sizes
        self.decoder_layers = nn.ModuleList(
            [
                nn.Linear(latent_dim, hidden_dim),
                nn.Linear(hidden_dim, hidden_dim),
                nn.Linear(hidden_dim, num_features),
            ]
        )
        self.decoder_convs = nn.ModuleList(
            nn.ConvTranspose2d(
                width_in, width_out, 4, stride=2, padding=1, output_padding=tuple(side % 2 for side in size)
            )
            for width_in, width_out, size in zip(widths[:0:-1], widths[-2::-1], sizes[-2::-1], strict=True)
        )
        self.output_act = OUTPUT_ACTIVATIONS[output_activation]()

        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")  # as in disentangling-vae

    def encode(
        self, sample: torch.Tensor, return_dict: bool = True
    ) -> AutoencoderBurgessEncoderOutput | tuple[torch.Tensor | DiagonalGaussian]:
        r"""
        The latent vector of each image, or its posterior distribution.

        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`): images in the model's `sample_range`.
            return_dict (`bool`, defaults to `True`): whether to return an [`AutoencoderBurgessEncoderOutput`].

        Raises:
            ValueError: if the images have another size or other channels.
        """
        if tuple(sample.shape[1:]) != self.sample_shape:
            raise ValueError(
                f"`sample` must be of the shape (N, {', '.join(map(str, self.sample_shape))}), but is of "
                f"{tuple(sample.shape)}."
            )
        hidden_states = sample
        for conv in self.encoder_convs:
            hidden_states = F.relu(conv(hidden_states))
        hidden_states = hidden_states.flatten(1)
        for layer in self.encoder_layers:
            hidden_states = F.relu(layer(hidden_states))
        mean = self.to_mean(hidden_states)

        if not self.config.variational:
            return AutoencoderBurgessEncoderOutput(latents=mean) if return_dict else (mean,)
        latent_dist = DiagonalGaussian(mean, self.to_logvar(hidden_states))
        return AutoencoderBurgessEncoderOutput(latent_dist=latent_dist) if return_dict else (latent_dist,)

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
        hidden_states = latents
        for layer in self.decoder_layers:
            hidden_states = F.relu(layer(hidden_states))
        hidden_states = hidden_states.unflatten(1, self.feature_shape)
        for conv in self.decoder_convs[:-1]:
            hidden_states = F.relu(conv(hidden_states))
        sample = self.output_act(self.decoder_convs[-1](hidden_states))
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def forward(
        self,
        sample: torch.Tensor,
        sample_posterior: bool = False,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> AutoencoderBurgessOutput | tuple[torch.Tensor, ...]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                Images in the model's `sample_range`.
            sample_posterior (`bool`, defaults to `False`):
                Whether a variational model decodes a random sample of each posterior, instead of its mean.
            generator (`torch.Generator` or a list of N, *optional*):
                The random generator of `sample_posterior`.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`AutoencoderBurgessOutput`] instead of a tuple.

        Returns:
            [`AutoencoderBurgessOutput`] or `tuple`: reconstructions, their latents and, if the model is variational,
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
        return AutoencoderBurgessOutput(reconstruction, latents, *posterior)


def check_burgess_arguments(
    sample_size: int | tuple[int, int],
    in_channels: int,
    latent_dim: int,
    num_convs: int,
    hidden_channels: int,
    hidden_dim: int,
) -> None:
    smallest_side = sample_size if isinstance(sample_size, int) else min(sample_size)
    if min(smallest_side, in_channels, latent_dim, hidden_channels, hidden_dim) < 1:
        raise ValueError(
            f"`sample_size`, `in_channels`, `latent_dim`, `hidden_channels` and `hidden_dim` must be positive, but "
            f"are {sample_size}, {in_channels}, {latent_dim}, {hidden_channels} and {hidden_dim}."
        )
    if num_convs < 1 or smallest_side >> num_convs < 1:
        raise ValueError(
            f"`num_convs` must be at least 1, and `sample_size` {sample_size} must be large enough to be halved that "
            f"often, but it is {num_convs}."
        )
