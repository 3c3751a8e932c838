import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from diffusers_ext.data.png16 import _chunk, encode_png16, read_png16


def pixels(*shape) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 65536, shape, dtype=np.uint16)


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (3, 1), (1, 9), (6, 4, 2), (5, 8, 3), (7, 3, 4), (2, 2, 1)])
def test_what_is_written_is_read(shape, tmp_path):
    (tmp_path / "image.png").write_bytes(encode_png16(pixels(*shape)))
    read = read_png16(tmp_path / "image.png")
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, pixels(*shape).reshape(read.shape))


def test_pillow_and_this_read_each_other(tmp_path):
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encode_png16(pixels(9, 6))))), pixels(9, 6))
    Image.fromarray(pixels(9, 6)).save(tmp_path / "gray.png")  # Pillow chooses a filter for each row
    np.testing.assert_array_equal(read_png16(tmp_path / "gray.png"), pixels(9, 6))
    color = np.asarray(Image.open(io.BytesIO(encode_png16(pixels(9, 6, 3)))))
    np.testing.assert_array_equal(color, pixels(9, 6, 3) >> 8)


@pytest.mark.parametrize("shape", [(5, 4, 3), (1, 6, 3), (7, 1, 3)])
def test_every_filter_is_undone(shape, tmp_path):
    """Filtered byte by byte, as the standard defines it."""
    height, width = shape[:2]
    image, rows = pixels(*shape).astype(">u2").view(np.uint8).reshape(height, -1).astype(int), []
    for y, row in enumerate(image):
        kind, above = y % 5, image[y - 1] if y else np.zeros_like(row)
        left, corner = (np.concatenate([np.zeros(6, int), line[:-6]]) for line in (row, above))
        guess = left + above - corner
        by_distance = np.argsort([abs(guess - left), abs(guess - above), abs(guess - corner)], axis=0, kind="stable")[
            0
        ]
        paeth = np.choose(by_distance, [left, above, corner])
        predicted = [0 * row, left, above, (left + above) // 2, paeth][kind]
        rows.append(bytes([kind]) + ((row - predicted) % 256).astype(np.uint8).tobytes())
    data = zlib.compress(b"".join(rows))
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", data[:10]) + _chunk(b"IDAT", data[10:]) + _chunk(b"IEND", b"")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    np.testing.assert_array_equal(read_png16(tmp_path / "image.png"), pixels(*shape))


def test_other_files_are_left_to_pillow(tmp_path):
    Image.new("RGB", (3, 3)).save(tmp_path / "8.png")
    (tmp_path / "empty.png").write_bytes(b"")
    assert read_png16(tmp_path / "8.png") is None and read_png16(tmp_path / "empty.png") is None


def test_damaged_and_interlaced_files_are_refused(tmp_path):
    content = encode_png16(pixels(5, 5, 3))
    (tmp_path / "short.png").write_bytes(content[:-60])
    with pytest.raises(ValueError, match="damaged"):
        read_png16(tmp_path / "short.png")
    (tmp_path / "changed.png").write_bytes(content[:60] + bytes([content[60] ^ 1]) + content[61:])
    with pytest.raises(ValueError, match="a checksum is wrong"):
        read_png16(tmp_path / "changed.png")
    (tmp_path / "interlaced.png").write_bytes(content[:28] + b"\x01" + content[29:])
    with pytest.raises(ValueError, match="interlaced"):
        read_png16(tmp_path / "interlaced.png")


@pytest.mark.parametrize("array", [np.zeros((2, 2)), np.zeros((2, 2, 5), np.uint16), np.zeros((0, 2), np.uint16)])
def test_other_arrays_are_refused(array):
    with pytest.raises(ValueError, match="pixels must be uint16"):
        encode_png16(array)
