"""Decodes images: from any value of an image column to a uint8 tensor with the channels that a model needs."""

import contextlib
import functools
import io
import struct
import threading
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import fsspec
import numpy as np
import torch
from PIL import Image

from diffusers_ext.data.label_colors import default_palette


# The Pillow mode for each number of channels of a model.
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

# Containers and documents rather than images; Pillow starts another program (Ghostscript) to read some of them.
_REFUSED_FORMATS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# The orientations that exchange height and width.
_TURNED = (5, 6, 7, 8)

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

# Held while a data set's limit replaces Pillow's limit of pixels, which is one variable for all images.
_PIXEL_LIMIT = threading.Lock()

# Loads the common formats first: Pillow tries its readers in the order in which they were loaded.
Image.preinit()
Image.init()
if find_spec("pillow_heif") is not None:
    import pillow_heif

    pillow_heif.register_heif_opener()


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
        super().__init__(
            f"{len(reasons)} image{'s' * (len(reasons) > 1)} cannot be read; repair or remove them, or pass "
            f"--skip_unreadable_images to train without them:\n{list_reasons(reasons)}"
        )


def list_reasons(reasons: dict[str, str]) -> str:
    """A line for each image: its name, and why it cannot be read."""
    return "\n".join(f"  {name}: {reason}" for name, reason in reasons.items())


@functools.cache
def image_extensions() -> frozenset[str]:
    """The extensions (lower-case, with the dot) of the files that `decode_image` can read in this environment."""
    return frozenset(
        extension
        for extension, name in Image.registered_extensions().items()
        if name in Image.OPEN and name not in _REFUSED_FORMATS
    )


def image_path(value: Any) -> str | None:
    """The path in a value of an image column, or None if there is none."""
    path = value.get("path") if isinstance(value, dict) else value
    return path if isinstance(path, str) else None


def decode_image(value: Any, channels: int, max_pixels: int | None = None) -> torch.Tensor:
    """Decode one image.

    The EXIF orientation is applied, and only the first frame of an animation is used. 16-bit grayscale is scaled to 8
    bits (`round(v / 257)`), not clipped. Transparency is kept if there is an alpha channel (2 or 4 channels), and
    otherwise composited over white. Colour profiles are ignored, and CMYK is converted to RGB by Pillow's formula.
    Float images raise an error, because they have no defined range. Broken or oversized metadata (EXIF, XMP, texts,
    profiles) are ignored.

    Args:
        value: the encoded bytes, a path or fsspec URL, a dict with "bytes" or "path" (as
            `datasets.Image(decode=False)` returns it), a `PIL.Image.Image`, or an array or nested list of integers,
            (H, W), (H, W, C) or (C, H, W).
        channels: 1 (L), 2 (LA), 3 (RGB) or 4 (RGBA).
        max_pixels: files with more pixels are refused before their pixels are read; by default twice
            `PIL.Image.MAX_IMAGE_PIXELS`.

    Returns:
        uint8 tensor of shape (channels, H, W), 0..255.

    Raises:
        UnreadableImageError: if this is not an image that can be read completely.
    """
    pixels = _read(value, max_pixels, lambda image: np.array(_to_mode(image, MODES[channels])))
    return torch.from_numpy(pixels).view(*pixels.shape[:2], channels).permute(2, 0, 1)


def decode_frames(value: Any, channels: int, max_pixels: int | None = None) -> torch.Tensor:
    """Decode all frames of one film: a GIF, an animated WebP, PNG or AVIF, or a TIFF of several pages.

    Each stored frame counts once, however long it is shown. Writers of GIFs store equal frames in a row as one.

    Args:
        value, channels: as for `decode_image`.
        max_pixels: films whose frames have more pixels together are refused; by default twice
            `PIL.Image.MAX_IMAGE_PIXELS`.

    Returns:
        uint8 tensor of shape (T, channels, H, W), 0..255.

    Raises:
        UnreadableImageError: if this is no film that can be read completely.
    """
    frames = torch.from_numpy(_read_frames(value, channels, max_pixels))
    return frames.view(*frames.shape[:3], channels).permute(0, 3, 1, 2)


