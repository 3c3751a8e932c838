"""What fills hidden pixels without training: to compare restorations with, and to start them from."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch

from diffusers_ext.data.corruptions import Corruption
from diffusers_ext.data.transforms import to_pixel_values
from diffusers_ext.metrics.perceptual import as_uint8


def visible(corruption: Corruption, fill: torch.Tensor | float = 0.0) -> torch.Tensor:
    """What there is to see of degraded images, in [-1, 1], with `fill` for pixels that are hidden."""
    image = corruption.conditioning_image
    return image if corruption.hidden is None else torch.where(corruption.hidden > 0, fill, image)


def mean_fill(corruption: Corruption) -> torch.Tensor:
    """The mean colour of what is visible."""
    seen = 1 - corruption.hidden
    mean = (corruption.conditioning_image * seen).sum((2, 3), keepdim=True) / seen.sum((2, 3), keepdim=True)
    return visible(corruption, mean)


def telea_fill(corruption: Corruption) -> torch.Tensor:
    """OpenCV's fast marching (Telea 2004), with a radius of 3 pixels."""
    import cv2

    images = as_uint8(visible(corruption)).permute(0, 2, 3, 1).contiguous().numpy()
    masks = corruption.hidden[:, 0].to(torch.uint8).numpy()
    filled = [cv2.inpaint(image, mask, 3, cv2.INPAINT_TELEA) for image, mask in zip(images, masks, strict=True)]
    filled = torch.from_numpy(np.stack(filled)).view(images.shape).permute(0, 3, 1, 2)
    return visible(corruption, to_pixel_values(filled))


def biharmonic_fill(corruption: Corruption) -> torch.Tensor:
    """scikit-image's solution of the biharmonic equation."""
    from skimage.restoration import inpaint_biharmonic

    images, masks = visible(corruption).permute(0, 2, 3, 1).numpy(), corruption.hidden[:, 0].bool().numpy()
    filled = [
        inpaint_biharmonic(image.astype(np.float64), mask, channel_axis=-1)
        for image, mask in zip(images, masks, strict=True)
    ]
    return visible(corruption, torch.from_numpy(np.stack(filled)).float().permute(0, 3, 1, 2).clamp(-1, 1))


@dataclass(frozen=True)
class Fill:
    """A way to fill hidden pixels, what tables call it, and what it needs."""

    title: str
    function: Callable[[Corruption], torch.Tensor]
    module: str = "torch"
    package: str = "torch"
    channels: tuple[int, ...] | None = None  # of the images that it takes; None for any

    def is_usable(self, channels: int) -> bool:
        """Whether it is installed and takes images of so many channels."""
        return find_spec(self.module) is not None and (self.channels is None or channels in self.channels)


FILLS = {
    "grey": Fill("grey fill", visible),
    "mean": Fill("mean fill", mean_fill),
    "telea": Fill("Telea (OpenCV)", telea_fill, "cv2", "opencv-python-headless", channels=(1, 3)),
    "biharmonic": Fill("biharmonic (scikit-image)", biharmonic_fill, "skimage", "scikit-image"),
}


def load_fill(name: str, channels: int) -> Callable[[Corruption], torch.Tensor]:
    """The function of a name in `FILLS`, from degraded images to images in [-1, 1] without holes.

    Raises:
        ValueError: if it does not take images of so many channels.
        ImportError: if its package is not installed.
    """
    fill = FILLS[name]
    if fill.channels is not None and channels not in fill.channels:
        raise ValueError(f"--first_guess {name} takes images of {fill.channels} channels, not of {channels}.")
    if not fill.is_usable(channels):
        raise ImportError(f"--first_guess {name} needs its package: pip install {fill.package}.")
    return fill.function
