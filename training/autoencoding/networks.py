"""The autoencoders that can be trained, and one way to call all of them."""

import math
from dataclasses import dataclass, field

import torch
from diffusers import AutoencoderKL, VQModel
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from diffusers_ext.losses.discriminator_outputs import has_batch_norm
from diffusers_ext.models import (
    AutoencoderBurgess,
    AutoencoderConv,
    AutoencoderMLP,
    DiscreteVAE,
    VQVAE2Model,
    VQVAEModel,
)
from diffusers_ext.training.loop.network_options import build_network


CLASSES = {
    "mlp": AutoencoderMLP,
    "conv": AutoencoderConv,
    "burgess": AutoencoderBurgess,
    "vqvae": VQVAEModel,
    "vqvae2": VQVAE2Model,
    "dvae": DiscreteVAE,
    "kl": AutoencoderKL,
    "vq": VQModel,
}
# A vector of latents per image, which may be variational.
VECTOR_ARCHITECTURES = ("mlp", "conv", "burgess")
QUANTIZED_ARCHITECTURES = ("vqvae", "vqvae2", "vq")
# The classes of diffusers for latent diffusion.
LATENT_DIFFUSION_ARCHITECTURES = ("kl", "vq")

# The autoencoders of Rombach et al. 2022 (https://github.com/CompVis/latent-diffusion, kl-f4 ... vq-f8), by the factor
# by which they divide a side.
PUBLISHED_ARGUMENTS = {
    ("kl", 4): {"block_out_channels": (128, 256, 512), "latent_channels": 3},
    ("kl", 8): {"block_out_channels": (128, 256, 512, 512), "latent_channels": 4},
    ("vq", 4): {"block_out_channels": (128, 256, 512), "latent_channels": 3, "num_vq_embeddings": 8192},
    ("vq", 8): {"block_out_channels": (128, 256, 256, 512), "latent_channels": 4, "num_vq_embeddings": 16384},
}
WITH_ATTENTION = ("vq", 8)  # on the lowest level, beside that between encoder and decoder, which all have


def build_autoencoder(
    architecture: str,
    arguments: dict,
    *,
    size: tuple[int, int],
    channels: int,
    variational: bool,
    batch_size: int,
    downsampling_factor: int | None = None,
) -> torch.nn.Module:
    """A new autoencoder.

    Args:
        architecture (`str`): a key of `CLASSES`.
        arguments (`dict`): arguments of its class that replace the usual ones for images of this size.
        size, channels: of the images; size is height and width.
        variational (`bool`): whether vectors of latents have a distribution.
        batch_size (`int`): images per process and step.
        downsampling_factor (`int`, *optional*): kl, vq: by which a side is divided, 4 or 8; the usual arguments are
            then those of latent diffusion.

    Raises:
        ValueError: if the class has no such arguments, or they do not fit the images.
    """
    if architecture in LATENT_DIFFUSION_ARCHITECTURES:
        return _build_for_latent_diffusion(architecture, arguments, size, channels, downsampling_factor)
    decided = {"in_channels": channels, "sample_size": size}
    if architecture in VECTOR_ARCHITECTURES:
        decided["variational"] = variational
    usual = _usual_arguments(architecture, size)
    network = _build(architecture, arguments, usual, decided, size)
    if has_batch_norm(network) and batch_size * getattr(network, "smallest_map", 2) == 1:
        raise ValueError(
            "The autoencoder has batch normalization where images are one pixel, which needs --train_batch_size 2 or "
            "more."
        )
    return network


def _build(architecture: str, arguments: dict, usual: dict, decided: dict, size: tuple[int, int]) -> torch.nn.Module:
    def trial(network: torch.nn.Module) -> None:
        network(torch.zeros(2, decided["in_channels"], *size))

    network_class = CLASSES[architecture]
    if network_class in (VQVAEModel, VQVAE2Model):  # they check sizes themselves, and count codes, which needs values
        trial = None
    return build_network(network_class, "--autoencoder", arguments, usual=usual, decided=decided, trial=trial)


def _build_for_latent_diffusion(
    architecture: str, arguments: dict, size: tuple[int, int], channels: int, factor: int | None
) -> AutoencoderKL | VQModel:
    if factor is None:
        usual = _usual_arguments(architecture, size)
    else:
        usual = {**PUBLISHED_ARGUMENTS[architecture, factor], "layers_per_block": 2}
    widths = arguments.get("block_out_channels", usual["block_out_channels"])
    if isinstance(widths, (list, tuple)) and widths:
        _check_factors(len(widths), size, factor)
        usual |= _block_types(len(widths), (architecture, factor) == WITH_ATTENTION)
        if all(isinstance(width, int) and width > 0 for width in widths):
            usual["norm_num_groups"] = math.gcd(32, *widths)
    decided = {"in_channels": channels, "out_channels": channels, "sample_size": min(size)}
    network = _build(architecture, arguments, usual, decided, size)
    if architecture == "vq":
        # By default diffusers, like taming-transformers, applies beta to the codebook's loss, and not to the
        # commitment.
        network.quantize.legacy = False
    return network


def _check_factors(levels: int, size: tuple[int, int], factor: int | None) -> None:
    divisor = 2 ** (levels - 1)
    if factor not in (None, divisor):
        raise ValueError(
            f"--downsampling_factor {factor} needs {factor.bit_length()} block_out_channels in --autoencoder, "
            f"not {levels}."
        )
    if any(side % divisor for side in size):
        raise ValueError(f"--resolution must be a multiple of {divisor} for this network, not {size}.")


