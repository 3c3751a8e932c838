"""PNG files of 16 bits per channel, of which Pillow reads and writes only the gray ones.

The format is that of https://www.w3.org/TR/png-3/.
"""

import os
import struct
import zlib

import numpy as np


SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by the colour type of the header
COLOR_TYPES = {count: kind for kind, count in CHANNELS.items()}
UP = 2  # the filter that keeps the difference to the row above


def read_png16(path: str | os.PathLike) -> np.ndarray | None:
    """The pixels of a PNG file of 16 bits; None for any other file.

    Returns:
        `np.ndarray` of shape (H, W) or (H, W, C), uint16, where C is 2 (gray and alpha), 3 or 4.

    Raises:
        ValueError: if the file is damaged or interlaced.
    """
    with open(path, "rb") as file:
        head = file.read(33)
        if len(head) < 33 or not head.startswith(SIGNATURE) or head[24] != 16 or head[25] not in CHANNELS:
            return None
        content = head + file.read()
    width, height, _, color_type, _, _, interlace = struct.unpack_from(">IIBBBBB", content, 16)
    if interlace:
        raise ValueError("it is an interlaced PNG of 16 bits, which is not read")
    pixel_bytes, channels = 2 * CHANNELS[color_type], CHANNELS[color_type]
    try:
        rows = np.frombuffer(zlib.decompress(_image_data(content)), np.uint8).reshape(height, 1 + width * pixel_bytes)
    except (zlib.error, ValueError) as error:
        raise ValueError(f"the PNG is damaged: {error}") from error
    if rows[:, 0].max() > 4:
        raise ValueError("the PNG is damaged: it has an unknown filter")
    pixels = _unfilter(rows[:, 1:].reshape(height, width, pixel_bytes), rows[:, 0])
    pixels = np.ascontiguousarray(pixels).view(">u2").astype(np.uint16)
    return pixels[..., 0] if channels == 1 else pixels


def encode_png16(pixels: np.ndarray) -> bytes:
    """A PNG file of 16 bits per channel.

    Args:
        pixels (`np.ndarray` of shape (H, W) or (H, W, C)): uint16; C is 1, 2 (gray and alpha), 3 or 4.

    Raises:
        ValueError: for another shape or type.
    """
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[2] not in COLOR_TYPES or pixels.size == 0:
        raise ValueError(f"pixels must be uint16 (H, W) or (H, W, 1 to 4), not {pixels.dtype} {pixels.shape}")
    height, width, channels = pixels.shape
    rows = np.ascontiguousarray(pixels, ">u2").view(np.uint8).reshape(height, -1)
    filtered = np.full((height, 1 + rows.shape[1]), UP, np.uint8)
    filtered[:, 1:] = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))
    header = struct.pack(">IIBBBBB", width, height, 16, COLOR_TYPES[channels], 0, 0, 0)
    data = zlib.compress(filtered.tobytes(), 6)
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _image_data(content: bytes) -> bytes:
    """The compressed data, which may be divided among chunks."""
    parts, position = [], len(SIGNATURE)
    while position + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        chunk = content[position + 4 : position + 8 + length]
        if kind == b"IDAT":
            if content[position + 8 + length : position + 12 + length] != struct.pack(">I", zlib.crc32(chunk)):
                raise ValueError("a checksum is wrong")
            parts.append(chunk[4:])
        position += 12 + length
    return b"".join(parts)


def _unfilter(filtered: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """The pixels of filtered rows: what each row's filter predicts from the left, above and above left, added.

    All pixels of a diagonal, from the lower left to the upper right, are computed at once: they depend only on the two
    diagonals before.

    Args:
        filtered (`np.ndarray` of shape (H, W, B)): bytes.
        filters (`np.ndarray` of shape (H,)): none, left, above, their mean, or Paeth's, from 0 to 4.
    """
    height, width, size = filtered.shape
    # A row and a column of zeros stand above and at the left.
    padded = np.zeros((height + 1, width + 1, size), np.uint8)
    known, given = padded.reshape(-1, size), filtered.reshape(-1, size)
    for diagonal in range(height + width - 1):
        first, last = max(0, diagonal - width + 1), min(height - 1, diagonal)
        count = last - first + 1
        # The next row of the diagonal is a row further and a column back.
        place = (first + 1) * (width + 1) + diagonal - first + 1
        here = slice(place, place + count * width, width) if count > 1 else slice(place, place + 1)
        left, above, corner = (
            known[here.start - back : here.stop - back : here.step].astype(np.int16)
            for back in (1, width + 1, width + 2)
        )
        which = filters[first : last + 1, None]
        predicted = np.select(
            [which == 1, which == 2, which == 3, which == 4],
            [left, above, (left + above) >> 1, _paeth(left, above, corner)],
            np.int16(0),
        )
        start = first * width + diagonal - first
        step = max(width - 1, 1)
        added = given[start : start + (count - 1) * step + 1 : step]
        known[here] = (added + predicted) & 255
    return padded[1:, 1:]


def _paeth(left: np.ndarray, above: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """Whichever of the three is nearest to left + above - corner."""
    to_left, to_above, to_corner = abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)
    nearest = np.where(to_above <= to_corner, above, corner)
    return np.where((to_left <= to_above) & (to_left <= to_corner), left, nearest)
