"""Files whose values are light without an upper limit: Radiance (.hdr) and OpenEXR (.exr).

OpenEXR files need the package OpenEXR: pip install diffusers_ext[hdr].
"""

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from diffusers_ext.data.radiance import encode_radiance, read_radiance


def read_light(path: str | os.PathLike) -> np.ndarray:
    """The light in a file. Of an OpenEXR file, the first part with colours or brightness is read; negative light is 0.

    Returns:
        `np.ndarray` of shape (H, W, C), float32, finite and at least 0; C is 1, 3, or 2 or 4 with alpha.

    Raises:
        ValueError, OSError, ImportError: if the file can't be read, or holds values that are not finite.
    """
    light = _read_exr(path) if Path(path).suffix.lower() == ".exr" else read_radiance(path)
    if not np.isfinite(light).all():
        raise ValueError("it holds values that are not finite")
    return light.clip(0)


def encode_light(light: np.ndarray, extension: str) -> bytes:
    """The content of a file.

    Args:
        light (`np.ndarray` of shape (H, W, C)): float32, finite, at least 0; C is 1, 3, or with transparency 2 or 4.
        extension (`str`): .hdr or .exr. OpenEXR files get 16-bit floats, or 32 bits where the light needs them.

    Raises:
        ValueError: for transparency in a Radiance file, which has none.
        ImportError: for .exr without the package OpenEXR.
    """
    if extension == ".exr":
        return _encode_exr(light)
    if light.shape[2] in (2, 4):
        raise ValueError("Radiance files (.hdr) have no transparency: write .exr")
    return encode_radiance(light.repeat(3, axis=2) if light.shape[2] == 1 else light)


def _openexr():
    if find_spec("OpenEXR") is None:
        raise ImportError("OpenEXR files (.exr) need the package OpenEXR: pip install diffusers_ext[hdr]")
    import OpenEXR

    return OpenEXR


def _read_exr(path: str | os.PathLike) -> np.ndarray:
    library = _openexr()
    try:
        with library.File(os.fspath(path), separate_channels=True) as file:
            channels = {name: channel.pixels.astype(np.float32) for name, channel in file.channels().items()}
    except RuntimeError as error:
        raise ValueError(f"it can't be read as an OpenEXR file: {' '.join(str(error).split())}") from error
    names = next((names for names in (("R", "G", "B"), ("Y",)) if set(names) <= channels.keys()), None)
    if names is None:
        raise ValueError(f"it must have the channels R, G and B, or Y, but has {', '.join(sorted(channels))}")
    return np.stack([channels[name] for name in (*names, *(["A"] if "A" in channels else []))], axis=2)


def _encode_exr(light: np.ndarray) -> bytes:
    library = _openexr()
    dtype = np.float16 if light.max() <= np.finfo(np.float16).max else np.float32
    names = {1: "Y", 2: "YA", 3: "RGB", 4: "RGBA"}[light.shape[2]]
    channels = {name: np.ascontiguousarray(light[..., i], dtype) for i, name in enumerate(names)}
    header = {"compression": library.ZIP_COMPRESSION, "type": library.scanlineimage}
    with tempfile.TemporaryDirectory() as folder:  # the library writes files only
        path = Path(folder) / "light.exr"
        with library.File(header, channels) as file:
            file.write(str(path))
        return path.read_bytes()
