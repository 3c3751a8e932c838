"""An autoencoder of linear layers: deterministic or variational."""

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


@dataclass
class AutoencoderMLPEncoderOutput(BaseOutput):
    """
    The output of [`AutoencoderMLP.encode`].

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
class AutoencoderMLPOutput(BaseOutput):
    """
    The output of [`AutoencoderMLP`].

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


class AutoencoderMLP(ModelMixin, ConfigMixin):
    r"""
    An autoencoder of linear layers between images and vectors.

    It is a plain autoencoder, or with `variational=True` the one of "Auto-Encoding Variational Bayes" (Kingma &
    Welling 2014, https://huggingface.co/papers/1312.6114). Without hidden layers it is linear, and its optimum spans
    the same subspace as PCA. The defaults come from PyTorch's VAE example.

    Args:
        sample_size (`int` or `tuple[int, int]`, defaults to 28):
            Height and width of the images.
        in_channels (`int`, defaults to 1):
            Channels of the images.
        latent_dim (`int`, defaults to 20):
            The length of the latent vector.
        hidden_dims (`tuple[int]`, defaults to `(400,)`):
            The widths of the encoder's hidden layers, starting from the image; the decoder has the same in reverse.
            With `()`, the autoencoder is linear.
        variational (`bool`, defaults to `True`):
            Whether an image has a normal distribution of latent vectors instead of a single one.
        activation (`str`, defaults to `"relu"`):
            The activation after each hidden layer: a name in `ACTIVATIONS`.
        output_activation (`str`, defaults to `"sigmoid"`):
            The activation after the last layer: a name in `ACTIVATIONS`.
        sample_range (`tuple[float, float]`, defaults to `(0.0, 1.0)`):
            The range of the images that the network takes and makes: `(0.0, 1.0)` with `"sigmoid"`, and `(-1.0, 1.0)`
            with `"tanh"`.

    Raises:
        ValueError: if the arguments do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] = 28,
        in_channels: int = 1,
        latent_dim: int = 20,
        hidden_dims: tuple[int, ...] = (400,),
        variational: bool = True,
        activation: str = "relu",
        output_activation: str = "sigmoid",
        sample_range: tuple[float, float] = (0.0, 1.0),
    ):
        super().__init__()
        self.sample_shape = (in_channels, *((sample_size,) * 2 if isinstance(sample_size, int) else sample_size))
        if min(*self.sample_shape, latent_dim, *hidden_dims) < 1:
            raise ValueError(
                f"`sample_size`, `in_channels`, `latent_dim` and `hidden_dims` must be positive, but are "
                f"{sample_size}, {in_channels}, {latent_dim} and {tuple(hidden_dims)}."
            )
        check_activation("activation", activation, ACTIVATIONS)
        check_activation("output_activation", output_activation, ACTIVATIONS)
        check_sample_range(sample_range, output_activation)

        num_values = math.prod(self.sample_shape)
        widths = [num_values, *hidden_dims]
        self.act = ACTIVATIONS[activation]()
        self.output_act = ACTIVATIONS[output_activation]()

        # 1. encoder
        self.encoder_layers = nn.ModuleList(map(nn.Linear, widths[:-1], widths[1:]))
        self.to_mean = nn.Linear(widths[-1], latent_dim)
        self.to_logvar = nn.Linear(widths[-1], latent_dim) if variational else None

        # 2. decoder
        widths = [latent_dim, *reversed(hidden_dims)]
        self.decoder_layers = nn.ModuleList(map(nn.Linear, widths[:-1], widths[1:]))
        self.to_sample = nn.Linear(widths[-1], num_values)

    def encode(
        self, sample: torch.Tensor, return_dict: bool = True
    ) -> AutoencoderMLPEncoderOutput | tuple[torch.Tensor | DiagonalGaussian]:
        r"""
        The latent vector of each image, or its posterior distribution.

        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`): images in the model's `sample_range`.
            return_dict (`bool`, defaults to `True`): whether to return an [`AutoencoderMLPEncoderOutput`].

        Raises:
            ValueError: if the images have another size or other channels.
        """
        if tuple(sample.shape[1:]) != self.sample_shape:
            raise ValueError(
                f"`sample` must be of the shape (N, {', '.join(map(str, self.sample_shape))}), but is of "
                f"{tuple(sample.shape)}."
            )
        hidden_states = sample.flatten(1)
        for layer in self.encoder_layers:
            hidden_states = self.act(layer(hidden_states))
        mean = self.to_mean(hidden_states)

        if not self.config.variational:
            return AutoencoderMLPEncoderOutput(latents=mean) if return_dict else (mean,)
        latent_dist = DiagonalGaussian(mean, self.to_logvar(hidden_states))
        return AutoencoderMLPEncoderOutput(latent_dist=latent_dist) if return_dict else (latent_dist,)

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
            hidden_states = self.act(layer(hidden_states))
        sample = self.output_act(self.to_sample(hidden_states)).unflatten(1, self.sample_shape)
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def forward(
        self,
        sample: torch.Tensor,
        sample_posterior: bool = False,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> AutoencoderMLPOutput | tuple[torch.Tensor, ...]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                Images in the model's `sample_range`.
            sample_posterior (`bool`, defaults to `False`):
                Whether a variational model decodes a random sample of each posterior, instead of its mean.
            generator (`torch.Generator` or a list of N, *optional*):
                The random generator of `sample_posterior`.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`AutoencoderMLPOutput`] instead of a tuple.

        Returns:
            [`AutoencoderMLPOutput`] or `tuple`: reconstructions, their latents and, if the model is variational,
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
        return AutoencoderMLPOutput(reconstruction, latents, *posterior)