def _read_frames(value: Any, channels: int, max_pixels: int | None) -> np.ndarray:
    limit = 2 * Image.MAX_IMAGE_PIXELS if max_pixels is None else max_pixels
    try:
        source = _find(value)
        with source if isinstance(source, Image.Image) else _open_file(source, max_pixels) as film:
            count = getattr(film, "n_frames", 1)
            if count * film.width * film.height > limit:
                raise UnreadableImageError(
                    f"its {count} frames of {film.width}x{film.height} have more than {limit} pixels; if this is no "
                    "decompression bomb, raise --max_image_pixels"
                )
            return np.stack([_read_frame(film, index, channels) for index in range(count)])
    except (UnreadableImageError, MemoryError):
        raise
    except Exception as error:  # as in `_read`
        raise UnreadableImageError(_one_line(error)) from error


def _read_frame(film: Image.Image, index: int, channels: int) -> np.ndarray:
    film.seek(index)
    film.load()
    return np.array(_to_mode(_upright(film), MODES[channels]))


def read_size(value: Any, max_pixels: int | None = None) -> tuple[int, int]:
    """The (height, width) of the result of `decode_image`; where that is possible, only the header of a file is read.

    Raises:
        UnreadableImageError: if the size can't be read.
    """
    try:
        with _open_file(_find(value), max_pixels) as image:
            turned = image.getexif().get(_EXIF_ORIENTATION) in _TURNED
            return (image.width, image.height) if turned else (image.height, image.width)
    except Exception:  # broken metadata, for example, which `decode_image` ignores
        return _read(value, max_pixels, np.array).shape[:2]


def decode_label_map(value: Any, max_pixels: int | None = None) -> torch.Tensor:
    """Decode one label map: the numbers of its pixels, not the colours that a palette gives them.

    Args:
        value, max_pixels: as for `decode_image`.

    Returns:
        uint8 tensor of shape (1, H, W): the class of each pixel.

    Raises:
        UnreadableImageError: if this is not a readable image with one channel of integers from 0 to 255.
    """
    return torch.from_numpy(_read(value, max_pixels, _labels))[None]


def decode_instance_map(value: Any, max_pixels: int | None = None) -> torch.Tensor:
    """Decode one map of objects, each of which has a value or a colour of its own.

    Args:
        value, max_pixels: as for `decode_image`.

    Returns:
        uint8 tensor of shape (2, H, W): the number of each pixel's object, in the order of their values, as its upper
        and its lower byte.

    Raises:
        UnreadableImageError: if this is not a readable image, or has more than 65,536 objects.
    """
    return torch.from_numpy(_read(value, max_pixels, _objects))


def decode_label_colors(value: Any, max_pixels: int | None = None) -> torch.Tensor:
    """Decode one label map as colours, which come from its pixels or from its palette, if it has colours.

    A label map of numbers (grayscale, or a palette that shows number k as the gray level k) gets the colours of Pascal
    VOC, which are easy to distinguish, while neighbouring gray levels are not.

    Args:
        value, max_pixels: as for `decode_image`.

    Returns:
        uint8 tensor of shape (3, H, W).

    Raises:
        UnreadableImageError: if this is not a readable image, or if its numbers are not from 0 to 255.
    """
    return torch.from_numpy(_read(value, max_pixels, _label_colors)).permute(2, 0, 1)


