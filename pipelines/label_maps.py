"""Label maps, which say by a number what each pixel shows. As images, number k is the gray level k of 255."""

import numpy as np
import torch
from PIL import Image, ImageOps

from .images import ImageInput, is_gray, is_one_hot, open_path, read_image


def read_label_map(name: str, image: ImageInput) -> torch.Tensor:
    """
    One label map as an image.

    Args:
        name (`str`): the argument's name, for errors.
        image: a picture, whose palette does not matter, or the path of one; an array or a tensor `(H, W)` of labels; a
            one-hot tensor `(K, H, W)`; or an image of gray levels as of `read_image`.

    Returns:
        `torch.Tensor` of shape `(1, H, W)`: float32 in `[0, 1]`, label k is `k / 255`.

    Raises:
        ValueError: for labels beyond 255, for colours, and for what is no image.
    """
    image = open_path(name, image)
    if isinstance(image, Image.Image):
        image = ImageOps.exif_transpose(image)
        image = np.array(image) if image.mode[0] in "1PI" and image.mode != "PA" else image
    if isinstance(image, np.ndarray) and image.dtype.kind in "biu" and image.size:
        image = _check_bytes(name, image).astype(np.uint8)
    elif isinstance(image, torch.Tensor) and not image.is_floating_point() and image.numel():
        if image.ndim == 3 and is_one_hot(image):  # the numbers of torch.nn.functional.one_hot are integers
            image = image.float().argmax(dim=0)
        image = _check_bytes(name, image).to(torch.uint8)
    image = read_image(name, image)
    if is_one_hot(image):
        return image.argmax(dim=0, keepdim=True) / 255
    if not is_gray(image):
        raise ValueError(f"`{name}` must be a label map, with a number for each pixel, but has colours.")
    return image[:1]


def _check_bytes(name: str, numbers: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high > 255:
        raise ValueError(f"`{name}` must hold labels from 0 to 255, but they go from {low} to {high}.")
    return numbers


def check_labels(name: str, images: torch.Tensor, num_labels: int):
    """Refuses label maps in `[0, 1]` with a label that is not below `num_labels`."""
    largest = round(images.max().item() * 255)
    if largest >= num_labels:
        raise ValueError(f"`{name}` has the label {largest}, but the network knows those from 0 to {num_labels - 1}.")


def one_hot_labels(images: torch.Tensor, num_labels: int) -> torch.Tensor:
    """Label maps `(N, C, H, W)` in `[-1, 1]`, of equal channels, as float32 `(N, num_labels, H, W)` of 0 and 1."""
    labels = (images[:, :1] * 127.5 + 127.5).round()
    return (labels == torch.arange(num_labels, device=images.device)[:, None, None]).float()


def read_instance_map(name: str, image: ImageInput) -> torch.Tensor:
    """
    One map of objects, each of which has a value or a colour of its own.

    Args:
        name (`str`): the argument's name, for errors.
        image: a picture, such as a PNG of 8 or 16 bits or with a palette, or the path of one; an array `(H, W)` or
            `(H, W, C)`, or a tensor `(H, W)` or `(C, H, W)`, of any numbers.

    Returns:
        `torch.Tensor` of shape `(C, H, W)`: float64, the values as they are.

    Raises:
        ValueError: for what is no image.
    """
    image = open_path(name, image)
    if isinstance(image, Image.Image):
        image = np.array(ImageOps.exif_transpose(image))
    if isinstance(image, np.ndarray) and image.dtype.kind in "biuf":
        image = torch.from_numpy(image.astype(np.float64))
        image = image.permute(2, 0, 1) if image.ndim == 3 else image
    if not isinstance(image, torch.Tensor) or image.ndim not in (2, 3) or not image.numel():
        raise ValueError(f"`{name}` must be a picture, a path, an array (H, W) or (H, W, C), or a tensor of numbers.")
    return image.double() if image.ndim == 3 else image.double()[None]


def instance_edges(image: torch.Tensor) -> torch.Tensor:
    """
    Where a pixel differs from the one above, below, left or right of it (Wang et al. 2018, section 3.3).

    Args:
        image (`torch.Tensor` of shape `(C, H, W)` or `(N, C, H, W)`): an object's pixels are equal.

    Returns:
        `torch.Tensor` of shape `(1, H, W)` or `(N, 1, H, W)`: float32, 1 at edges and 0 elsewhere.
    """
    across = (image[..., 1:] != image[..., :-1]).any(dim=-3, keepdim=True)
    down = (image[..., 1:, :] != image[..., :-1, :]).any(dim=-3, keepdim=True)
    edges = torch.zeros_like(image[..., :1, :, :], dtype=torch.bool)
    edges[..., 1:] |= across
    edges[..., :-1] |= across
    edges[..., 1:, :] |= down
    edges[..., :-1, :] |= down
    return edges.float()
