"""What the network of a [`PalettePipeline`] is given in training, beside the noisy image."""

import torch
import torch.nn.functional as F

from diffusers_ext.data.corruptions import Corruption, super_resolution
from diffusers_ext.pipelines.fills import FILLS, smooth_fill
from diffusers_ext.training.loop.draws import Draw


class PaletteInputs:
    """Makes conditioning images of degraded ones, and the noise that the process starts from.

    Args:
        fill (`str`), augmentation (`float`), source_noise (`float`, *optional*): `conditioning_fill`,
            `conditioning_augmentation` and `source_noise` of the pipeline.
        scale_factor (`float`): how much larger super-resolution makes images, see [`enlargement`].
    """

    def __init__(self, *, fill: str, augmentation: float, source_noise: float | None, scale_factor: float):
        self.fill, self.augmentation, self.source_noise = fill, augmentation, source_noise
        self.scale_factor = scale_factor

    def show(self, corruption: Corruption, draw: Draw) -> torch.Tensor:
        """The conditioning image: hidden pixels filled, and noise added to small images.

        Returns:
            `torch.Tensor` of shape (N, C, H, W), or (N, C + 1, H, W) with the level of that noise.
        """
        conditioning = corruption.conditioning_image
        if self.fill != "noise":
            conditioning = FILLS[self.fill](conditioning, corruption.hidden)
        if self.augmentation > 0:
            channels, *size = conditioning.shape[1:]
            small = (round(side / self.scale_factor) for side in size)
            levels = self.augmentation * draw.uniform()
            conditioning = augment_conditioning(conditioning, levels, draw.normal(channels, *small))
        return conditioning

    def draw_noise(self, corruption: Corruption, draw: Draw) -> torch.Tensor:
        """The start of the process: standard normal noise, or the degraded image with noise of `source_noise`."""
        noise = draw.normal_like(corruption.conditioning_image)
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
