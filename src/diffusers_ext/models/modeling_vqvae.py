"""VQ-VAE: an autoencoder whose latents are entries of a codebook."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.autoencoders.vq_model import VQEncoderOutput
from diffusers.utils import BaseOutput
from torch import nn

from .activations import OUTPUT_ACTIVATIONS
from .disk_offloading import DiskOffloadMixin
from .vector_quantization import VectorQuantizer, perplexity
from .vqvae_blocks import ConvDecoder, ConvEncoder, initialize_as_sonnet
from .vqvae_checks import check_codebook_arguments, check_conv_arguments, check_output_arguments


@dataclass
class VQVAEQuantizerOutput(BaseOutput):
    """
    The output of [`VQVAEModel.quantize`].

    Args:
        quantized (`torch.Tensor` of shape `(N, embedding_dim, ...)`):
            The nearest entries, with the gradient of the latents.
        codes (`torch.Tensor` of shape `(N, ...)`):
            The numbers of these entries, int64.
        loss (`torch.Tensor` of shape `(N,)`):
            The mean squared distance between latents and entries, times `commitment_cost`; its gradient moves the
            latents. Without EMA, the same distance is added again, with a gradient that moves the entries.
    """

    quantized: torch.Tensor
    codes: torch.Tensor | None = None
    loss: torch.Tensor | None = None


@dataclass
class VQVAEOutput(BaseOutput):
    """
    The output of [`VQVAEModel`].

    Args:
        sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
            The reconstructions, in the model's `sample_range`.
        latents (`torch.Tensor` of shape `(N, embedding_dim, ...)`):
            The latents before quantization.
        codes (`torch.Tensor` of shape `(N, ...)`):
            The numbers of their nearest entries.
        loss (`torch.Tensor` of shape `(N,)`):
            The loss of the quantization, which must be added to the loss of the reconstruction.
    """

    sample: torch.Tensor
    latents: torch.Tensor | None = None
    codes: torch.Tensor | None = None
    loss: torch.Tensor | None = None


class VQVAEModel(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    The VQ-VAE: an autoencoder whose latents are entries of a codebook.

    "Neural Discrete Representation Learning" (van den Oord et al. 2017, https://huggingface.co/papers/1711.00937). The
    codebook can be one of running means, as in "Generating Diverse High-Fidelity Images with VQ-VAE-2" (Razavi et al.
    2019, appendix A, https://huggingface.co/papers/1906.00446). The defaults are Sonnet's for CIFAR-10.

    A trainer must call [`~VQVAEModel.update_codebook`] with the latents of the whole batch after each step.

    Args:
        sample_size (`int` or `tuple[int, int]`, defaults to 32):
            Height and width of the images. The convolutional body can process all sizes that can be halved
            `num_downsamples` times.
        in_channels (`int`, defaults to 3):
            Channels of the images.
        body (`str`, defaults to `"conv"`):
            `"conv"` for convolutions and a map of latents, or `"mlp"` for linear layers and a row of latents, as in
            pythae.
        num_embeddings (`int`, defaults to 512):
            The number of entries of the codebook.
        embedding_dim (`int`, defaults to 64):
            The length of an entry.
        hidden_channels (`int`, defaults to 128):
            For the convolutional body: its channels; half as many at the full size.
        num_downsamples (`int`, defaults to 2):
            For the convolutional body: how often it halves the image.
        num_residual_layers (`int`, defaults to 2):
            For the convolutional body: the number of residual blocks in the encoder, and in the decoder.
        residual_channels (`int`, defaults to 32):
            For the convolutional body: the channels inside of a residual block.
        hidden_dims (`tuple[int]`, defaults to `(512,)`):
            For the linear body: the widths of the encoder's hidden layers; the decoder has the same in reverse.
        latent_dim (`int`, defaults to 16):
            For the linear body: the length of the latent vector, which consists of `latent_dim // embedding_dim`
            entries.
        output_activation (`str`, defaults to `"identity"`):
            The activation after the last layer: `"sigmoid"`, `"tanh"` or `"identity"`.
        sample_range (`tuple[float, float]`, defaults to `(-1.0, 1.0)`):
            The range of the images that the network takes and makes: `(0.0, 1.0)` with `"sigmoid"`, and `(-1.0, 1.0)`
            with `"tanh"`.
        commitment_cost (`float`, defaults to 0.25):
            The weight beta of the loss that pulls the latents to their entries.
        use_ema (`bool`, defaults to `True`):
            Whether the entries are running means of their latents. Otherwise they are trained by gradients.
        ema_decay (`float`, defaults to 0.99):
            The decay gamma of the running means.
        revival_threshold (`float`, defaults to 0.1):
            With `use_ema`, an entry is moved to a random latent if its usage is below this fraction of the average
            usage; 0 for never.
        codebook_cost (`float`, defaults to 1.0):
            Without `use_ema`, the weight of the loss that pulls the entries to their latents.

    Raises:
        ValueError: if the arguments do not fit together.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["ResidualBlock"]

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] = 32,
        in_channels: int = 3,
        body: str = "conv",
        num_embeddings: int = 512,
        embedding_dim: int = 64,
        hidden_channels: int = 128,
        num_downsamples: int = 2,
        num_residual_layers: int = 2,
        residual_channels: int = 32,
        hidden_dims: tuple[int, ...] = (512,),
        latent_dim: int = 16,
        output_activation: str = "identity",
        sample_range: tuple[float, float] = (-1.0, 1.0),
        commitment_cost: float = 0.25,
        use_ema: bool = True,
        ema_decay: float = 0.99,
        revival_threshold: float = 0.1,
        codebook_cost: float = 1.0,
    ):
        super().__init__()
        self.sample_shape = (in_channels, *((sample_size,) * 2 if isinstance(sample_size, int) else sample_size))
        if body not in ("conv", "mlp"):
            raise ValueError(f"`body` must be one of conv, mlp, but is {body!r}.")
        check_codebook_arguments(sample_size, in_channels, num_embeddings, embedding_dim, ema_decay, revival_threshold)
        check_output_arguments(output_activation, sample_range)

        if body == "conv":
            check_conv_arguments(hidden_channels, num_downsamples, num_residual_layers, residual_channels)
            self._check_size(*self.sample_shape[1:])
            residual = (num_residual_layers, residual_channels)
            self.encoder = ConvEncoder(in_channels, hidden_channels, num_downsamples, *residual)
            self.to_latents = nn.Conv2d(hidden_channels, embedding_dim, kernel_size=1)
            self.decoder = ConvDecoder(embedding_dim, in_channels, hidden_channels, num_downsamples, *residual)
        else:
            if min(latent_dim, *hidden_dims) < 1 or latent_dim % embedding_dim != 0:
                raise ValueError(
                    f"`latent_dim` must be a multiple of `embedding_dim`, and `hidden_dims` positive, but they are "
                    f"{latent_dim}, {embedding_dim} and {tuple(hidden_dims)}."
                )
            self._supports_gradient_checkpointing = False  # so small a network has nothing to save
            self.encoder = MLPEncoder(math.prod(self.sample_shape), tuple(hidden_dims))
            self.to_latents = nn.Linear((math.prod(self.sample_shape), *hidden_dims)[-1], latent_dim)
            self.decoder = MLPDecoder(latent_dim, tuple(reversed(hidden_dims)), self.sample_shape)
        self.quantizer = VectorQuantizer(
            num_embeddings, embedding_dim, commitment_cost, use_ema, ema_decay, revival_threshold, codebook_cost
        )
        self.output_act = OUTPUT_ACTIVATIONS[output_activation]()

        self.apply(initialize_as_sonnet)

    @property
    def stride(self) -> int:
        """Height and width of images must be multiples of this number. It is 1 if all images have the same size."""
        return 2**self.config.num_downsamples if self.config.body == "conv" else 1

    def _check_size(self, height: int, width: int) -> None:
        if height % self.stride != 0 or width % self.stride != 0:
            raise ValueError(f"Height and width must be multiples of {self.stride}, but are {height} and {width}.")

    def encode(self, sample: torch.Tensor, return_dict: bool = True) -> VQEncoderOutput | tuple[torch.Tensor]:
        r"""
        The latents of each image, before quantization.

        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`): images in the model's `sample_range`.
            return_dict (`bool`, defaults to `True`): whether to return a `VQEncoderOutput` instead of a tuple.

        Returns:
            `VQEncoderOutput` or `tuple`: latents `(N, embedding_dim, h, w)` of the convolutional body, and
            `(N, embedding_dim, latent_dim // embedding_dim)` of the linear one.

        Raises:
            ValueError: if the network cannot process images of this size or with these channels.
        """
        is_conv = self.config.body == "conv"
        if sample.ndim != 4 or sample.shape[1] != self.config.in_channels:
            raise ValueError(
                f"`sample` must be of the shape (N, {self.config.in_channels}, H, W), but is of {tuple(sample.shape)}."
            )
        if is_conv:
            self._check_size(*sample.shape[2:])
        elif tuple(sample.shape[1:]) != self.sample_shape:
            raise ValueError(
                f"`sample` must be of the shape (N, {', '.join(map(str, self.sample_shape))}), but is of "
                f"{tuple(sample.shape)}."
            )
        latents = self.to_latents(self.encoder(sample))
        if not is_conv:
            latents = latents.unflatten(1, (self.config.embedding_dim, -1))
        return VQEncoderOutput(latents=latents) if return_dict else (latents,)

    def quantize(
        self, latents: torch.Tensor, return_dict: bool = True
    ) -> VQVAEQuantizerOutput | tuple[torch.Tensor, ...]:
        r"""
        The nearest entries of the codebook.

        Args:
            latents (`torch.Tensor` of shape `(N, embedding_dim, ...)`): what [`~VQVAEModel.encode`] returns.
            return_dict (`bool`, defaults to `True`): whether to return a [`VQVAEQuantizerOutput`].

        Raises:
            ValueError: if the length of the latents is not that of the entries.
        """
        if latents.ndim < 2 or latents.shape[1] != self.config.embedding_dim:
            raise ValueError(
                f"`latents` must be of the shape (N, {self.config.embedding_dim}, ...), but is of "
                f"{tuple(latents.shape)}."
            )
        quantized, codes, loss = self.quantizer(latents)
        return VQVAEQuantizerOutput(quantized, codes, loss) if return_dict else (quantized, codes, loss)

    def embed_codes(self, codes: torch.Tensor) -> torch.Tensor:
        """The entries `(N, embedding_dim, ...)` of codes `(N, ...)`, for [`~VQVAEModel.decode`]."""
        return F.embedding(codes, self.quantizer.embeddings).movedim(-1, 1)

    def decode(self, latents: torch.Tensor, return_dict: bool = True) -> DecoderOutput | tuple[torch.Tensor]:
        r"""
        The image of each map of latents. Latents are quantized first, which does not change entries of the codebook.

        Args:
            latents (`torch.Tensor` of shape `(N, embedding_dim, ...)`):
                What [`~VQVAEModel.encode`] or [`~VQVAEModel.embed_codes`] returns.
            return_dict (`bool`, defaults to `True`):
                Whether to return a `DecoderOutput` instead of a tuple.

        Returns:
            `DecoderOutput` or `tuple`: images `(N, in_channels, H, W)` in the model's `sample_range`.

        Raises:
            ValueError: if the length of the latents is not that of the entries.
        """
        sample = self._decode_quantized(self.quantize(latents).quantized)
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def _decode_quantized(self, quantized: torch.Tensor) -> torch.Tensor:
        return self.output_act(self.decoder(quantized))

    def forward(self, sample: torch.Tensor, return_dict: bool = True) -> VQVAEOutput | tuple[torch.Tensor, ...]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                Images in the model's `sample_range`.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`VQVAEOutput`] instead of a tuple.

        Returns:
            [`VQVAEOutput`] or `tuple`: reconstructions, latents before quantization, their codes, and the loss.

        Raises:
            ValueError: if the network cannot process images of this size or with these channels.
        """
        (latents,) = self.encode(sample, return_dict=False)
        quantized, codes, loss = self.quantize(latents, return_dict=False)
        reconstruction = self._decode_quantized(quantized)
        if not return_dict:
            return (reconstruction, latents, codes, loss)
        return VQVAEOutput(sample=reconstruction, latents=latents, codes=codes, loss=loss)

    def update_codebook(
        self, codes: torch.Tensor, latents: torch.Tensor, generator: torch.Generator | None = None
    ) -> None:
        r"""
        One step of the running means, in place (Razavi et al. 2019, eq. 2), and the revival of unused entries.

        All processes must pass the rows of the whole batch, and the same state of the generator.

        Args:
            codes (`torch.Tensor` of shape `(N, ...)`): as `forward` returned them.
            latents (`torch.Tensor` of shape `(N, embedding_dim, ...)`): as `forward` returned them.
            generator (`torch.Generator`, *optional*): draws the latents for revived entries.

        Raises:
            ValueError: if the codebook is trained by gradients.
        """
        if not self.config.use_ema:
            raise ValueError("The codebook is trained by gradients (`use_ema=False`) and has no running means.")
        self.quantizer.update(codes, latents, generator)

    def code_usage(self, codes: torch.Tensor) -> torch.Tensor:
        """The fraction of the codebook that these codes use, `(1,)`: from 0 to 1, for the single codebook."""
        return (self.quantizer.frequencies(codes) > 0).float().mean()[None]

    def code_perplexity(self, codes: torch.Tensor) -> torch.Tensor:
        """The perplexity of these codes, `(1,)`: from 1 (a single entry) to `num_embeddings` (all equally often)."""
        return perplexity(self.quantizer.frequencies(codes))[None]


class MLPEncoder(nn.Module):
    """From images to vectors by linear layers with ReLU between them."""

    def __init__(self, in_features: int, hidden_dims: tuple[int, ...]):
        super().__init__()
        widths = [in_features, *hidden_dims]
        self.layers = nn.ModuleList(map(nn.Linear, widths[:-1], widths[1:]))

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        hidden_states = sample.flatten(1)
        for layer in self.layers:
            hidden_states = F.relu(layer(hidden_states))
        return hidden_states


class MLPDecoder(nn.Module):
    """From latents to images by linear layers with ReLU between them."""

    def __init__(self, latent_dim: int, hidden_dims: tuple[int, ...], sample_shape: tuple[int, int, int]):
        super().__init__()
        self.sample_shape = sample_shape
        widths = [latent_dim, *hidden_dims, math.prod(sample_shape)]
        self.layers = nn.ModuleList(map(nn.Linear, widths[:-1], widths[1:]))

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        hidden_states = latents.flatten(1)
        for layer in self.layers[:-1]:
            hidden_states = F.relu(layer(hidden_states))
        return self.layers[-1](hidden_states).unflatten(1, self.sample_shape)
