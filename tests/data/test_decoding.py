import io
import random
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from diffusers_ext.data import UnreadableImagesError, decode_image, decode_label_colors, load_image_dataset
from diffusers_ext.data.decoding import UnreadableImageError
from diffusers_ext.training.loop.configuration import DataConfig
from diffusers_ext.training.translation.translation_recipe import TranslationConfig


RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encode(image: Image.Image, format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def pixels(value, channels: int) -> list:
    """Images as rows of pixels, the form of the expected values below."""
    decoded = decode_image(value, channels)
    assert decoded.dtype == torch.uint8 and decoded.shape[0] == channels
    rows = decoded.permute(1, 2, 0).tolist()
    return [[pixel[0] if channels == 1 else tuple(pixel) for pixel in row] for row in rows]


def image_of(mode: str, *row) -> Image.Image:
    image = Image.new(mode, (len(row), 1))
    image.putdata(row)
    return image


def test_rgb_in_every_mode_of_a_model():
    data = encode(image_of("RGB", RED, (10, 20, 30)))
    assert pixels(data, 3) == [[RED, (10, 20, 30)]]
    assert pixels(data, 4) == [[(*RED, 255), (10, 20, 30, 255)]]
    assert pixels(data, 1) == [[76, 18]]  # ITU-R 601: 0.299 R + 0.587 G + 0.114 B
    assert pixels(data, 2) == [[(76, 255), (18, 255)]]


@pytest.mark.parametrize("mode, row, gray", [("1", (0, 255), [0, 255]), ("L", (0, 77), [0, 77])])
def test_grayscale(mode, row, gray):
    data = encode(image_of(mode, *row))
    assert pixels(data, 1) == [gray]
    assert pixels(data, 2) == [[(value, 255) for value in gray]]
    assert pixels(data, 3) == [[(value,) * 3 for value in gray]]
    assert pixels(data, 4) == [[(value, value, value, 255) for value in gray]]


def test_transparency_is_composited_over_white_or_kept():
    data = encode(image_of("RGBA", (255, 0, 0, 255), (0, 0, 255, 0), (0, 0, 0, 51)))
    assert pixels(data, 3) == [[RED, WHITE, (204, 204, 204)]]
    assert pixels(data, 1) == [[76, 255, 204]]
    assert pixels(data, 4) == [[(255, 0, 0, 255), (0, 0, 255, 0), (0, 0, 0, 51)]]
    gray = encode(image_of("LA", (100, 255), (0, 0)))
    assert pixels(gray, 1) == [[100, 255]]
    assert pixels(gray, 2) == [[(100, 255), (0, 0)]]
    assert pixels(gray, 3) == [[(100, 100, 100), WHITE]]


def test_palette_with_and_without_transparency():
    image = image_of("P", 0, 1, 2)
    image.putpalette([*RED, *GREEN, *BLUE])
    assert pixels(encode(image), 3) == [[RED, GREEN, BLUE]]
    assert pixels(encode(image), 1) == [[76, 150, 29]]
    assert pixels(encode(image, transparency=1), 3) == [[RED, WHITE, BLUE]]
    assert pixels(encode(image, transparency=bytes([255, 0, 51])), 4) == [[(*RED, 255), (*GREEN, 0), (*BLUE, 51)]]


@pytest.mark.parametrize("mode, row, key", [("RGB", (RED, GREEN), GREEN), ("L", (0, 9), 9)])
def test_a_transparent_colour_of_an_image_without_alpha(mode, row, key):
    assert pixels(encode(image_of(mode, *row), transparency=key), 3)[0][1] == WHITE


def test_cmyk():
    image = image_of("CMYK", (0, 255, 255, 0), (0, 0, 0, 255), (0, 0, 0, 0))
    assert pixels(encode(image, "TIFF"), 3) == [[RED, (0, 0, 0), WHITE]]


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bits_are_scaled_not_clipped(format):
    values = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)
    assert pixels(encode(Image.fromarray(values), format), 1) == [[0, 0, 1, 1, 128, 255]]
    assert pixels(encode(Image.fromarray(values), format), 3)[0][4] == (128, 128, 128)


