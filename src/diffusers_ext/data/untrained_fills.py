"""Fills for hidden pixels that need no training: baselines for restorations, and first guesses to start from."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch

from diffusers_ext.data.corruptions import Corruption
from diffusers_ext.pixels import as_uint8, to_pixel_values


def visible(corruption: Corruption, fill: torch.Tensor | float = 0.0) -> torch.Tensor:
    """The visible pixels of degraded images, in [-1, 1], with `fill` in place of hidden pixels."""
    image = corruption.conditioning_image
    return image if corruption.hidden is None else torch.where(corruption.hidden > 0, fill, image)


def mean_fill(corruption: Corruption) -> torch.Tensor:
    """Fills hidden pixels with the mean colour of the visible ones."""
    seen = 1 - corruption.hidden
    mean = (corruption.conditioning_image * seen).sum((2, 3), keepdim=True) / seen.sum((2, 3), keepdim=True)
    return visible(corruption, mean)


def telea_fill(corruption: Corruption) -> torch.Tensor:
    """Fills hidden pixels by OpenCV's fast marching method (Telea 2004), with a radius of 3 pixels."""
    import cv2

    images = as_uint8(visible(corruption)).permute(0, 2, 3, 1).contiguous().numpy()
    masks = corruption.hidden[:, 0].to(torch.uint8).numpy()
    filled = [cv2.inpaint(image, mask, 3, cv2.INPAINT_TELEA) for image, mask in zip(images, masks, strict=True)]
    filled = torch.from_numpy(np.stack(filled)).view(images.shape).permute(0, 3, 1, 2)
    return visible(corruption, to_pixel_values(filled))


def biharmonic_fill(corruption: Corruption) -> torch.Tensor:
    """Fills hidden pixels by scikit-image's solution of the biharmonic equation."""
    from skimage.restoration import inpaint_biharmonic

    images, masks = visible(corruption).permute(0, 2, 3, 1).numpy(), corruption.hidden[:, 0].bool().numpy()
    filled = [
        inpaint_biharmonic(image.astype(np.float64), mask, channel_axis=-1)
        for image, mask in zip(images, masks, strict=True)
    ]
    return visible(corruption, torch.from_numpy(np.stack(filled)).float().permute(0, 3, 1, 2).clamp(-1, 1))


@dataclass(frozen=True)
class Fill:
    """A way to fill hidden pixels.

    Attributes:
        title: its name in tables.
        function: from degraded images to images in [-1, 1] without hidden pixels.
        module, package: the module that it needs, and the package to install for it.
        channels: the numbers of channels that it can process; None for any.
    """

    title: str
    function: Callable[[Corruption], torch.Tensor]
    module: str = "torch"
    package: str = "torch"
    channels: tuple[int, ...] | None = None

    def is_usable(self, channels: int) -> bool:
        """Whether its package is installed and it can process images with this number of channels."""
        return find_spec(self.module) is not None and (self.channels is None or channels in self.channels)


FILLS = {
    "grey": Fill("grey fill", visible),
    "mean": Fill("mean fill", mean_fill),
    "telea": Fill("Telea (OpenCV)", telea_fill, "cv2", "opencv-python-headless", channels=(1, 3)),
    "biharmonic": Fill("biharmonic (scikit-image)", biharmonic_fill, "skimage", "scikit-image"),
}


def load_fill(name: str, channels: int) -> Callable[[Corruption], torch.Tensor]:
    """The function with this name in `FILLS`, from degraded images to images in [-1, 1] without hidden pixels.

    Raises:
        ValueError: if it cannot process images with this number of channels.
        ImportError: if its package is not installed.
    """
    fill = FILLS[name]
    if fill.channels is not None and channels not in fill.channels:
        raise ValueError(f"--first_guess {name} needs images of {fill.channels} channels, not of {channels}.")
    if not fill.is_usable(channels):
        raise ImportError(f"--first_guess {name} needs a package: pip install {fill.package}.")
    return fill.function
