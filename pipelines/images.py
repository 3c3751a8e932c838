"""Images that users pass and get: pictures, arrays and tensors, from tensors in `[0, 1]` and to them."""

import os
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.nn import functional as F


ImageInput = Image.Image | np.ndarray | torch.Tensor | str | os.PathLike

# The weights of red, green and blue, 0.299, 0.587 and 0.114 (ITU-R 601), in units of 1/65536 as Pillow has them
LUMA = (19595, 38470, 7471)


def read_images_of_shape(name: str, images: Any, shape: tuple[int, int, int]) -> torch.Tensor:
    """
    Images for a network of one `shape` `(C, H, W)`: `(N, C, H, W)` in `[0, 1]`.

    Raises:
        ValueError: for what is no image, other channels that can't be converted, and other sizes.
    """
    read = [fit_channels(name, read_image(name, image), shape[0]) for image in list_images(name, images)]
    check_one_size(read)
    found = tuple(read[0].shape[1:])
    if found != tuple(shape[1:]):
        raise ValueError(f"`{name}` must have the network's height and width, {tuple(shape[1:])}, but has {found}.")
    return torch.stack(read)


def list_images(name: str, images: Any) -> list:
    """The entries of an argument that is one image, a list of images, or a batch of four dimensions."""
    if isinstance(images, (np.ndarray, torch.Tensor)) and images.ndim == 4:
        images = list(images)
    images = list(images) if isinstance(images, (list, tuple)) else [images]
    if not images:
        raise ValueError(f"`{name}` is empty: pass one image or more.")
    return [open_path(name, image) for image in images]


def open_path(name: str, image: Any) -> Any:
    """The picture in the file of a path; anything else as it is."""
    if not isinstance(image, (str, os.PathLike)):
        return image
    path = os.fspath(image)
    if not os.path.isfile(path):
        raise ValueError(f"`{name}` must be an image or the path of one, but there is no file {path!r}.")
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"`{name}` is the file {path!r}, which can't be read as an image: {reason}.") from error


def read_picture(image: Image.Image) -> np.ndarray:
    """
    A picture as an array, turned upright by its EXIF tag.

    Returns:
        `np.ndarray`: `(H, W)` or `(H, W, C)` with the channels of RGB, or of RGBA where there is transparency; uint8,
        or float32 in `[0, 1]` for pictures of 16 bits.

    Raises:
        ValueError: for a picture of floats.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("A float picture has no defined range: pass an array from 0 to 1 instead.")
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.float32) / 65535
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return np.array(image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA"))
    return np.array(image.convert("L" if image.mode in ("1", "L") else "RGB"))


def read_image(name: str, image: ImageInput) -> torch.Tensor:
    """
    One image as a tensor.

    Args:
        name (`str`): the argument's name, for errors.
        image: a picture, the path of one, an array `(H, W)` or `(H, W, C)`, or a tensor `(H, W)` or `(C, H, W)`;
            bytes, bools, or floats in `[0, 1]`.

    Returns:
        `torch.Tensor` of shape `(C, H, W)`: float32 in `[0, 1]`.

    Raises:
        ValueError: for anything else.
    """
    image = open_path(name, image)
    if isinstance(image, Image.Image):
        image = read_picture(image)
    if not isinstance(image, (np.ndarray, torch.Tensor)):
        raise ValueError(
            f"`{name}` must be a PIL image, a path, an array or a tensor, but is of the type {type(image).__name__}."
        )
    shape = tuple(image.shape)
    if isinstance(image, np.ndarray):
        if image.dtype.kind not in "biuf":
            raise ValueError(f"`{name}` must hold floats from 0 to 1 or bytes, but holds {image.dtype}.")
        # PyTorch only has the byte order of the machine.
        native = image.dtype.newbyteorder("=")
        image = torch.from_numpy(np.array(image.transpose(2, 0, 1) if image.ndim == 3 else image, dtype=native))
    if image.ndim == 2:
        image = image[None]
    if image.ndim != 3 or 0 in shape:
        raise ValueError(f"`{name}` must have the shape (H, W, C) or, of a tensor, (C, H, W), but has {shape}.")

    if image.dtype == torch.uint8:
        return image.float() / 255
    if not image.is_floating_point() and image.dtype != torch.bool:
        raise ValueError(
            f"`{name}` must hold floats from 0 to 1 or bytes, but holds {image.dtype}; a label map of numbers "
            "needs the colours or gray levels that its classes had in training."
        )
    image = image.float()
    low, high = image.aminmax()
    if not (low >= 0 and high <= 1):  # this form refuses NaN too
        raise ValueError(f"`{name}` must hold values from 0 to 1, but they go from {low:.8g} to {high:.8g}.")
    return image


def check_one_size(images: list[torch.Tensor]):
    """Refuses tensors `(C, H, W)` of different heights or widths."""
    sizes = sorted({(image.shape[2], image.shape[1]) for image in images})
    if len(sizes) > 1:
        raise ValueError(
            f"The images of one call must have one size, but these have {len(sizes)} (width, height): {sizes[:5]}."
        )


def fit_channels(name: str, image: torch.Tensor, channels: int, background: float = 1.0) -> torch.Tensor:
    """
    Converts an image between grayscale and colour, and between transparent and opaque.

    Args:
        name (`str`): the argument's name, for errors.
        image (`torch.Tensor` of shape `(C, H, W)`): in `[0, 1]`; gray, gray and alpha, RGB, or RGBA.
        channels (`int`): the number of channels of the result.
        background (`float`): the gray value behind transparent pixels where the result is opaque.

    Returns:
        `torch.Tensor` of shape `(channels, H, W)`.

    Raises:
        ValueError: for other numbers of channels, unless they are equal.
    """
    if len(image) == channels:
        return image
    if is_one_hot(image):
        raise ValueError(
            f"`{name}` is a one-hot label map of {len(image)} classes, but must have {channels} channels: give each "
            "class the colour or gray level that it had in training."
        )
    if len(image) not in (1, 2, 3, 4) or channels not in (1, 2, 3, 4):
        raise ValueError(
            f"`{name}` must have {channels} channels, but has {len(image)} (arrays are (H, W, C), tensors (C, H, W))."
        )
    alpha = torch.ones_like(image[:1])
    if len(image) in (2, 4):
        image, alpha = image[:-1], image[-1:]
    if channels in (1, 3):
        image = image * alpha + background * (1 - alpha)
    if channels in (1, 2) and len(image) == 3:
        image = to_gray(image)
    if channels in (3, 4):
        image = image.expand(3, -1, -1)
    return image if channels in (1, 3) else torch.cat([image, alpha])


def is_one_hot(image: torch.Tensor) -> bool:
    """Whether an image `(C, H, W)` with more channels than pictures have is 1 in one channel of each pixel."""
    return len(image) > 4 and bool(((image == 0) | (image == 1)).all() and (image.sum(dim=0) == 1).all())


def to_gray(image: torch.Tensor) -> torch.Tensor:
    """Grayscale `(..., 1, H, W)` from RGB `(..., 3, H, W)` in `[0, 1]`, equal to Pillow's for bytes to the bit."""
    luma = torch.tensor(LUMA, dtype=image.dtype, device=image.device)[:, None, None]
    levels = ((image * 255).round() * luma).sum(-3, keepdim=True)
    return ((levels + 32768) / 65536).floor() / 255


