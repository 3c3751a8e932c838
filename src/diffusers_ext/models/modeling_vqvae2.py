"""The VQ-VAE with two levels of latents: a small map of what is global, and a larger one of details."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.utils import BaseOutput
from torch import nn


OUTPUT_ACTIVATIONS = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "identity": nn.Identity}
# What an output activation can reach.
OUTPUT_RANGES = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}
SMOOTHING = 1e-5  # of the counts, as in Sonnet: a code that nothing uses has a count that can be divided by


Tensors = tuple[torch.Tensor, torch.Tensor]  # of the top level, and of the bottom one


@dataclass
class VQVAE2EncoderOutput(BaseOutput):
    """
    The output of [`VQVAE2Model.encode`].

    Args:
        latents (`tuple` of two `torch.Tensor`):
            Those of the top level, `(N, embedding_dim, h, w)`, and of the bottom one, `(N, embedding_dim, 2h, 2w)`,
            before quantization.
    """

    latents: Tensors


@dataclass
class VQVAE2QuantizerOutput(BaseOutput):
    """
    The output of [`VQVAE2Model.quantize`].

    Args:
        quantized (`tuple` of two `torch.Tensor`):
            The nearest codes, of the shapes of the latents and with their gradients.
        codes (`tuple` of two `torch.Tensor`):
            Their numbers, `(N, h, w)` and `(N, 2h, 2w)`, int64.
        loss (`torch.Tensor` of shape `(N,)`):
            The sum over both levels of the mean squared distance between latents and codes: that which draws the
            latents to the codes, times `commitment_cost`, and without EMA that which draws the codes to the latents.
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
            The numbers of their codes.
        loss (`torch.Tensor` of shape `(N,)`):
            The loss of the quantization, to be added to that of the reconstruction.
    """

    sample: torch.Tensor
    latents: Tensors | None = None
    codes: Tensors | None = None
    loss: torch.Tensor | None = None


# Copied from diffusers_ext.models.modeling_vqvae.VectorQuantizer
class VectorQuantizer(nn.Module):
    r"""
    A codebook: each latent vector becomes its nearest entry.

    Entries follow the latents by gradients ("Neural Discrete Representation Learning", van den Oord et al. 2017,
    eq. 3, https://huggingface.co/papers/1711.00937) or, with `use_ema`, as running means ("Generating Diverse
    High-Fidelity Images with VQ-VAE-2", Razavi et al. 2019, appendix A, eq. 2,
    https://huggingface.co/papers/1906.00446). An entry that falls out of use is revived at the place of a random
    latent, as in Jukebox (Dhariwal et al. 2020, section 3.1, https://huggingface.co/papers/2005.00341).
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        commitment_cost: float,
        use_ema: bool,
        ema_decay: float,
        revival_threshold: float,
    ):
        super().__init__()
        self.commitment_cost = commitment_cost
        self.use_ema = use_ema
        self.ema_decay = ema_decay
        self.revival_threshold = revival_threshold
        embeddings = torch.empty(num_embeddings, embedding_dim).uniform_(-1 / num_embeddings, 1 / num_embeddings)
        if use_ema:
            self.register_buffer("embeddings", embeddings)
            # N and m of eq. 2: each entry begins as the mean of one latent
            self.register_buffer("cluster_sizes", torch.ones(num_embeddings))
            self.register_buffer("cluster_sums", embeddings.clone())
        else:
            self.embeddings = nn.Parameter(embeddings)

    def forward(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`(N, C, ...)` in; the quantized `(N, C, ...)`, their codes `(N, ...)` and the loss `(N,)` out."""
        latents = latents.movedim(1, -1)
        codes = self.nearest(latents.detach())
        quantized = F.embedding(codes, self.embeddings)

        loss = self.commitment_cost * _distance(latents, quantized.detach())
        if not self.use_ema:
            loss = loss + _distance(latents.detach(), quantized)
        quantized = latents + (quantized - latents).detach()  # straight through: as if nothing had been quantized
        return quantized.movedim(-1, 1), codes, loss

    def nearest(self, latents: torch.Tensor) -> torch.Tensor:
        """The numbers of the nearest entries; in float32, for entries lie close together."""
        with torch.autocast(latents.device.type, enabled=False):
            entries = self.embeddings.detach().float()
            # |z - e|^2 without |z|^2, which is the same for all e
            distances = entries.square().sum(dim=1) - 2 * latents.float() @ entries.T
        return distances.argmin(dim=-1)

    @torch.no_grad()
    def update(self, codes: torch.Tensor, latents: torch.Tensor, generator: torch.Generator | None) -> None:
        """Moves the entries to the running means of their latents `(N, C, ...)`, and revives those out of use."""
        latents = latents.movedim(1, -1).flatten(0, -2).to(self.cluster_sums.dtype)
        num_embeddings = len(self.embeddings)
        # a product, for a sum by index would not be reproducible on a GPU
        one_hot = (codes.flatten()[:, None] == torch.arange(num_embeddings, device=codes.device)).to(latents.dtype)
        sizes = self.cluster_sizes * self.ema_decay + one_hot.sum(dim=0) * (1 - self.ema_decay)
        sums = self.cluster_sums * self.ema_decay + one_hot.T @ latents * (1 - self.ema_decay)
        total = sizes.sum()
        sizes = (sizes + SMOOTHING) / (total + num_embeddings * SMOOTHING) * total

        if self.revival_threshold > 0:
            mean_size = total / num_embeddings
            device = latents.device if generator is None else generator.device
            rows = torch.randint(len(latents), (num_embeddings,), generator=generator, device=device)
            is_dead = sizes < self.revival_threshold * mean_size
            sizes = torch.where(is_dead, mean_size, sizes)
            sums = torch.where(is_dead[:, None], latents[rows.to(latents.device)] * mean_size, sums)

        self.cluster_sizes.copy_(sizes)
        self.cluster_sums.copy_(sums)
        self.embeddings.copy_(sums / sizes[:, None])

    def frequencies(self, codes: torch.Tensor) -> torch.Tensor:
        """How often each entry is used, `(num_embeddings,)`, adding up to 1."""
        counts = torch.bincount(codes.flatten(), minlength=len(self.embeddings))
        return counts / codes.numel()


def _distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The mean squared difference of each sample, `(N,)`, in float32."""
    return (first - second).float().square().flatten(1).mean(dim=1)


def perplexity(frequencies: torch.Tensor) -> torch.Tensor:
    """How many entries, equally used, have the same entropy."""
    return torch.special.entr(frequencies).sum().exp()


# Copied from diffusers_ext.models.modeling_vqvae.ResidualBlock
class ResidualBlock(nn.Module):
    """ReLU, 3x3 convolution, ReLU, 1x1 convolution, and the input is added (van den Oord et al. 2017, section 4.1)."""

    def __init__(self, channels: int, residual_channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, residual_channels, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(residual_channels, channels, kernel_size=1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        residual = self.conv1(F.relu(hidden_states))
        return hidden_states + self.conv2(F.relu(residual))


# Copied from diffusers_ext.models.modeling_vqvae.ConvEncoder
class ConvEncoder(nn.Module):
    """Convolutions that halve the image `num_downsamples` times, and residual blocks."""

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        num_downsamples: int,
        num_residual_layers: int,
        residual_channels: int,
    ):
        super().__init__()
        widths = [in_channels, hidden_channels // 2] + [hidden_channels] * (num_downsamples - 1)
        self.down_convs = nn.ModuleList(
            nn.Conv2d(width_in, width_out, kernel_size=4, stride=2, padding=1)
            for width_in, width_out in zip(widths[:-1], widths[1:], strict=True)
        )
        self.conv_out = nn.Conv2d(widths[-1], hidden_channels, kernel_size=3, padding=1)
        self.residual_blocks = nn.ModuleList(
            ResidualBlock(hidden_channels, residual_channels) for _ in range(num_residual_layers)
        )
        self.gradient_checkpointing = False

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        for conv in self.down_convs:
            hidden_states = F.relu(conv(hidden_states))
        hidden_states = self.conv_out(hidden_states)
        for block in self.residual_blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                hidden_states = self._gradient_checkpointing_func(block, hidden_states)
            else:
                hidden_states = block(hidden_states)
        return F.relu(hidden_states)


# Copied from diffusers_ext.models.modeling_vqvae.ConvDecoder
class ConvDecoder(nn.Module):
    """Residual blocks, and transposed convolutions that double the image `num_upsamples` times."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int,
        num_upsamples: int,
        num_residual_layers: int,
        residual_channels: int,
    ):
        super().__init__()
        self.conv_in = nn.Conv2d(in_channels, hidden_channels, kernel_size=3, padding=1)
        self.residual_blocks = nn.ModuleList(
            ResidualBlock(hidden_channels, residual_channels) for _ in range(num_residual_layers)
        )
        widths = [hidden_channels] * max(1, num_upsamples - 1) + [hidden_channels // 2] * (num_upsamples > 1)
        self.up_convs = nn.ModuleList(
            nn.ConvTranspose2d(width_in, width_out, kernel_size=4, stride=2, padding=1)
            for width_in, width_out in zip(widths, widths[1:] + [out_channels], strict=True)
        )
        self.gradient_checkpointing = False

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.conv_in(hidden_states)
        for block in self.residual_blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                hidden_states = self._gradient_checkpointing_func(block, hidden_states)
            else:
                hidden_states = block(hidden_states)
        hidden_states = F.relu(hidden_states)
        for conv in self.up_convs[:-1]:
            hidden_states = F.relu(conv(hidden_states))
        return self.up_convs[-1](hidden_states)


class VQVAE2Model(ModelMixin, ConfigMixin):
    r"""
    The VQ-VAE of two levels: "Generating Diverse High-Fidelity Images with VQ-VAE-2" (Razavi et al. 2019, section 3.1
    and algorithm 1, https://huggingface.co/papers/1906.00446).

    The bottom encoder halves the image `num_downsamples` times, the top one its features once more. The bottom latents
    see the features and the decoded top codes, and the image is decoded from the codes of both levels.

    The trainer calls [`~VQVAE2Model.update_codebook`] with the latents of the whole batch after each step.

    Args:
        sample_size (`int` or `tuple[int, int]`, defaults to 256):
            Height and width of the images. All work that can be halved `num_downsamples + 1` times.
        in_channels (`int`, defaults to 3):
            Channels of the images.
        num_embeddings (`int`, defaults to 512):
            Entries of each of the two codebooks.
        embedding_dim (`int`, defaults to 64):
            The length of an entry.
        hidden_channels (`int`, defaults to 128):
            The channels of the network, half as many at the full size.
        num_downsamples (`int`, defaults to 2):
            How often the bottom encoder halves the image.
        num_residual_layers (`int`, defaults to 2):
            Residual blocks of each encoder and decoder.
        residual_channels (`int`, defaults to 32):
            Channels inside of a residual block.
        output_activation (`str`, defaults to `"identity"`):
            What follows the last layer: `"sigmoid"`, `"tanh"` or `"identity"`.
        sample_range (`tuple[float, float]`, defaults to `(-1.0, 1.0)`):
            The range of the images inside of this network: `(0.0, 1.0)` with `"sigmoid"`, and `(-1.0, 1.0)` with
            `"tanh"`.
        commitment_cost (`float`, defaults to 0.25):
            The weight beta of the loss that draws the latents to their entries.
        use_ema (`bool`, defaults to `True`):
            Whether the entries are running means of their latents, or else are trained by gradients.
        ema_decay (`float`, defaults to 0.99):
            The decay gamma of the running means.
        revival_threshold (`float`, defaults to 0.1):
            With `use_ema`, an entry used less often than this part of an average one is put where a random latent is;
            0 for never.

    Raises:
        ValueError: if the arguments do not fit one another.
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
        height, width = (sample_size, sample_size) if isinstance(sample_size, int) else sample_size
        if min(height, width, in_channels, num_embeddings, embedding_dim) < 1:
            raise ValueError(
                f"`sample_size`, `in_channels`, `num_embeddings` and `embedding_dim` must be positive, but are "
                f"{sample_size}, {in_channels}, {num_embeddings} and {embedding_dim}."
            )
        if min(hidden_channels - 1, num_downsamples, num_residual_layers + 1, residual_channels) < 1:
            raise ValueError(
                "`hidden_channels` must be at least 2, `num_downsamples` and `residual_channels` at least 1 and "
                f"`num_residual_layers` at least 0, but are {hidden_channels}, {num_downsamples}, {residual_channels} "
                f"and {num_residual_layers}."
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
        if not 0 <= ema_decay < 1 or not 0 <= revival_threshold < 1:
            raise ValueError(
                f"`ema_decay` and `revival_threshold` must be in [0, 1), but are {ema_decay} and {revival_threshold}."
            )
        self._check_size(height, width)

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

        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                # the standard deviation 1 / sqrt(fan_in) of Sonnet; with less, biases would outweigh the image
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                nn.init.zeros_(module.bias)

    def _check_size(self, height: int, width: int) -> None:
        factor = 2 ** (self.config.num_downsamples + 1)
        if height % factor != 0 or width % factor != 0:
            raise ValueError(f"Height and width must be multiples of {factor}, but are {height} and {width}.")

    def encode(self, sample: torch.Tensor, return_dict: bool = True) -> VQVAE2EncoderOutput | tuple[Tensors]:
        r"""
        The latents of each image on both levels, before quantization.

        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`): images in the model's `sample_range`.
            return_dict (`bool`, defaults to `True`): whether to return a [`VQVAE2EncoderOutput`].

        Raises:
            ValueError: if the images are of a size or have channels that the network does not take.
        """
        latents, _, _, _ = self._encode_and_quantize(sample)
        return VQVAE2EncoderOutput(latents=latents) if return_dict else (latents,)

    def _encode_and_quantize(self, sample: torch.Tensor) -> tuple[Tensors, Tensors, Tensors, torch.Tensor]:
        """The bottom latents need the top codes, so that both come together (algorithm 1)."""
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
            ValueError: if the latents are not those of two levels.
        """
        if not isinstance(latents, (list, tuple)) or len(latents) != 2:
            raise ValueError("`latents` must be those of two levels: a tuple of the top and the bottom ones.")
        top, bottom = latents
        for level, values in (("top", top), ("bottom", bottom)):
            if values.ndim != 4 or values.shape[1] != self.config.embedding_dim:
                raise ValueError(
                    f"The {level} latents must be of the shape (N, {self.config.embedding_dim}, h, w), but are of "
                    f"{tuple(values.shape)}."
                )
        if tuple(bottom.shape[2:]) != tuple(2 * side for side in top.shape[2:]):
            raise ValueError(
                f"The bottom latents must be twice as high and wide as the top ones, but are of {tuple(bottom.shape)} "
                f"and those of {tuple(top.shape)}."
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
        The image of each two maps of latents, which are quantized first: entries of a codebook stay as they are.

        Args:
            latents (`tuple` of two `torch.Tensor`):
                What [`~VQVAE2Model.encode`] or [`~VQVAE2Model.embed_codes`] returns.
            return_dict (`bool`, defaults to `True`):
                Whether to return a `DecoderOutput` instead of a tuple.

        Returns:
            `DecoderOutput` or `tuple`: images `(N, in_channels, H, W)` in the model's `sample_range`.

        Raises:
            ValueError: if the latents are not those of two levels.
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
            ValueError: if the images are of a size or have channels that the network does not take.
        """
        latents, quantized, codes, loss = self._encode_and_quantize(sample)
        reconstruction = self._decode_quantized(quantized)
        if not return_dict:
            return (reconstruction, latents, codes, loss)
        return VQVAE2Output(sample=reconstruction, latents=latents, codes=codes, loss=loss)

    def update_codebook(self, codes: Tensors, latents: Tensors, generator: torch.Generator | None = None) -> None:
        r"""
        One step of the running means, in place (Razavi et al. 2019, eq. 2), and the revival of entries out of use.

        It must get the same rows, those of the whole batch, and the same state of the generator on all processes.

        Args:
            codes (`tuple` of two `torch.Tensor`): as `forward` returned them.
            latents (`tuple` of two `torch.Tensor`): as `forward` returned them.
            generator (`torch.Generator`, *optional*): draws the latents for the revived entries.

        Raises:
            ValueError: if the codebooks are trained by gradients.
        """
        if not self.config.use_ema:
            raise ValueError("The codebooks are trained by gradients (`use_ema=False`) and have no running means.")
        for quantizer, *rows in zip((self.top_quantizer, self.bottom_quantizer), codes, latents, strict=True):
            quantizer.update(*rows, generator)

    def code_usage(self, codes: Tensors) -> torch.Tensor:
        """Which part of each codebook these codes use, `(2,)`: from 0 to 1, for the top and the bottom one."""
        return torch.stack([(frequencies > 0).float().mean() for frequencies in self._frequencies(codes)])

    def code_perplexity(self, codes: Tensors) -> torch.Tensor:
        """The perplexity of these codes on each level, `(2,)`: from 1, one entry used, to `num_embeddings`."""
        return torch.stack([perplexity(frequencies) for frequencies in self._frequencies(codes)])

    def _frequencies(self, codes: Tensors) -> list[torch.Tensor]:
        quantizers = (self.top_quantizer, self.bottom_quantizer)
        return [quantizer.frequencies(part) for quantizer, part in zip(quantizers, codes, strict=True)]
