"""The space in which a pipeline makes images: pixels, or the latents of an autoencoder."""

import torch
from diffusers import ModelMixin
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from .networks import get_sample_size, get_size_multiple


class PixelSpace:
    """
    The pixels themselves, in `[-1, 1]`.

    Args:
        image_channels (`int`): of the images.

    Attributes:
        channels, image_channels (`int`): C of what the denoiser makes, and of the images.
        pixels_per_latent (`int`): how many pixels a position of the denoiser has along each side.
    """

    pixels_per_latent = 1

    def __init__(self, image_channels: int):
        self.channels = self.image_channels = image_channels

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """What the denoiser sees of images."""
        return images

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The images of what the denoiser makes."""
        return latents


class LatentSpace:
    """
    The latents of an autoencoder, scaled to about unit variance (Rombach et al. 2022, appendix G,
    https://huggingface.co/papers/2112.10752). Latents of a `VQModel` are those before the quantization.

    Args:
        vae ([`ModelMixin`]): an autoencoder of diffusers ([`AutoencoderKL`], [`VQModel`], [`AutoencoderTiny`],
            [`AutoencoderDC`]), or one with the same `encode` and `decode` and maps of latents, such as
            [`VQVAEModel`]. Its configuration has `scaling_factor` and perhaps `shift_factor`, or `latents_mean` and
            `latents_std`, which have a number per channel, and `sample_range` if images are in `[0, 1]`.

    Attributes:
        channels, image_channels (`int`): of the latents and of the images.
        pixels_per_latent (`int`): how many pixels a latent stands for along each side.

    Raises:
        ValueError: if the model is no such autoencoder.
    """

    def __init__(self, vae: ModelMixin):
        config = vae.config
        channels = next((config[key] for key in LATENT_CHANNELS if config.get(key) is not None), None)
        levels = next((config[key] for key in LEVELS if config.get(key) is not None), None)
        factor = getattr(vae, "stride", None) or (levels and 2 ** (len(levels) - 1))
        if channels is None or factor is None or not (hasattr(vae, "encode") and hasattr(vae, "decode")):
            raise ValueError(
                "`vae` must encode images to maps of latents, as an AutoencoderKL, a VQModel, an AutoencoderTiny or "
                f"an AutoencoderDC does, but its class is {type(vae).__name__}."
            )
        self.vae, self.channels = vae, channels
        self.image_channels = config.get("out_channels", config.in_channels)
        self.pixels_per_latent = factor
        self._is_unit_range = tuple(config.get("sample_range") or (-1, 1)) == (0, 1)

    def encode_moments(self, images: torch.Tensor) -> torch.Tensor:
        """
        The distribution of the latents of images, before they are scaled.

        Args:
            images (`torch.Tensor` of shape `(N, C, H, W)`): in `[-1, 1]`.

        Returns:
            `torch.Tensor`: float32, the means and log variances `(N, 2C, h, w)`, or the latents `(N, C, h, w)` of an
            autoencoder without a posterior.
        """
        images = images / 2 + 0.5 if self._is_unit_range else images
        latents = self.vae.encode(images.to(self.vae.dtype), return_dict=False)[0]
        return (latents.parameters if isinstance(latents, DiagonalGaussianDistribution) else latents).float()

    def sample(self, moments: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Scaled latents `(N, C, h, w)` of [`~LatentSpace.encode_moments`], for normal `noise` of the same shape."""
        if moments.shape[1] == self.channels:
            return self.scale(moments)
        posterior = DiagonalGaussianDistribution(moments)
        return self.scale(posterior.mean + posterior.std * noise)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """The most probable scaled latents `(N, C, h, w)` of images `(N, C, H, W)` in `[-1, 1]`: float32."""
        return self.scale(self.encode_moments(images)[:, : self.channels])

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The images `(N, C, H, W)` around `[-1, 1]` of scaled latents `(N, C, h, w)`: float32."""
        images = self.vae.decode(self.unscale(latents.float()).to(self.vae.dtype), return_dict=False)[0].float()
        return images * 2 - 1 if self._is_unit_range else images

    def scale(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents of the autoencoder as the denoiser sees them."""
        shift, factor, std = self._scaling(latents)
        return (latents - shift) * factor / std

    def unscale(self, latents: torch.Tensor) -> torch.Tensor:
        """What the denoiser makes, as the autoencoder has it."""
        shift, factor, std = self._scaling(latents)
        return latents * std / factor + shift

    def _scaling(self, latents: torch.Tensor) -> tuple[float | torch.Tensor, float, float | torch.Tensor]:
        config = self.vae.config
        shift, factor, std = config.get("shift_factor") or 0.0, config.get("scaling_factor") or 1.0, 1.0
        if config.get("latents_mean") is not None and config.get("latents_std") is not None:
            # As diffusers' Stable Diffusion XL reads them (Playground).
            shift, std = (latents.new_tensor(config[key])[:, None, None] for key in ("latents_mean", "latents_std"))
        return shift, factor, std


class LatentVectors:
    """
    The latent vectors of an autoencoder, as it has them.

    Args:
        vae ([`ModelMixin`]): an autoencoder with `latent_dim` in its configuration, such as [`AutoencoderMLP`].
    """

    def __init__(self, vae: ModelMixin):
        self.vae = vae
        self._low, self._high = vae.config.get("sample_range", (-1.0, 1.0))

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """The most probable latents `(N, latent_dim)` of images `(N, C, H, W)` in `[-1, 1]`: float32."""
        images = self._low + (self._high - self._low) * (images + 1) / 2
        output = self.vae.encode(images.to(self.vae.dtype))
        return (output.latent_dist.mode() if "latent_dist" in output else output.latents).float()

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The images `(N, C, H, W)` around `[-1, 1]` of latents `(N, latent_dim)`: float32."""
        images = self.vae.decode(latents.to(self.vae.dtype)).sample.float()
        return 2 * (images - self._low) / (self._high - self._low) - 1


# Where the configurations of autoencoders have the channels of latents, and a list with an entry for each resolution.
LATENT_CHANNELS = ("vq_embed_dim", "latent_channels", "embedding_dim")
LEVELS = ("block_out_channels", "encoder_block_out_channels")


class LatentSpaceMixin:
    """Lets a pipeline work in the latents of its `vae`, if it has one, and otherwise in pixels."""

    @property
    def _space(self) -> PixelSpace | LatentSpace:
        """Where the denoiser, `unet`, works."""
        if self.vae is not None:
            return LatentSpace(self.vae)
        return PixelSpace(self.config.get("image_channels") or self.unet.config.in_channels)

    @property
    def _image_sides(self) -> tuple[int | None, int | None]:
        """Height and width of the images that the denoiser was trained for; `None` where this is unknown."""
        factor = self._space.pixels_per_latent
        return tuple(side and side * factor for side in get_sample_size(self.unet))

    @property
    def _side_multiple(self) -> int:
        """What the sides of images must be multiples of."""
        return get_size_multiple(self.unet) * self._space.pixels_per_latent


def check_space(space: PixelSpace | LatentSpace, channels: int):
    """Refuses a `unet` whose channels differ from the channels of the space."""
    if channels != space.channels:
        raise ValueError(f"`unet` makes {channels} channels, but the latents of `vae` have {space.channels}.")