def test_32_bit_integers_are_16_bit_values_or_refused():
    assert pixels(encode(Image.fromarray(np.array([[0, 65535]], dtype=np.int32)), "TIFF"), 1) == [[0, 255]]
    with pytest.raises(UnreadableImageError, match="above 65535"):
        decode_image(encode(Image.fromarray(np.array([[0, 65536]], dtype=np.int32)), "TIFF"), 1)


def test_floats_are_refused():
    with pytest.raises(UnreadableImageError, match="float image has no defined range"):
        decode_image(encode(Image.fromarray(np.array([[0.5]], dtype=np.float32)), "TIFF"), 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation):
    upright = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    # How a camera stores an upright image with each orientation: EXIF 2.3, tag 274.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(np.ascontiguousarray(stored[orientation])), exif=exif)
    assert pixels(data, 1) == upright.tolist()


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (2, 1), colour) for colour in (RED, BLUE)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels(data, 3) == [[RED, RED]]


def test_what_a_column_may_hold(tmp_path):
    image = image_of("RGB", RED, BLUE)
    path = tmp_path / "a.png"
    image.save(path)
    array = np.asarray(image)
    values = [
        path.read_bytes(),
        str(path),
        f"file://{path}",
        {"bytes": path.read_bytes(), "path": "elsewhere.png"},
        {"bytes": None, "path": str(path)},
        image,
        array,
        array.astype(np.int64),
        array.tolist(),
    ]
    for value in values:
        assert pixels(value, 3) == [[RED, BLUE]]


def test_arrays():
    assert decode_image(np.zeros((3, 5, 7), dtype=np.uint8), 3).shape == (3, 5, 7)
    assert decode_image(np.zeros((5, 7, 3), dtype=np.uint8), 3).shape == (3, 5, 7)
    assert pixels([[0, 255]], 1) == [[0, 255]]
    assert pixels(np.array([[[7], [9]]]), 1) == [[7, 9]]
    assert pixels(np.array([[True, False]]), 1) == [[255, 0]]
    assert pixels(np.array([[65535, 257]], dtype=np.uint16), 1) == [[255, 1]]
    for bad in (np.zeros((2, 2)), np.array([[256]]), np.array([[-1]]), np.zeros(4, int), np.zeros((5, 5, 5), int)):
        with pytest.raises(UnreadableImageError):
            decode_image(bad, 1)


def test_unreadable_images_say_why(tmp_path):
    photo = encode(Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)))
    reasons = {
        "truncated": photo[: len(photo) // 2],
        "not an image": b"once upon a time",
        "the file is empty": b"",
        "there is no image": None,
        "no such file": str(tmp_path / "missing.png"),
    }
    for reason, value in reasons.items():
        with pytest.raises(UnreadableImageError, match=reason):
            decode_image(value, 3)


def test_large_images_are_refused_by_the_limit_and_not_called_damaged(tmp_path, monkeypatch):
    image = encode(Image.new("RGB", (32, 32), RED))
    (tmp_path / "a.png").write_bytes(image)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    sentence = (
        r"\(1024 pixels\) exceeds limit of {} pixels, which guards .* if this is no bomb, raise --max_image_pixels"
    )
    with pytest.raises(UnreadableImageError, match=sentence.format(200)):
        decode_image(image, 3)
    for load in (decode_image, lambda value, channels, limit: decode_label_colors(value, limit)):
        with pytest.raises(UnreadableImageError, match=sentence.format(1023)):
            load(image, 3, 1023)
        assert load(str(tmp_path / "a.png"), 3, 1024).shape == (3, 32, 32)
    assert Image.MAX_IMAGE_PIXELS == 100
    options = {"train_data_dir": str(tmp_path), "resolution": 8}
    with pytest.raises(UnreadableImagesError, match=sentence.format(1000)):
        load_image_dataset(**options, max_image_pixels=1000).prepare()
    load_image_dataset(**options, max_image_pixels=2000).prepare()
    with pytest.raises(ValueError, match="--max_image_pixels must be at least 1, not 0"):
        load_image_dataset(**options, max_image_pixels=0)


def test_the_limit_of_pixels_is_an_option_of_every_data_set(tmp_path):
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (32, 32), RED).save(tmp_path / name)
    options = {"train_data_dir": str(tmp_path), "max_image_pixels": 1000}
    for config in (
        DataConfig(**options),
        DataConfig(**options, streaming=True),
        TranslationConfig(**options, method="cyclegan"),
        TranslationConfig(**options, method="pix2pix", side_by_side=True),
    ):
        with pytest.raises(UnreadableImagesError, match="raise --max_image_pixels"):
            next(config.load_dataset((8, 8), 3).batches(2, seed=0))
    with pytest.raises(ValueError, match="--max_image_pixels must be at least 1, not 0"):
        DataConfig(max_image_pixels=0)


