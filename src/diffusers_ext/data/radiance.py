"""Radiance's picture files (.hdr), whose pixels are light: three bytes with an exponent in common.

Ward 1991 ("Real pixels"), in the form that https://www.radiance-online.org/ describes.
"""

import os
import re

import numpy as np


HEADER = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y %d +X %d\n"
RUN_WIDTHS = range(8, 32768)  # rows of these widths may be compressed


def read_radiance(path: str | os.PathLike) -> np.ndarray:
    """The light in a Radiance file, divided by the exposure that its header names.

    Returns:
        `np.ndarray` of shape (H, W, 3), float32, at least 0.

    Raises:
        ValueError: if it is another file, damaged, of the colour space XYZ, turned, or compressed in the way of 1989.
    """
    with open(path, "rb") as file:
        content = file.read()
    match = re.match(rb"#\?.*?\n\n([^\n]*)\n", content, re.DOTALL)
    size = re.fullmatch(rb"-Y (\d{1,6}) \+X (\d{1,6})", match[1]) if match else None
    if size is None or b"FORMAT=32-bit_rle_rgbe" not in match[0]:
        raise ValueError("it is not a Radiance file of RGB values whose rows go from the top to the bottom")
    height, width = int(size[1]), int(size[2])
    exposure = np.prod([float(value) for value in re.findall(rb"\nEXPOSURE=\s*([0-9.eE+-]+)", match[0])])
    if not (height and width and exposure > 0):
        raise ValueError("the Radiance file is damaged: its size and exposure must be positive")
    pixels = _read_pixels(np.frombuffer(content, np.uint8, offset=match.end()), height, width)
    scales = np.ldexp(np.float32(1 / exposure), pixels[..., 3:].astype(np.int32) - 136)
    return pixels[..., :3] * np.where(pixels[..., 3:] > 0, scales, 0)


def encode_radiance(light: np.ndarray) -> bytes:
    """A Radiance file, with eight bits for the brightest of the three values of a pixel.

    Args:
        light (`np.ndarray` of shape (H, W, 3)): finite, at least 0 and below 2^127.
    """
    pixels = np.empty((*light.shape[:2], 4), np.uint8)
    for row, values in zip(pixels, light, strict=True):  # so that a large image takes little memory
        exponents = np.frexp(values.max(axis=1, keepdims=True))[1].clip(-127)
        row[:, :3] = np.ldexp(values.astype(np.float64), 8 - exponents).round().clip(0, 255)
        row[:, 3:] = np.where(row[:, :3].any(axis=1, keepdims=True), exponents + 128, 0)
    return HEADER % light.shape[:2] + pixels.tobytes()


def _read_pixels(data: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bytes (H, W, 4), of rows that are compressed or not."""
    if width in RUN_WIDTHS and len(data) >= 4 and _begins_runs(data, 0, width):
        return _read_runs(data, height, width)
    if len(data) != height * width * 4:
        raise ValueError(f"the Radiance file must have {height * width * 4} bytes of pixels, but has {len(data)}")
    pixels = data.reshape(height, width, 4)
    if (pixels[..., :3] == 1).all(axis=2).any():
        raise ValueError("the Radiance file is compressed in the way of 1989, which is not read")
    return pixels


def _begins_runs(data: np.ndarray, place: int, width: int) -> bool:
    return data[place] == data[place + 1] == 2 and int(data[place + 2]) * 256 + int(data[place + 3]) == width


def _read_runs(data: np.ndarray, height: int, width: int) -> np.ndarray:
    """Rows of four planes, each of runs: 128 + n and a byte that is there n times, or n and so many bytes."""
    pixels, content, place = np.empty((height, 4, width), np.uint8), data.tobytes(), 0
    for row in pixels:
        if place + 4 > len(content) or not _begins_runs(data, place, width):
            raise ValueError("the Radiance file is damaged: a row has no beginning")
        place += 4
        for plane in row:
            filled = 0
            while filled < width:
                count = content[place] if place < len(content) else 0
                is_run = count > 128
                count = count - 128 if is_run else count
                values = content[place + 1 : place + 2] * count if is_run else content[place + 1 : place + 1 + count]
                if count == 0 or len(values) != count or filled + count > width:
                    raise ValueError("the Radiance file is damaged: a row has too many or too few pixels")
                plane[filled : filled + count] = np.frombuffer(values, np.uint8)
                filled += count
                place += 2 if is_run else 1 + count
    return pixels.transpose(0, 2, 1)