def is_gray(image: torch.Tensor) -> bool:
    """Whether an image `(C, H, W)` has no colours, or only gray ones."""
    return len(image) < 3 or torch.equal(image[:1].expand(3, -1, -1), image[:3])


def enlarge_images(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """
    Enlarges images as Pillow's bicubic filter does, to the bit, which SR3 uses (a = -0.5).

    Pillow resizes one axis after the other, and rounds to bytes after each, halves up. The filter of PyTorch with
    antialiasing is Pillow's also where images grow. Colours of transparent images, of 2 or 4 channels, are weighted by
    their alpha, so that the colours of transparent pixels, which nobody sees, do not bleed out.

    Args:
        images (`torch.Tensor` of shape `(N, C, h, w)`): in `[0, 1]`, rounded to bytes first.
        size (`tuple[int, int]`): height and width of the result.

    Returns:
        `torch.Tensor` of shape `(N, C, *size)`: in `[0, 1]`.
    """
    levels, has_alpha = (images * 255).round(), images.shape[1] in (2, 4)
    if has_alpha:
        colors, alpha = levels[:, :-1], levels[:, -1:]
        levels = torch.cat([(colors * alpha / 255 + 0.5).floor(), alpha], dim=1)
    for step in ((images.shape[2], size[1]), size):
        levels = (F.interpolate(levels, step, mode="bicubic", antialias=True) + 0.5).floor().clamp(0, 255)
    if has_alpha:
        colors, alpha = levels[:, :-1], levels[:, -1:]
        levels = torch.cat([(colors * 255 / alpha.clamp(min=1)).floor().clamp(max=255), alpha], dim=1)
    return levels / 255


def pad_images(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Images `(N, C, h, w)` padded at the right and below, by reflection or, of small images, by their last pixels."""
    below, right = height - images.shape[2], width - images.shape[3]
    if not below and not right:
        return images
    # A reflection cannot be larger than the image.
    mode = "reflect" if below < images.shape[2] and right < images.shape[3] else "replicate"
    return F.pad(images, (0, right, 0, below), mode=mode)


def denormalize(images: torch.Tensor) -> torch.Tensor:
    """Images in `[0, 1]` from a network's, which are about in `[-1, 1]`."""
    return (images / 2 + 0.5).clamp(0, 1)


def to_output(images: torch.Tensor, output_type: str) -> list[Image.Image] | np.ndarray | torch.Tensor:
    """
    What a pipeline returns.

    Args:
        images (`torch.Tensor` of shape `(N, C, H, W)`): in `[0, 1]`.
        output_type (`str`): `"pil"` for a list of pictures, `"np"` for an array `(N, H, W, C)`, or `"pt"` for the
            tensor itself.
    """
    if output_type == "pt":
        return images
    images = images.permute(0, 2, 3, 1).cpu().numpy()
    return to_pictures(images) if output_type == "pil" else images


def carry_profiles(pictures: list[Image.Image], sources: list):
    """Gives pictures the colour profiles of the images that they are made from, where these have one that fits."""
    per_source = len(pictures) // len(sources)
    for i, picture in enumerate(pictures):
        profile = getattr(sources[i // per_source], "info", {}).get("icc_profile")
        # The header of a profile names the space that it is for.
        if profile and profile[16:20] == (b"GRAY" if picture.mode in ("L", "LA") else b"RGB "):
            picture.info["icc_profile"] = profile


def to_pictures(images: np.ndarray) -> list[Image.Image]:
    """
    Pictures from an array `(N, H, W, C)` in `[0, 1]` of one to four channels.

    They equal diffusers' pictures, except that diffusers cannot make gray pictures that are one pixel wide or high.
    """
    levels = (images * 255).round().astype("uint8")
    return [Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image) for image in levels]
