"""What the network of a [`PalettePipeline`] is given in training, beside the noisy image."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from diffusers_ext.data.corruptions import Corruption, super_resolution
from diffusers_ext.pipelines.fills import SHOWN_FILLS, smooth_fill
from diffusers_ext.pipelines.label_maps import one_hot_labels
from diffusers_ext.pipelines.latent_conditioning import encode_shown
from diffusers_ext.training.diffusion.latents import Latents
from diffusers_ext.training.loop.draws import Draw


class PaletteInputs:
    """Makes conditioning images of degraded ones, and the noise that the process starts from.

    Args:
        latents ([`Latents`]): where the denoiser works.
        encoding (`str`), fill (`str`), augmentation (`float`), source_noise (`float`, *optional*):
            `conditioning_encoding`, `conditioning_fill`, `conditioning_augmentation` and `source_noise` of the
            pipeline.
        has_mask (`bool`): whether the denoiser is shown which latents are hidden, see [`encode_shown`].
        scale_factor (`float`): how much larger super-resolution makes images, see [`enlargement`].
        num_labels (`int`, *optional*): of label maps, which a network rescales.
    """

    def __init__(
        self,
        latents: Latents,
        *,
        encoding: str,
        fill: str,
        augmentation: float,
        source_noise: float | None,
        has_mask: bool,
        scale_factor: float,
        num_labels: int | None = None,
    ):
        self.latents, self.encoding, self.has_mask = latents, encoding, has_mask
        self.fill, self.augmentation, self.source_noise = fill, augmentation, source_noise
        self.scale_factor, self.num_labels = scale_factor, num_labels

    def num_channels(self, image_channels: int) -> int:
        """The channels of what [`~PaletteInputs.show`] makes of images with so many channels."""
        blank = torch.zeros(
            1, image_channels, *(side * self.latents.space.pixels_per_latent for side in self.latents.size)
        )
        return self._encode(blank, None).shape[1] + (self.augmentation > 0)

    def show(self, corruption: Corruption, draw: Draw, conditioner: torch.nn.Module | None = None) -> torch.Tensor:
        """What the denoiser sees beside the noisy image: hidden pixels filled, and noise added to small images.

        Args:
            corruption ([`Corruption`]): what the task made of the images.
            draw ([`Draw`]): the random numbers of the step.
            conditioner (`torch.nn.Module`, *optional*): the network of label maps.

        Returns:
            `torch.Tensor` of shape (N, C', H, W), where the last channel is the level of that noise, if there is any;
            in latents, of their size.
        """
        conditioning = corruption.conditioning_image
        if self.fill != "noise":
            conditioning = SHOWN_FILLS[self.fill](conditioning, corruption.hidden)
        if conditioner is not None:
            return conditioner(one_hot_labels(conditioning, self.num_labels))
        if self.augmentation == 0:
            return self._encode(conditioning, corruption.hidden)
        channels, *size = conditioning.shape[1:]
        small = (round(side / self.scale_factor) for side in size)
        levels = self.augmentation * draw.uniform()
        conditioning = augment_conditioning(conditioning, levels, draw.normal(channels, *small))
        shown = self._encode(conditioning[:, :-1], corruption.hidden)
        return torch.cat([shown, levels[:, None, None, None].expand_as(shown[:, :1])], dim=1)

    def _encode(self, images: torch.Tensor, hidden: torch.Tensor | None) -> torch.Tensor:
        """See [`encode_shown`]. Images are encoded one by one: the result does not depend on the rest of the batch."""
        space = self.latents.space
        if self.latents.vae is None or self.encoding != "latents":
            return encode_shown(space, self.encoding, images, hidden, self.has_mask)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            rows = zip(images.split(1), [None] * len(images) if hidden is None else hidden.split(1), strict=True)
            return torch.cat([encode_shown(space, self.encoding, *row, self.has_mask) for row in rows])

    def made(self, corruption: Corruption) -> torch.Tensor | None:
        """Where pixels are made and not kept, (N, 1, H, W); `None` for latents, which are all made."""
        return corruption.mask if self.latents.vae is None else None

    def draw_noise(self, corruption: Corruption, draw: Draw) -> torch.Tensor:
        """The start of the process: standard normal noise, or the degraded image with noise of `source_noise`."""
        noise = draw.normal(*self.latents.shape)
        if self.source_noise is not None:
            source = smooth_fill(corruption.conditioning_image, corruption.hidden)
            noise = source + self.source_noise * noise
        return noise


def augment_conditioning(conditioning: torch.Tensor, levels: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """What a super-resolver sees of small images `sqrt(1 - level**2) * image + level * noise` (CDM, section 4.2).

    Enlarging is linear, so the noise is enlarged by itself and comes on top of the enlarged images. The level goes
    with them, in a channel of its own: a UNet2DModel has no other room for it beside the timestep and the class.

    Args:
        conditioning: the enlarged images, (N, C, H, W) in [-1, 1].
        levels: in [0, 1), of shape (N,).
        noise: standard normal, of the small images' shape (N, C, h, w).

    Returns:
        (N, C + 1, H, W): the images, then the level.
    """
    levels = levels[:, None, None, None]
    enlarged = F.interpolate(noise, conditioning.shape[2:], mode="bicubic", antialias=True)
    conditioning = (1 - levels**2).sqrt() * conditioning + levels * enlarged
    return torch.cat([conditioning, levels.expand_as(conditioning[:, :1])], dim=1)


def enlargement(task_options: dict[str, dict]) -> float:
    """How much larger super-resolution makes images, by the options of the tasks."""
    options = task_options.get("super_resolution", {})
    return float({**super_resolution.__kwdefaults__, **options}["factor"])


def usage(task: str) -> str:
    """A line of Python that restores an image by this task."""
    parts, needed = task.split("+"), ""
    if "inpainting" in parts:
        needed = ", mask_image=mask"
    elif "uncropping" in parts:
        needed = ", padding=(16, 0, 16, 0)"
    return f'image = pipe(image{needed}, task="{task}").images[0]'


def hides_pixels(tasks: Sequence[str]) -> bool:
    """Whether one of the tasks hides pixels, which are to be made."""
    return any({"inpainting", "uncropping"} & set(task.split("+")) for task in tasks)
