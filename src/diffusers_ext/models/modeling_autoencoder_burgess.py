"""The autoencoder of beta-VAE and its kin: four convolutions and two linear layers, and back."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.utils import BaseOutput
from torch import nn


OUTPUT_ACTIVATIONS = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "identity": nn.Identity}
# What an output activation can reach.
OUTPUT_RANGES = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}


# Copied from diffusers_ext.models.modeling_autoencoder_mlp.DiagonalGaussian
class DiagonalGaussian(DiagonalGaussianDistribution):
    """The posterior N(mean, diag(exp(logvar))) of each sample, `(N, latent_dim)` each; diffusers' is one of images."""

    def __init__(self, mean: torch.Tensor, logvar: torch.Tensor):
        super().__init__(torch.cat([mean, logvar], dim=1))

    def kl(self) -> torch.Tensor:
        """The divergence KL(q(z | x) || N(0, I)) in nats, `(N,)` (Kingma & Welling 2014, appendix B)."""
        return 0.5 * (self.mean.square() + self.var - 1 - self.logvar).sum(dim=1)


@dataclass
class AutoencoderBurgessEncoderOutput(BaseOutput):
    """
    The output of [`AutoencoderBurgess.encode`].

    Args:
        latents (`torch.Tensor` of shape `(N, latent_dim)`, *optional*):
            The code of each image, if the model is deterministic.
        latent_dist (`DiagonalGaussian`, *optional*):
            The posterior of each image, if it is variational: `mean`, `logvar`, `sample()`, `mode()` and `kl()`.
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
            The latents that they were decoded from.
        mean, logvar (`torch.Tensor` of shape `(N, latent_dim)`, *optional*):
            The posterior, if the model is variational; [`latent_dist`] is the same as a distribution.
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
    The autoencoder that research on disentangled codes shares.

    It is that of "Understanding disentangling in beta-VAE" (Burgess et al. 2018, appendix A.1,
    https://huggingface.co/papers/1804.03599), for 64x64 pixels: four 4x4 convolutions of 32 channels and stride 2, two
    linear layers of 256 units, ReLU everywhere, and the same in reverse. https://github.com/YannDubs/disentangling-vae
    has one convolution less for 32x32 pixels.

    Args:
        sample_size (`int` or `tuple[int, int]`, defaults to 64):
            Height and width of the images. All sizes work that still have a pixel after the last convolution.
        in_channels (`int`, defaults to 1):
            Channels of the images.
        latent_dim (`int`, defaults to 10):
            The length of the code.
        num_convs (`int`, *optional*):
            The number of convolutions that halve the image, by default as many as leave at least 4x4 pixels.
        hidden_channels (`int`, defaults to 32):
            The channels of the convolutions.
        hidden_dim (`int`, defaults to 256):
            The units of the linear layers.
        variational (`bool`, defaults to `True`):
            Whether an image has a normal distribution of codes instead of one code.
        output_activation (`str`, defaults to `"sigmoid"`):
            What follows the last layer: `"sigmoid"`, `"tanh"` or `"identity"`.
        sample_range (`tuple[float, float]`, defaults to `(0.0, 1.0)`):
            The range of the images inside of this network: `(0.0, 1.0)` with `"sigmoid"`, and `(-1.0, 1.0)` with
            `"tanh"`.

    Raises:
        ValueError: if the arguments do not fit one another.
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
        smallest = min(self.sample_shape[1:])
        if min(smallest, in_channels, latent_dim, hidden_channels, hidden_dim) < 1:
            raise ValueError(
                f"`sample_size`, `in_channels`, `latent_dim`, `hidden_channels` and `hidden_dim` must be positive, "
                f"but are {sample_size}, {in_channels}, {latent_dim}, {hidden_channels} and {hidden_dim}."
            )
        if num_convs is None:
            num_convs = max(1, (smallest // 4).bit_length() - 1)
        if num_convs < 1 or smallest >> num_convs < 1:
            raise ValueError(
                f"`num_convs` must be at least 1, and `sample_size` {sample_size} so large that it can be halved as "
                f"often, but it is {num_convs}."
            )
        if output_activation not in OUTPUT_ACTIVATIONS:
            raise ValueError(
                f"`output_activation` must be one of {', '.join(OUTPUT_ACTIVATIONS)}, but is {output_activation!r}."
            )
        if tuple(sample_range) != OUTPUT_RANGES.get(output_activation, tuple(sample_range)):
            raise ValueError(
                f"`sample_range` must be {OUTPUT_RANGES[output_activation]}, the range of a {output_activation}, but "
                f"is {tuple(sample_range)}."
            )
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

        # 2. decoder; a size that was not even gets its last row or column back
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
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")  # as disentangling-vae

    def encode(
        self, sample: torch.Tensor, return_dict: bool = True
    ) -> AutoencoderBurgessEncoderOutput | tuple[torch.Tensor | DiagonalGaussian]:
        r"""
        The code of each image, or its distribution.

        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`): images in the model's `sample_range`.
            return_dict (`bool`, defaults to `True`): whether to return an [`AutoencoderBurgessEncoderOutput`].

        Raises:
            ValueError: if the images are of another size or have other channels.
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
        The image of each code.

        Args:
            latents (`torch.Tensor` of shape `(N, latent_dim)`): codes.
            return_dict (`bool`, defaults to `True`): whether to return a `DecoderOutput` instead of a tuple.

        Returns:
            `DecoderOutput` or `tuple`: images `(N, in_channels, H, W)` in the model's `sample_range`.

        Raises:
            ValueError: if the codes are of another length.
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
                Whether a variational model decodes a random code of each image's distribution, instead of its mean.
            generator (`torch.Generator` or a list of N, *optional*):
                Where the randomness of `sample_posterior` comes from.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`AutoencoderBurgessOutput`] instead of a tuple.

        Returns:
            [`AutoencoderBurgessOutput`] or `tuple`: reconstructions, their latents and, if the model is variational,
            the mean and log variance of the posterior.

        Raises:
            ValueError: if the images are of another size or have other channels.
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
