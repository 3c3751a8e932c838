"""What fills hidden pixels without training: to compare restorations with, and to start them from."""

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch

from diffusers_ext.data.corruptions import Corruption
from diffusers_ext.data.transforms import to_pixel_values
from diffusers_ext.metrics.perceptual import as_uint8


# The packages of the methods that need one, and what they are called in tables.
PACKAGES = {"telea": ("cv2", "opencv-python-headless"), "biharmonic": ("skimage", "scikit-image")}
TITLES = {
    "grey": "grey fill",
    "mean": "mean fill",
    "telea": "Telea (OpenCV)",
    "biharmonic": "biharmonic (scikit-image)",
}


def load_fill(name: str) -> Callable[[Corruption], torch.Tensor]:
    """The function of that name, from degraded images to images in [-1, 1] without holes.

    Raises:
        ImportError: if its package is not installed.
    """
    module, package = PACKAGES.get(name, (None, None))
    if module is not None and find_spec(module) is None:
        raise ImportError(f"The {name} filling needs its package: pip install {package}.")
    return {"grey": visible, "mean": mean_fill, "telea": telea_fill, "biharmonic": biharmonic_fill}[name]


def usable_fills(channels: int) -> dict[str, Callable[[Corruption], torch.Tensor]]:
    """Those that are installed and take images of so many channels, by their titles."""
    names = [name for name in TITLES if name not in PACKAGES or find_spec(PACKAGES[name][0]) is not None]
    return {TITLES[name]: load_fill(name) for name in names if name != "telea" or channels in (1, 3)}


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
