"""The discrete VAE of DALL-E: an autoencoder whose latents are maps of codes, each with a distribution."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.autoencoders.vq_model import VQEncoderOutput
from diffusers.utils import BaseOutput
from torch import nn

from .disk_offloading import DiskOffloadMixin
from .gan_checks import check_positive


EPSILON = 0.1  # images are squeezed into [0.1, 0.9], away from the ends of the logit-Laplace distribution


@dataclass
class DiscreteVAEQuantizerOutput(BaseOutput):
    """
    The output of [`DiscreteVAE.quantize`].

    Args:
        quantized (`torch.Tensor` of shape `(N, num_embeddings, h, w)`):
            1 for the most probable code, and 0 for the others.
        codes (`torch.Tensor` of shape `(N, h, w)`):
            The numbers of these codes, int64.
    """

    quantized: torch.Tensor
    codes: torch.Tensor | None = None


@dataclass
class DiscreteVAEOutput(BaseOutput):
    """
    The output of [`DiscreteVAE`].

    Args:
        sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
            The reconstructions, around `[0, 1]`.
        statistics (`torch.Tensor` of shape `(N, 2 * in_channels, H, W)`):
            Means of the logits of squeezed images, then the logarithms of the scales: the parameters of the
            logit-Laplace distribution (Ramesh et al. 2021, appendix A.3).
        logits (`torch.Tensor` of shape `(N, num_embeddings, h, w)`):
            The unnormalised log-probabilities of the codes.
        codes (`torch.Tensor` of shape `(N, h, w)`):
            The most probable codes.
    """

    sample: torch.Tensor
    statistics: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    codes: torch.Tensor | None = None


class DiscreteVAE(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    The discrete VAE of DALL-E, with the networks of https://github.com/openai/DALL-E.

    "Zero-Shot Text-to-Image Generation" (Ramesh et al. 2021, section 2.1 and appendix A,
    https://huggingface.co/papers/2102.12092). Each position of a map has a distribution over the codes; in training
    they are mixed by a Gumbel softmax, and otherwise the most probable code is decoded. Images are in `[0, 1]`.

    Args:
        sample_size (`int` or `tuple[int, int]`, defaults to 256):
            Height and width of the images that the network is for. It takes all that can be halved `num_downsamples`
            times.
        in_channels (`int`, defaults to 3):
            Channels of the images.
        num_embeddings (`int`, defaults to 8192):
            The number of codes.
        hidden_channels (`int`, defaults to 256):
            The features of the first level of the encoder, and of the last of the decoder; each halving doubles them.
        init_channels (`int`, defaults to 128):
            The features of a code in the decoder.
        layers_per_block (`int`, defaults to 2):
            The residual blocks of each level.
        num_downsamples (`int`, defaults to 3):
            How often the image is halved.
        sample_range (`tuple[float, float]`, defaults to `(0.0, 1.0)`):
            The range of the images; it can't be changed.

    Raises:
        ValueError: if the arguments are not possible.
    """

    _no_split_modules = ["BottleneckBlock"]

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] = 256,
        in_channels: int = 3,
        num_embeddings: int = 8192,
        hidden_channels: int = 256,
        init_channels: int = 128,
        layers_per_block: int = 2,
        num_downsamples: int = 3,
        sample_range: tuple[float, float] = (0.0, 1.0),
    ):
        super().__init__()
        check_positive(
            in_channels=in_channels,
            num_embeddings=num_embeddings,
            init_channels=init_channels,
            layers_per_block=layers_per_block,
            num_downsamples=num_downsamples,
        )
        if hidden_channels < 4 or tuple(sample_range) != (0.0, 1.0):
            raise ValueError(
                f"`hidden_channels` must be at least 4 and `sample_range` (0, 1), but they are {hidden_channels} and "
                f"{tuple(sample_range)}."
            )
        widths = [hidden_channels * 2**level for level in range(num_downsamples + 1)]
        self.encoder = DiscreteEncoder(in_channels, widths, num_embeddings, layers_per_block)
        self.decoder = DiscreteDecoder(num_embeddings, init_channels, widths[::-1], 2 * in_channels, layers_per_block)

    @property
    def stride(self) -> int:
        """Height and width of images must be multiples of this number."""
        return 2**self.config.num_downsamples

    def encode(self, sample: torch.Tensor, return_dict: bool = True) -> VQEncoderOutput | tuple[torch.Tensor]:
        r"""
        The distributions of the codes of each image.

        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`): images in `[0, 1]`.
            return_dict (`bool`, defaults to `True`): whether to return a `VQEncoderOutput` instead of a tuple.

        Returns:
            `VQEncoderOutput` or `tuple`: the logits `(N, num_embeddings, h, w)` as `latents`.

        Raises:
            ValueError: if the network cannot process images of this size or with these channels.
        """
        if sample.ndim != 4 or sample.shape[1] != self.config.in_channels:
            raise ValueError(
                f"`sample` must be of the shape (N, {self.config.in_channels}, H, W), but is of {tuple(sample.shape)}."
            )
        height, width = sample.shape[2:]
        if height % self.stride != 0 or width % self.stride != 0:
            raise ValueError(f"Height and width must be multiples of {self.stride}, but are {height} and {width}.")
        logits = self.encoder(squeeze_pixels(sample))
        return VQEncoderOutput(latents=logits) if return_dict else (logits,)

    def quantize(
        self, latents: torch.Tensor, return_dict: bool = True
    ) -> DiscreteVAEQuantizerOutput | tuple[torch.Tensor, ...]:
        r"""
        The most probable codes.

        Args:
            latents (`torch.Tensor` of shape `(N, num_embeddings, h, w)`): logits, from [`~DiscreteVAE.encode`].
            return_dict (`bool`, defaults to `True`): whether to return a [`DiscreteVAEQuantizerOutput`].
        """
        codes = latents.argmax(dim=1)
        quantized = self.embed_codes(codes).to(latents.dtype)
        return DiscreteVAEQuantizerOutput(quantized, codes) if return_dict else (quantized, codes)

    def embed_codes(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes `(N, h, w)` as `(N, num_embeddings, h, w)` with a 1 for each, for [`~DiscreteVAE.decode`]."""
        return F.one_hot(codes, self.config.num_embeddings).movedim(-1, 1).to(self.dtype)

    def decode(self, latents: torch.Tensor, return_dict: bool = True) -> DecoderOutput | tuple[torch.Tensor]:
        r"""
        The image of each map of codes.

        Args:
            latents (`torch.Tensor` of shape `(N, num_embeddings, h, w)`):
                What [`~DiscreteVAE.encode`] or [`~DiscreteVAE.embed_codes`] returns; the largest value of each
                position is the code.
            return_dict (`bool`, defaults to `True`):
                Whether to return a `DecoderOutput` instead of a tuple.

        Returns:
            `DecoderOutput` or `tuple`: images `(N, in_channels, H, W)` around `[0, 1]`.
        """
        sample = self.mean_image(self.decoder(self.quantize(latents).quantized))
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def mean_image(self, statistics: torch.Tensor) -> torch.Tensor:
        """The images `(N, in_channels, H, W)` around `[0, 1]` of what the decoder gives."""
        return (torch.sigmoid(statistics[:, : self.config.in_channels]) - EPSILON) / (1 - 2 * EPSILON)

    def forward(
        self,
        sample: torch.Tensor,
        noise: torch.Tensor | None = None,
        temperature: float | torch.Tensor = 1.0,
        return_dict: bool = True,
    ) -> DiscreteVAEOutput | tuple[torch.Tensor, ...]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                Images in `[0, 1]`.
            noise (`torch.Tensor` of shape `(N, num_embeddings, h, w)`, *optional*):
                Gumbel noise, to mix codes by a Gumbel softmax instead of decoding the most probable ones.
            temperature (`float` or `torch.Tensor`, defaults to 1.0):
                Of the Gumbel softmax: the lower, the nearer to one code.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`DiscreteVAEOutput`] instead of a tuple.

        Returns:
            [`DiscreteVAEOutput`] or `tuple`: reconstructions, their distributions, and the logits and codes.
        """
        (logits,) = self.encode(sample, return_dict=False)
        quantized, codes = self.quantize(logits, return_dict=False)
        if noise is not None:
            quantized = ((logits + noise) / temperature).softmax(dim=1)
        statistics = self.decoder(quantized)
        sample = self.mean_image(statistics)
        if not return_dict:
            return (sample, statistics, logits, codes)
        return DiscreteVAEOutput(sample=sample, statistics=statistics, logits=logits, codes=codes)


class DiscreteEncoder(nn.Module):
    """Squeezed images to the logits of codes: levels of residual blocks, with the largest of 2x2 values between."""

    def __init__(self, in_channels: int, widths: list[int], num_embeddings: int, layers_per_block: int):
        super().__init__()
        gain = 1 / (len(widths) * layers_per_block) ** 2
        self.conv_in = new_conv(in_channels, widths[0], 7)
        self.levels = nn.ModuleList()
        before = widths[0]
        for width in widths:
            blocks = [
                BottleneckBlock(before if i == 0 else width, width, (3, 3, 3, 1), gain)
                for i in range(layers_per_block)
            ]
            self.levels.append(nn.Sequential(*blocks))
            before = width
        self.conv_out = new_conv(before, num_embeddings, 1)

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        hidden_states = self.conv_in(sample)
        for level, blocks in enumerate(self.levels):
            if level > 0:
                hidden_states = F.max_pool2d(hidden_states, kernel_size=2)
            hidden_states = blocks(hidden_states)
        return self.conv_out(F.relu(hidden_states))


class DiscreteDecoder(nn.Module):
    """Weights of codes to the statistics of pixels: levels of residual blocks, with doublings between."""

    def __init__(
        self, num_embeddings: int, init_channels: int, widths: list[int], out_channels: int, layers_per_block: int
    ):
        super().__init__()
        gain = 1 / (len(widths) * layers_per_block) ** 2
        self.conv_in = new_conv(num_embeddings, init_channels, 1)
        self.levels = nn.ModuleList()
        before = init_channels
        for width in widths:
            blocks = [
                BottleneckBlock(before if i == 0 else width, width, (1, 3, 3, 3), gain)
                for i in range(layers_per_block)
            ]
            self.levels.append(nn.Sequential(*blocks))
            before = width
        self.conv_out = new_conv(before, out_channels, 1)

    def forward(self, quantized: torch.Tensor) -> torch.Tensor:
        hidden_states = self.conv_in(quantized)
        for level, blocks in enumerate(self.levels):
            if level > 0:
                hidden_states = F.interpolate(hidden_states, scale_factor=2.0, mode="nearest")
            hidden_states = blocks(hidden_states)
        return self.conv_out(F.relu(hidden_states))


class BottleneckBlock(nn.Module):
    """A residual block of four convolutions with a quarter of the features, whose sum is scaled by a small gain."""

    def __init__(self, in_channels: int, out_channels: int, kernel_sizes: tuple[int, ...], gain: float):
        super().__init__()
        self.gain = gain
        self.shortcut = nn.Identity() if in_channels == out_channels else new_conv(in_channels, out_channels, 1)
        width = out_channels // 4
        ends = ((in_channels, width), (width, width), (width, width), (width, out_channels))
        self.convs = nn.ModuleList(
            new_conv(before, after, kernel_size)
            for (before, after), kernel_size in zip(ends, kernel_sizes, strict=True)
        )

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        residual = hidden_states
        for conv in self.convs:
            residual = conv(F.relu(residual))
        return self.shortcut(hidden_states) + self.gain * residual


def new_conv(in_channels: int, out_channels: int, kernel_size: int) -> nn.Conv2d:
    """A convolution with the original's initial weights, normal with the variance 1 / inputs."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=(kernel_size - 1) // 2)
    nn.init.normal_(conv.weight, std=(in_channels * kernel_size**2) ** -0.5)
    nn.init.zeros_(conv.bias)
    return conv


def squeeze_pixels(images: torch.Tensor) -> torch.Tensor:
    """Images in `[0, 1]` to `[0.1, 0.9]` (Ramesh et al. 2021, appendix A.3)."""
    return (1 - 2 * EPSILON) * images + EPSILON
