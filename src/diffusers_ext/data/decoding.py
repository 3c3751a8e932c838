"""Decodes images: from any value of an image column to a uint8 tensor with the channels that a model needs."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import fsspec
import numpy as np
import torch
from PIL import Image, ImageOps


# The Pillow mode for each number of channels of a model.
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

# Containers and documents rather than images; Pillow starts another program (Ghostscript) to read some of them.
_REFUSED_FORMATS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}

_EXIF_ORIENTATION = 0x0112

# The errors of Pillow's readers for files that are damaged, unsupported or not images; found by trying such files.
_READ_ERRORS = (
    OSError,
    EOFError,
    LookupError,
    RuntimeError,
    SyntaxError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

# Loads the common formats first: Pillow tries its readers in the order in which they were loaded.
Image.preinit()
Image.init()


class UnreadableImageError(ValueError):
    """An image could not be decoded; the message is the reason.

    Attributes:
        path (`str | None`): the path of the image, if it is known.
    """

    def __init__(self, reason: str, path: str | None = None):
        super().__init__(reason)
        self.path = path


class UnreadableImagesError(ValueError):
    """Some images of a data set could not be decoded.

    Attributes:
        files (`list[str]`): their paths, or their rows (`"row 17"`) if they have no path.
    """

    def __init__(self, reasons: dict[str, str]):
        self.files = list(reasons)
        listed = "\n".join(f"  {name}: {reason}" for name, reason in reasons.items())
        super().__init__(
            f"{len(reasons)} image{'s' * (len(reasons) > 1)} cannot be read; repair or remove them, or pass "
            f"skip_unreadable_images to train without them:\n{listed}"
        )


def image_extensions() -> set[str]:
    """The extensions (lower-case, with the dot) of the files that `decode_image` can read in this environment."""
    return {
        extension
        for extension, name in Image.registered_extensions().items()
        if name in Image.OPEN and name not in _REFUSED_FORMATS
    }


def image_path(value: Any) -> str | None:
    """The path in a value of an image column, or None if there is none."""
    path = value.get("path") if isinstance(value, dict) else value
    return path if isinstance(path, str) else None


def decode_image(value: Any, channels: int) -> torch.Tensor:
    """Decode one image.

    The EXIF orientation is applied, and only the first frame of an animation is used. 16-bit grayscale is scaled to 8
    bits (`round(v / 257)`), not clipped. Transparency is kept if there is an alpha channel (2 or 4 channels), and
    otherwise composited over white. Colour profiles are ignored, and CMYK is converted to RGB by Pillow's formula.
    Float images raise an error, because they have no defined range.

    Args:
        value: the encoded bytes, a path or fsspec URL, a dict with "bytes" or "path" (as
            `datasets.Image(decode=False)` returns it), a `PIL.Image.Image`, or an array or nested list of integers,
            (H, W), (H, W, C) or (C, H, W).
        channels: 1 (L), 2 (LA), 3 (RGB) or 4 (RGBA).

    Returns:
        uint8 tensor of shape (channels, H, W), 0..255.

    Raises:
        UnreadableImageError: if this is not an image that can be read completely.
    """
    pixels = torch.from_numpy(_read(value, lambda image: np.array(_to_mode(image, MODES[channels]))))
    return pixels.view(*pixels.shape[:2], channels).permute(2, 0, 1)


def decode_label_map(value: Any) -> torch.Tensor:
    """Decode one label map: the numbers of its pixels, not the colours that a palette gives them.

    Args:
        value: as for `decode_image`.

    Returns:
        uint8 tensor of shape (1, H, W): the class of each pixel.

    Raises:
        UnreadableImageError: if this is not a readable image with one channel of integers from 0 to 255.
    """
    return torch.from_numpy(_read(value, _labels))[None]


def _read(value: Any, convert: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    """Opens an image, applies its orientation, and converts it with `convert`."""
    try:
        image = _open(value)
        image.load()
        if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
        return convert(image)
    except _READ_ERRORS as error:
        raise UnreadableImageError(_one_line(error)) from error


def _labels(image: Image.Image) -> np.ndarray:
    labels = np.array(image)
    if labels.ndim != 2 or labels.dtype.kind not in "biu":
        raise UnreadableImageError(f"a label map must have one channel of integers, but this image is {image.mode}")
    if labels.min() < 0 or labels.max() > 255:
        raise UnreadableImageError(f"labels must be integers from 0 to 255, not {labels.min()} to {labels.max()}")
    return labels.astype(np.uint8)


def _one_line(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image"
    return " ".join(str(error).split()) or type(error).__name__


def _open(value: Any) -> Image.Image:
    if isinstance(value, dict):
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if value is None:
        raise UnreadableImageError("there is no image")
    if isinstance(value, Image.Image):
        return value
    if isinstance(value, (np.ndarray, list)):
        return _from_array(np.asarray(value))
    if isinstance(value, str) and "://" in value:
        with fsspec.open(value, "rb") as file:
            value = file.read()
    if isinstance(value, (bytes, bytearray)):
        if not value:
            raise UnreadableImageError("the file is empty")
        value = io.BytesIO(value)
    return Image.open(value, formats=[name for name in Image.ID if name not in _REFUSED_FORMATS])


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[0] in MODES and array.shape[2] not in MODES:
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or array.ndim != 2 and (array.ndim != 3 or array.shape[2] not in MODES):
        raise UnreadableImageError(f"an array must have the shape (H, W), (H, W, C) or (C, H, W), not {array.shape}")
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif array.dtype == np.uint16 and array.ndim == 2:
        array = _from_16_bits(array)
    elif array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
        raise UnreadableImageError(f"an array must hold integers from 0 to 255; this one has the type {array.dtype}")
    return Image.fromarray(np.ascontiguousarray(array, dtype=np.uint8))


def _from_16_bits(array: np.ndarray) -> np.ndarray:
    if array.min() < 0 or array.max() > 65535:
        raise UnreadableImageError(
            "32-bit integers above 65535 have no defined range: save the image with 8 or 16 bits"
        )
    return ((array.astype(np.int64) + 128) // 257).astype(np.uint8)  # = round(v / 257): 65535 becomes 255


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == "F":
        raise UnreadableImageError("a float image has no defined range: save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        image = Image.fromarray(_from_16_bits(np.asarray(image)))
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        if "A" in mode:
            return image.convert(mode)
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    # Pillow can convert every mode to L or RGB, but not every mode to LA or RGBA.
    return image.convert("L" if image.mode in ("1", "L") else "RGB").convert(mode)