def chunk(kind: bytes, body: bytes, checksum: int | None = None) -> bytes:
    """A part of a PNG file."""
    checksum = zlib.crc32(kind + body) if checksum is None else checksum
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


LARGE = zlib.compress(bytes(2 << 20))  # Pillow reads texts and profiles up to 1 MiB
BROKEN_XMP = b'<x:xmpmeta tiff:Orientation="\xff"'


@pytest.mark.parametrize("place", [33, -12], ids=["before the pixels", "after the pixels"])
@pytest.mark.parametrize(
    "part",
    [
        chunk(b"iCCP", b"icc\0\0" + LARGE),
        chunk(b"zTXt", b"key\0\0" + LARGE),
        chunk(b"iTXt", b"key\0\1\0\0\0" + LARGE),
        chunk(b"tEXt", b"key\0value", checksum=0),
        chunk(b"eXIf", b"junk", checksum=0),
        chunk(b"eXIf", b"junk"),
        chunk(b"eXIf", b"II\x2a\0\xff\xff\xff\xff"),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n  10\nzz")),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + BROKEN_XMP),
        chunk(b"gAMA", b""),
        chunk(b"pHYs", b""),
    ],
    ids=lambda part: f"{part[4:8].decode()} of {len(part)} bytes",
)
def test_broken_metadata_beside_intact_pixels_of_a_png_are_ignored(part, place):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (5, 4, 3), dtype=np.uint8))
    data = encode(image)
    assert torch.equal(decode_image(data[:place] + part + data[place:], 3), decode_image(data, 3))


def test_metadata_that_are_left_out_keep_transparency_and_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    data = encode(image_of("RGB", RED, GREEN), transparency=GREEN, exif=exif)
    damaged = data[:33] + chunk(b"iCCP", b"icc\0\0" + LARGE) + data[33:]
    (tmp_path / "a.png").write_bytes(damaged)
    assert pixels(str(tmp_path / "a.png"), 4) == pixels(data, 4) == [[(*GREEN, 0), (*RED, 255)]]


@pytest.mark.parametrize("exif", [b"junk", b"II\x2a\0\xff\xff\xff\xff", b"", b"MM\0\x2a\0\0\0\x08\0\x09\x01\x12\0\3"])
@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_broken_exif_beside_intact_pixels_is_ignored(format, exif):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 8, 3), dtype=np.uint8))
    with_exif = encode(image, format, exif=b"Exif\0\0" + exif, quality=100)
    assert torch.equal(decode_image(with_exif, 3), decode_image(encode(image, format, quality=100), 3))


class Failing(Image.Image):
    """An image whose reader fails as no reader is expected to."""

    def load(self):
        raise TypeError("expected string or bytes-like object")


def test_a_reader_may_fail_in_any_way():
    with pytest.raises(UnreadableImageError, match="expected string or bytes-like object"):
        decode_image(Failing(), 3)


def test_a_machine_without_memory_is_not_the_fault_of_an_image(monkeypatch):
    def without_memory(*arguments):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", without_memory)
    with pytest.raises(MemoryError):
        decode_image(Image.new("L", (4, 4)), 3)


def test_postscript_is_never_run():
    with pytest.raises(UnreadableImageError, match="not an image"):
        decode_image(encode(Image.new("RGB", (4, 4)), "EPS"), 3)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA"])
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_give_an_image_or_the_one_error(format):
    choose = random.Random(0)
    data = encode(Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 10, 3), dtype=np.uint8)), format)
    refused = 0
    for _ in range(60):
        damaged = bytearray(data[: choose.randrange(1, len(data))])
        for _ in range(choose.randrange(6)):
            damaged[choose.randrange(len(damaged))] = choose.randrange(256)
        try:
            decode_image(bytes(damaged), 3)
        except UnreadableImageError:
            refused += 1
    assert refused > 20
