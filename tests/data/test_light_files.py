"""Files of light, Radiance and OpenEXR: written, read, and refused."""

import numpy as np
import pytest

from diffusers_ext.data.light_files import encode_light, read_light
from diffusers_ext.data.radiance import HEADER


def light(channels: int) -> np.ndarray:
    values = np.random.default_rng(0).random((9, 12, channels), dtype=np.float32) ** 4 * 1000
    values[0, 0] = 0
    return values


@pytest.mark.parametrize("extension, channels", [(".hdr", 3), (".hdr", 1), (".exr", 1), (".exr", 2), (".exr", 4)])
def test_what_is_written_is_read(tmp_path, extension, channels):
    path, values = tmp_path / f"light{extension}", light(channels)
    path.write_bytes(encode_light(values, extension))
    expected = values.repeat(3, axis=2) if extension == ".hdr" and channels == 1 else values
    error = np.abs(read_light(path) - expected) / expected.max(axis=2, keepdims=True).clip(1e-3)
    assert error.max() < (1 / 256 if extension == ".hdr" else 1e-3)
    assert (read_light(path)[0, 0] == 0).all()


def test_bright_light_needs_floats_of_32_bits(tmp_path):
    (tmp_path / "sun.exr").write_bytes(encode_light(np.full((1, 1, 3), 1e9, np.float32), ".exr"))
    assert read_light(tmp_path / "sun.exr").tolist() == [[[1e9] * 3]]


def test_compressed_rows_and_exposures(tmp_path):
    """Two rows of ten pixels, (1, 0.5, 0) at first: runs, and then values one by one; exposed twice as bright."""
    row = b"\x02\x02\x00\x0a" + bytes([138, 128, 138, 64, 10, *[0] * 10, 138, 129])
    head = HEADER.replace(b"\n\n", b"\nEXPOSURE=2\n\n") % (2, 10)
    path = tmp_path / "runs.hdr"
    path.write_bytes(head + row + row)
    np.testing.assert_array_equal(read_light(path), np.broadcast_to(np.float32([0.5, 0.25, 0]), (2, 10, 3)))
    path.write_bytes(head + row + row[:-1])
    with pytest.raises(ValueError, match="too many or too few pixels"):
        read_light(path)
    path.write_bytes(head + row)
    with pytest.raises(ValueError, match="a row has no beginning"):
        read_light(path)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "not a Radiance file"),
        (b"#?RADIANCE\nFORMAT=32-bit_rle_xyze\n\n-Y 1 +X 1\n1234", "not a Radiance file of RGB values"),
        (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n+Y 1 +X 1\n1234", "from the top to the bottom"),
        (HEADER % (2, 2) + b"1234", "must have 16 bytes of pixels, but has 4"),
        (HEADER % (1, 2) + b"\x80\x80\x80\x80\x01\x01\x01\x01", "in the way of 1989"),
    ],
)
def test_other_radiance_files_are_refused(tmp_path, content, message):
    (tmp_path / "a.hdr").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_light(tmp_path / "a.hdr")


def test_other_openexr_files_are_refused(tmp_path):
    path, values = tmp_path / "a.exr", light(3)
    path.write_bytes(encode_light(values, ".exr")[:200])
    with pytest.raises(ValueError, match="can't be read as an OpenEXR file"):
        read_light(path)
    values[1, 1] = np.nan
    path.write_bytes(encode_light(values, ".exr"))
    with pytest.raises(ValueError, match="not finite"):
        read_light(path)
    with pytest.raises(ValueError, match="no transparency"):
        encode_light(light(4), ".hdr")
