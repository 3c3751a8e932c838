"""VQ-VAE-2: an autoencoder with two levels of quantized latents, one for the whole and one for details."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.utils import BaseOutput
from torch import nn

from .activations import OUTPUT_ACTIVATIONS
from .disk_offloading import DiskOffloadMixin
from .vector_quantization import VectorQuantizer, perplexity
from .vqvae_blocks import ConvDecoder, ConvEncoder, initialize_as_sonnet
from .vqvae_checks import check_codebook_arguments, check_conv_arguments, check_output_arguments


Tensors = tuple[torch.Tensor, torch.Tensor]  # for the top level and the bottom level


@dataclass
class VQVAE2EncoderOutput(BaseOutput):
    """
    The output of [`VQVAE2Model.encode`].

    Args:
        latents (`tuple` of two `torch.Tensor`):
            The latents of the top level, `(N, embedding_dim, h, w)`, and of the bottom level, `(N, embedding_dim, 2h,
            2w)`, before quantization.
    """

    latents: Tensors


@dataclass
class VQVAE2QuantizerOutput(BaseOutput):
    """
    The output of [`VQVAE2Model.quantize`].

    Args:
        quantized (`tuple` of two `torch.Tensor`):
            The nearest entries, with the shapes and gradients of the latents.
        codes (`tuple` of two `torch.Tensor`):
            The numbers of these entries, `(N, h, w)` and `(N, 2h, 2w)`, int64.
        loss (`torch.Tensor` of shape `(N,)`):
            The mean squared distance between latents and entries, times `commitment_cost`, summed over both levels;
            its gradient moves the latents. Without EMA, the same distances are added again, with gradients that move
            the entries.
    """

    quantized: Tensors
    codes: Tensors | None = None
    loss: torch.Tensor | None = None


@dataclass
class VQVAE2Output(BaseOutput):
    """
    The output of [`VQVAE2Model`].

    Args:
        sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
            The reconstructions, in the model's `sample_range`.
        latents (`tuple` of two `torch.Tensor`):
            The latents of the top and the bottom level before quantization.
        codes (`tuple` of two `torch.Tensor`):
            The numbers of their nearest entries.
        loss (`torch.Tensor` of shape `(N,)`):
            The loss of the quantization, which must be added to the loss of the reconstruction.
    """

    sample: torch.Tensor
    latents: Tensors | None = None
    codes: Tensors | None = None
    loss: torch.Tensor | None = None


class VQVAE2Model(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    The VQ-VAE with two levels: "Generating Diverse High-Fidelity Images with VQ-VAE-2" (Razavi et al. 2019, section
    3.1 and algorithm 1, https://huggingface.co/papers/1906.00446).

    The bottom encoder halves the image `num_downsamples` times, and the top encoder halves its features once more. The
    bottom latents are computed from these features and the decoded top codes. The image is decoded from the codes of
    both levels.

    A trainer must call [`~VQVAE2Model.update_codebook`] with the latents of the whole batch after each step.

    Args:
        sample_size (`int` or `tuple[int, int]`, defaults to 256):
            Height and width of the images. All sizes are possible that can be halved `num_downsamples + 1` times.
        in_channels (`int`, defaults to 3):
            Channels of the images.
        num_embeddings (`int`, defaults to 512):
            The number of entries of each of the two codebooks.
        embedding_dim (`int`, defaults to 64):
            The length of an entry.
        hidden_channels (`int`, defaults to 128):
            The channels of the network; half as many at the full size.
        num_downsamples (`int`, defaults to 2):
            How often the bottom encoder halves the image.
        num_residual_layers (`int`, defaults to 2):
            The number of residual blocks of each encoder and decoder.
        residual_channels (`int`, defaults to 32):
            The channels inside of a residual block.
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

    Raises:
        ValueError: if the arguments do not fit together.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["ResidualBlock"]

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] = 256,
        in_channels: int = 3,
        num_embeddings: int = 512,
        embedding_dim: int = 64,
        hidden_channels: int = 128,
        num_downsamples: int = 2,
        num_residual_layers: int = 2,
        residual_channels: int = 32,
        output_activation: str = "identity",
        sample_range: tuple[float, float] = (-1.0, 1.0),
        commitment_cost: float = 0.25,
        use_ema: bool = True,
        ema_decay: float = 0.99,
        revival_threshold: float = 0.1,
    ):
        super().__init__()
        check_codebook_arguments(sample_size, in_channels, num_embeddings, embedding_dim, ema_decay, revival_threshold)
        check_conv_arguments(hidden_channels, num_downsamples, num_residual_layers, residual_channels)
        check_output_arguments(output_activation, sample_range)
        self._check_size(*((sample_size, sample_size) if isinstance(sample_size, int) else sample_size))

        # 1. encoders
        residual = (num_residual_layers, residual_channels)
        self.bottom_encoder = ConvEncoder(in_channels, hidden_channels, num_downsamples, *residual)
        self.top_encoder = ConvEncoder(hidden_channels, hidden_channels, 1, *residual)

        # 2. latents
        codebook = (num_embeddings, embedding_dim, commitment_cost, use_ema, ema_decay, revival_threshold)
        self.to_top_latents = nn.Conv2d(hidden_channels, embedding_dim, kernel_size=1)
        self.top_quantizer = VectorQuantizer(*codebook)
        self.top_decoder = ConvDecoder(embedding_dim, embedding_dim, hidden_channels, 1, *residual)
        self.to_bottom_latents = nn.Conv2d(hidden_channels + embedding_dim, embedding_dim, kernel_size=1)
        self.bottom_quantizer = VectorQuantizer(*codebook)

        # 3. decoder
        self.upsample_top = nn.ConvTranspose2d(embedding_dim, embedding_dim, kernel_size=4, stride=2, padding=1)
        self.decoder = ConvDecoder(2 * embedding_dim, in_channels, hidden_channels, num_downsamples, *residual)
        self.output_act = OUTPUT_ACTIVATIONS[output_activation]()

        self.apply(initialize_as_sonnet)

    @property
    def stride(self) -> int:
        """What height and width of images must be multiples of."""
        return 2 ** (self.config.num_downsamples + 1)

    def _check_size(self, height: int, width: int) -> None:
        if height % self.stride != 0 or width % self.stride != 0:
            raise ValueError(f"Height and width must be multiples of {self.stride}, but are {height} and {width}.")

    def encode(self, sample: torch.Tensor, return_dict: bool = True) -> VQVAE2EncoderOutput | tuple[Tensors]:
        r"""
        The latents of each image on both levels, before quantization.

        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`): images in the model's `sample_range`.
            return_dict (`bool`, defaults to `True`): whether to return a [`VQVAE2EncoderOutput`].

        Raises:
            ValueError: if the network cannot process images of this size or with these channels.
        """
        latents, _, _, _ = self._encode_and_quantize(sample)
        return VQVAE2EncoderOutput(latents=latents) if return_dict else (latents,)

    def _encode_and_quantize(self, sample: torch.Tensor) -> tuple[Tensors, Tensors, Tensors, torch.Tensor]:
        """Encodes and quantizes both levels, because the bottom latents depend on the top codes (algorithm 1)."""
        if sample.ndim != 4 or sample.shape[1] != self.config.in_channels:
            raise ValueError(
                f"`sample` must be of the shape (N, {self.config.in_channels}, H, W), but is of {tuple(sample.shape)}."
            )
        self._check_size(*sample.shape[2:])
        features = self.bottom_encoder(sample)
        top = self.to_top_latents(self.top_encoder(features))
        top_quantized, top_codes, top_loss = self.top_quantizer(top)
        bottom = self.to_bottom_latents(torch.cat([self.top_decoder(top_quantized), features], dim=1))
        bottom_quantized, bottom_codes, bottom_loss = self.bottom_quantizer(bottom)
        return (top, bottom), (top_quantized, bottom_quantized), (top_codes, bottom_codes), top_loss + bottom_loss

    def quantize(
        self, latents: Tensors, return_dict: bool = True
    ) -> VQVAE2QuantizerOutput | tuple[Tensors, Tensors, torch.Tensor]:
        r"""
        The nearest entries of the codebooks.

        Args:
            latents (`tuple` of two `torch.Tensor`): what [`~VQVAE2Model.encode`] returns.
            return_dict (`bool`, defaults to `True`): whether to return a [`VQVAE2QuantizerOutput`].

        Raises:
            ValueError: if the latents are not those of two levels, or their shapes do not fit.
        """
        if not isinstance(latents, (list, tuple)) or len(latents) != 2:
            raise ValueError("`latents` must be a tuple of two tensors: the top and the bottom latents.")
        top, bottom = latents
        for level, values in (("top", top), ("bottom", bottom)):
            if values.ndim != 4 or values.shape[1] != self.config.embedding_dim:
                raise ValueError(
                    f"The {level} latents must have the shape (N, {self.config.embedding_dim}, h, w), not "
                    f"{tuple(values.shape)}."
                )
        if tuple(bottom.shape[2:]) != tuple(2 * side for side in top.shape[2:]):
            raise ValueError(
                f"The bottom latents must be twice as high and wide as the top latents, but their shapes are "
                f"{tuple(bottom.shape)} and {tuple(top.shape)}."
            )
        top_quantized, top_codes, top_loss = self.top_quantizer(top)
        bottom_quantized, bottom_codes, bottom_loss = self.bottom_quantizer(bottom)
        outputs = ((top_quantized, bottom_quantized), (top_codes, bottom_codes), top_loss + bottom_loss)
        return VQVAE2QuantizerOutput(*outputs) if return_dict else outputs

    def embed_codes(self, codes: Tensors) -> Tensors:
        """The entries `(N, embedding_dim, h, w)` of codes `(N, h, w)` on both levels, for [`~VQVAE2Model.decode`]."""
        quantizers = (self.top_quantizer, self.bottom_quantizer)
        top, bottom = (
            F.embedding(numbers, quantizer.embeddings).movedim(-1, 1)
            for numbers, quantizer in zip(codes, quantizers, strict=True)
        )
        return top, bottom

    def decode(self, latents: Tensors, return_dict: bool = True) -> DecoderOutput | tuple[torch.Tensor]:
        r"""
        The image of each two maps of latents. Latents are quantized first, which does not change entries of a
        codebook.

        Args:
            latents (`tuple` of two `torch.Tensor`):
                What [`~VQVAE2Model.encode`] or [`~VQVAE2Model.embed_codes`] returns.
            return_dict (`bool`, defaults to `True`):
                Whether to return a `DecoderOutput` instead of a tuple.

        Returns:
            `DecoderOutput` or `tuple`: images `(N, in_channels, H, W)` in the model's `sample_range`.

        Raises:
            ValueError: if the latents are not those of two levels, or their shapes do not fit.
        """
        sample = self._decode_quantized(self.quantize(latents).quantized)
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def _decode_quantized(self, quantized: Tensors) -> torch.Tensor:
        top, bottom = quantized
        return self.output_act(self.decoder(torch.cat([self.upsample_top(top), bottom], dim=1)))

    def forward(
        self, sample: torch.Tensor, return_dict: bool = True
    ) -> VQVAE2Output | tuple[torch.Tensor, Tensors, Tensors, torch.Tensor]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                Images in the model's `sample_range`.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`VQVAE2Output`] instead of a tuple.

        Returns:
            [`VQVAE2Output`] or `tuple`: reconstructions, latents before quantization, their codes, and the loss.

        Raises:
            ValueError: if the network cannot process images of this size or with these channels.
        """
        latents, quantized, codes, loss = self._encode_and_quantize(sample)
        reconstruction = self._decode_quantized(quantized)
        if not return_dict:
            return (reconstruction, latents, codes, loss)
        return VQVAE2Output(sample=reconstruction, latents=latents, codes=codes, loss=loss)

    def update_codebook(self, codes: Tensors, latents: Tensors, generator: torch.Generator | None = None) -> None:
        r"""
        One step of the running means, in place (Razavi et al. 2019, eq. 2), and the revival of unused entries.

        All processes must pass the rows of the whole batch, and the same state of the generator.

        Args:
            codes (`tuple` of two `torch.Tensor`): as `forward` returned them.
            latents (`tuple` of two `torch.Tensor`): as `forward` returned them.
            generator (`torch.Generator`, *optional*): draws the latents for revived entries.

        Raises:
            ValueError: if the codebooks are trained by gradients.
        """
        if not self.config.use_ema:
            raise ValueError("The codebooks are trained by gradients (`use_ema=False`) and have no running means.")
        for quantizer, *rows in zip((self.top_quantizer, self.bottom_quantizer), codes, latents, strict=True):
            quantizer.update(*rows, generator)

    def code_usage(self, codes: Tensors) -> torch.Tensor:
        """The fraction of each codebook that these codes use, `(2,)`: from 0 to 1, for the top and bottom level."""
        return torch.stack([(frequencies > 0).float().mean() for frequencies in self._frequencies(codes)])

    def code_perplexity(self, codes: Tensors) -> torch.Tensor:
        """The perplexity of these codes on each level, `(2,)`: from 1 (a single entry) to `num_embeddings`."""
        return torch.stack([perplexity(frequencies) for frequencies in self._frequencies(codes)])

    def _frequencies(self, codes: Tensors) -> list[torch.Tensor]:
        quantizers = (self.top_quantizer, self.bottom_quantizer)
        return [quantizer.frequencies(part) for quantizer, part in zip(quantizers, codes, strict=True)]