def _read(value: Any, max_pixels: int | None, convert: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    """Opens an image, applies its orientation, and converts it with `convert`."""
    try:
        return convert(_upright(_load(value, max_pixels)))
    except (UnreadableImageError, MemoryError):  # a machine without memory is not the fault of the image
        raise
    except Exception as error:  # a damaged file can raise anything in a reader, in each version something else
        raise UnreadableImageError(_one_line(error)) from error


def _load(value: Any, max_pixels: int | None) -> Image.Image:
    """An image whose pixels are read."""
    source = _find(value)
    if isinstance(source, Image.Image):
        source.load()
        return source
    try:
        return _load_file(source, max_pixels)
    except Exception:
        pixels = _png_pixels(source)
        if pixels is not None:
            with contextlib.suppress(Exception):
                return _load_file(pixels, max_pixels)
        raise


def _find(value: Any) -> Image.Image | bytes | str:
    """An image, the bytes of a file, or its path, from any value of an image column."""
    if isinstance(value, dict):
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if value is None:
        raise UnreadableImageError("there is no image")
    if isinstance(value, (np.ndarray, list)):
        return _from_array(np.asarray(value))
    if isinstance(value, str) and "://" in value:
        with fsspec.open(value, "rb") as file:
            value = file.read()
    if isinstance(value, (bytes, bytearray)) and not value:
        raise UnreadableImageError("the file is empty")
    return value


def _load_file(source: bytes | str, max_pixels: int | None) -> Image.Image:
    image = _open_file(source, max_pixels)
    image.load()
    return image


def _open_file(source: bytes | str, max_pixels: int | None) -> Image.Image:
    """An image whose header is read, and whose pixels are not."""
    file = io.BytesIO(source) if isinstance(source, (bytes, bytearray)) else source
    formats = [name for name in Image.ID if name not in _REFUSED_FORMATS]
    if max_pixels is None:
        image = Image.open(file, formats=formats)
    else:
        with _PIXEL_LIMIT:
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(file, formats=formats)
            finally:
                Image.MAX_IMAGE_PIXELS = limit
        size = image.width * image.height
        if size > max_pixels:
            raise Image.DecompressionBombError(f"Image size ({size} pixels) exceeds limit of {max_pixels} pixels")
    return image


def _png_pixels(source: bytes | str) -> bytes | None:
    """A PNG file without texts, profiles and other metadata that do not change its pixels; None for other files."""
    if not isinstance(source, (bytes, bytearray)):
        try:
            with open(source, "rb") as file:
                source = file.read()
        except OSError:
            return None
    if not source.startswith(_PNG_SIGNATURE):
        return None
    kept, position = [_PNG_SIGNATURE], len(_PNG_SIGNATURE)
    while position + 12 <= len(source):
        length, kind = struct.unpack_from(">I4s", source, position)
        chunk = source[position : position + 12 + length]
        is_whole = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        # Capital letters mark chunks that a reader must understand; the two others are transparency and orientation.
        if kind[:1].isupper() or kind == b"tRNS" or kind == b"eXIf" and is_whole:
            kept.append(chunk)
        position += len(chunk)
    return b"".join(kept)


def _upright(image: Image.Image) -> Image.Image:
    """The image in the orientation of its EXIF or XMP metadata; as it is if these can't be read."""
    try:
        method = _UPRIGHT.get(image.getexif().get(_EXIF_ORIENTATION))
    except Exception:  # see `_read`
        return image
    return image if method is None else image.transpose(method)


def _labels(image: Image.Image) -> np.ndarray:
    labels = np.array(image)
    if labels.ndim != 2 or labels.dtype.kind not in "biu":
        raise UnreadableImageError(f"a label map must have one channel of integers, but this image is {image.mode}")
    if labels.min() < 0 or labels.max() > 255:
        raise UnreadableImageError(f"labels must be integers from 0 to 255, not {labels.min()} to {labels.max()}")
    return labels.astype(np.uint8)


def _objects(image: Image.Image) -> np.ndarray:
    pixels = np.array(image)
    values = pixels.reshape(*pixels.shape[:2], -1).reshape(-1, pixels.shape[2] if pixels.ndim == 3 else 1)
    found, numbers = np.unique(values, axis=0, return_inverse=True)
    if len(found) > 1 << 16:
        raise UnreadableImageError(f"an instance map must have at most 65536 objects, but this one has {len(found)}")
    numbers = numbers.reshape(pixels.shape[:2])
    return np.stack([numbers >> 8, numbers & 255]).astype(np.uint8)


def _label_colors(image: Image.Image) -> np.ndarray:
    if len(image.getbands()) > 1 or image.mode == "P" and not _is_gray_ramp(image.getpalette("RGB")):
        return np.array(_to_mode(image, "RGB"))
    return np.array(default_palette(), dtype=np.uint8)[_labels(image)]


def _is_gray_ramp(palette: list[int]) -> bool:
    return palette == [level for level in range(len(palette) // 3) for _ in range(3)]


def _one_line(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image"
    if isinstance(error, Image.DecompressionBombError):
        size = str(error).partition(",")[0]
        return f"{size}, which guards against decompression bombs; if this is no bomb, raise --max_image_pixels"
    return " ".join(str(error).split()) or type(error).__name__


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