def _block_types(levels: int, with_attention: bool) -> dict[str, tuple[str, ...]]:
    attention = "Attn" if with_attention else ""
    return {
        "down_block_types": ("DownEncoderBlock2D",) * (levels - 1) + (f"{attention}DownEncoderBlock2D",),
        "up_block_types": (f"{attention}UpDecoderBlock2D",) + ("UpDecoderBlock2D",) * (levels - 1),
    }


def _usual_arguments(architecture: str, size: tuple[int, int]) -> dict:
    levels = max(1, min(size).bit_length() - 2)
    if architecture == "conv":
        return {"block_out_channels": (32, 64, 128, 256, 512)[:levels]}
    if architecture == "dvae":
        return {
            "num_embeddings": 128,
            "hidden_channels": 32,
            "init_channels": 32,
            "layers_per_block": 1,
            "num_downsamples": max(1, min(levels - 2, 3)),
        }
    if architecture in LATENT_DIFFUSION_ARCHITECTURES:
        levels = max(1, min(levels - 1, 4))
        while levels > 1 and any(side % 2 ** (levels - 1) for side in size):
            levels -= 1
        return {"block_out_channels": (64, 128, 256, 256)[:levels], "layers_per_block": 1}
    return {}


@dataclass
class Pass:
    """The results of one pass through an autoencoder; `None` or an empty list where the network has no such result.

    Attributes:
        sample (`torch.Tensor` of shape (N, C, H, W)): the reconstruction, in the network's range of values.
        latents (`torch.Tensor` of shape (N, D), *optional*): the vectors that were decoded.
        mean, logvar (`torch.Tensor` of shape (N, ...), *optional*): of the posterior.
        codes (`list[torch.Tensor]`): the indices of the codes, for each codebook.
        continuous (`list[torch.Tensor]`): the latents that the codes replace, for each codebook whose entries are
            running means of such latents.
        quantization_loss (`torch.Tensor` of shape (N,) or (), *optional*): commitment, and the codebook's own loss.
        logits (`torch.Tensor` of shape (N, K, h, w), *optional*): of the distributions of codes.
    """

    sample: torch.Tensor
    latents: torch.Tensor | None = None
    mean: torch.Tensor | None = None
    logvar: torch.Tensor | None = None
    codes: list[torch.Tensor] = field(default_factory=list)
    continuous: list[torch.Tensor] = field(default_factory=list)
    quantization_loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None


class Runner:
    """Calls an autoencoder of any class, and returns everything that is known from this one pass.

    Args:
        network (`torch.nn.Module`): an instance of one of `CLASSES`.
    """

    def __init__(self, network: torch.nn.Module):
        self.network = network
        # The classes of diffusers return only the image, so hooks catch what leads to it.
        if isinstance(network, AutoencoderKL):
            (network.quant_conv or network.encoder).register_forward_hook(self._keep)
        elif isinstance(network, VQModel):
            network.quantize.register_forward_hook(self._keep)
        self._kept = None

    def _keep(self, module, args, output):
        self._kept = output

    def _take(self):
        kept, self._kept = self._kept, None
        return kept

    @property
    def sample_range(self) -> tuple[float, float]:
        """The network's values for black and for white."""
        return tuple(self.network.config.get("sample_range", (-1.0, 1.0)))

    @property
    def num_codes(self) -> int:
        """How many entries a codebook has."""
        config = self.network.config
        return config.num_vq_embeddings if isinstance(self.network, VQModel) else config.num_embeddings

    def to_network(self, images: torch.Tensor) -> torch.Tensor:
        """Images in [-1, 1], converted to the network's range."""
        low, high = self.sample_range
        return low + (high - low) * (images / 2 + 0.5)

    def from_network(self, images: torch.Tensor) -> torch.Tensor:
        """The reverse of `to_network`, in float32 and limited to [-1, 1]."""
        low, high = self.sample_range
        return ((images.float() - low) / (high - low) * 2 - 1).clamp(-1, 1)

    def __call__(self, forward, images: torch.Tensor, generators: list[torch.Generator] | None = None) -> Pass:
        """One pass.

        Args:
            forward: the network, or a wrapper around it.
            images (`torch.Tensor` of shape (N, C, H, W)): in the network's range.
            generators (`list[torch.Generator]`, *optional*): one for each image, to draw latents from the posterior.
                By default, the mean of the posterior is decoded.
        """
        posterior = {"sample_posterior": generators is not None, "generator": generators}
        if isinstance(self.network, AutoencoderKL):
            sample = forward(images, **posterior).sample
            distribution = DiagonalGaussianDistribution(self._take())
            return Pass(sample, mean=distribution.mean, logvar=distribution.logvar)
        if isinstance(self.network, VQModel):
            output = forward(images)
            _, loss, (_, _, codes) = self._take()
            return Pass(output.sample, codes=[codes], quantization_loss=loss)
        if isinstance(self.network, (VQVAEModel, VQVAE2Model)):
            output = forward(images)
            return Pass(
                output.sample,
                codes=_as_list(output.codes),
                continuous=_as_list(output.latents) if self.network.config.use_ema else [],
                quantization_loss=output.loss,
            )
        if isinstance(self.network, DiscreteVAE):
            output = forward(images)
            return Pass(output.sample, codes=[output.codes], logits=output.logits)
        output = forward(images, **posterior)
        return Pass(output.sample, latents=output.latents, mean=output.mean, logvar=output.logvar)


def _as_list(levels) -> list[torch.Tensor]:
    return [levels] if torch.is_tensor(levels) else list(levels)
