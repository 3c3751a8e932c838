"""What controls read of what a page sends, and what they refuse."""

import io
import math
import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from diffusers_ext.demo.controls import (
    Choice,
    Directions,
    Film,
    Integer,
    LabelMap,
    Number,
    PaintedPicture,
    Picture,
    Seed,
    Switch,
    Text,
)
from diffusers_ext.pipelines.latent_directions import LatentDirections
from tests.demo.kinds import draw_layer, draw_picture, write, write_film


@pytest.mark.parametrize("sent", [0, 65, -3, 1e30, 2.5, True, None, "", "7", math.nan, math.inf, [1], {}])
def test_integers_refuse_all_else_in_a_sentence(sent):
    with pytest.raises(ValueError, match=r"^Pictures must be an? .*, but is .*\.$"):
        Integer("Pictures", 4, 1, 64).read(sent)


def test_integers_and_numbers():
    assert Integer("Pictures", 4, 1, 64).read(7.0) == 7 and Number("Guidance", 1.0, 0, 20).read(2.5) == 2.5
    assert Number("Truncation", None, 0.1, 2).read(" ") is None
    assert Number("Truncation", None, 0.1, 2).read("0.5") == 0.5
    with pytest.raises(ValueError, match="Truncation must be a number from 0.1 to 2, but is 'half'."):
        Number("Truncation", None, 0.1, 2).read("half")


def test_seeds():
    assert Seed().read("12") == 12 and Seed().read(str(2**32 - 1)) == 2**32 - 1
    assert len({Seed().read("") for _ in range(9)}) > 1
    for sent in ("-1", "1.5", "4294967296", "1e400", "nan", "abc", "9" * 400):
        with pytest.raises(ValueError, match="^Seed must be an? "):
            Seed().read(sent)


def test_choices_switches_and_texts():
    choice = Choice("Class", {"any": None, "seven": 7})
    assert choice.read("seven") == 7 and choice.read("any") is None
    for control, sent in ((choice, "eight"), (choice, ["any"]), (Switch("On"), 1), (Text("Prompt"), 3)):
        with pytest.raises(ValueError, match=f"^{control.label} must be "):
            control.read(sent)
    with pytest.raises(ValueError, match="at most 2000 characters"):
        Text("Prompt").read("a" * 2001)
    with pytest.raises(ValueError, match="Prompt is empty"):
        Text("Prompt", is_required=True).read("  ")


def test_long_nonsense_is_cut():
    with pytest.raises(ValueError) as error:
        Integer("Pictures", 4, 1, 64).read("9" * 10_000)
    assert len(str(error.value)) < 200


def turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    buffer = io.BytesIO()
    draw_picture((20, 12)).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def encode(picture: Image.Image, file_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format)
    return buffer.getvalue()


def upload(content: bytes, folder) -> SimpleNamespace:
    (folder / "upload.png").write_bytes(content)
    return SimpleNamespace(path=str(folder / "upload.png"))


def test_pictures_of_all_kinds_come_out_right(tmp_path):
    picture = Picture("Picture")
    assert picture.read(upload(turned(tmp_path), tmp_path)).size == (12, 20)
    gray = picture.read(upload(encode(draw_picture(mode="L")), tmp_path))
    assert gray.mode == "RGB" and gray.getpixel((0, 0)) == draw_picture(mode="L").convert("RGB").getpixel((0, 0))
    deep = Image.fromarray(np.full((12, 20), 32896, dtype=np.uint16))
    assert picture.read(upload(encode(deep), tmp_path)).getpixel((0, 0)) == (128, 128, 128)
    transparent = upload(encode(Image.new("RGBA", (20, 12), (255, 0, 0, 0))), tmp_path)
    assert picture.read(transparent).getpixel((0, 0)) == (255, 255, 255)
    assert Picture("Picture", 4).read(transparent).getpixel((0, 0)) == (255, 0, 0, 0)
    assert Picture("Picture", 1).read(upload(encode(draw_picture(mode="P")), tmp_path)).mode == "L"


def test_label_maps_keep_their_numbers_and_films_their_frames(tmp_path):
    label_map = Image.new("P", (2, 1))
    label_map.putpalette([0, 0, 0, 250, 250, 250, 9, 9, 9])
    label_map.putdata([2, 1])
    read = LabelMap("Label map").read(write(label_map, tmp_path))
    assert read.mode == "L" and list(read.getdata()) == [2, 1]
    with pytest.raises(ValueError, match="^Label map can't be read: "):
        LabelMap("Label map").read(write(draw_picture(), tmp_path))
    frames = Film("Film", 1).read(write_film(tmp_path))
    assert [frame.mode for frame in frames] == ["L", "L"] and frames[0].tobytes() != frames[1].tobytes()


def test_files_of_directions_are_read_and_others_are_refused(tmp_path):
    directions = LatentDirections({"larger": torch.ones(3)}, "latents", "fingerprint")
    directions.save(tmp_path / "found.safetensors")
    assert (
        Directions("Directions").read(SimpleNamespace(path=str(tmp_path / "found.safetensors")))["larger"].sum() == 3
    )
    for sent, sentence in (
        (write(draw_picture(), tmp_path), "find_directions.py has not written this file"),
        (None, "upload a file"),
    ):
        with pytest.raises(ValueError, match=sentence) as error:
            Directions("Directions").read(sent)
        assert str(tmp_path) not in str(error.value)


def bomb(side: int) -> bytes:
    """A PNG of a few hundred bytes that says that it has `side` x `side` pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"just words, renamed to .png", "not an image"),
        (b"", "can't be read"),
        (bomb(60_000), "exceeds limit of 50000000 pixels"),
        (encode(draw_picture())[:-30], "can't be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
    ],
    ids=["text", "empty", "bomb", "cut", "eps", "svg"],
)
def test_files_that_are_no_pictures_are_refused(content, reason, tmp_path):
    with pytest.raises(ValueError, match=reason) as error:
        Picture("Picture").read(upload(content, tmp_path))
    assert str(error.value).startswith("Picture can't be read: ") and str(tmp_path) not in str(error.value)


def test_missing_pictures():
    with pytest.raises(ValueError, match="Picture is missing: upload a picture."):
        Picture("Picture").read(None)
    assert Picture("Picture", is_required=False).read(None) is None
    with pytest.raises(ValueError, match="Picture is missing"):
        PaintedPicture("Picture").read(None)


def painted(folder, *layers, size=(20, 12)) -> SimpleNamespace:
    uploads = [write(layer, folder, f"{i}.png") for i, layer in enumerate(layers)]
    return SimpleNamespace(background=write(draw_picture(size), folder), layers=uploads)


def test_the_mask_is_what_is_painted_on_any_layer(tmp_path):
    layers = [draw_layer(box=(0, 0, 2, 2)), draw_layer(box=(10, 5, 12, 7))]
    picture, mask = PaintedPicture("Picture").read(painted(tmp_path, *layers))
    assert picture.size == mask.size and mask.mode == "L" and np.asarray(mask).astype(bool).sum() == 18
    assert set(np.asarray(mask).flatten()) == {0, 255}


def test_masks_that_select_nothing_or_do_not_fit_are_refused(tmp_path):
    for layers in ([], [draw_layer(box=None)]):
        with pytest.raises(ValueError, match="The mask is empty: paint over what has to be made."):
            PaintedPicture("Picture").read(painted(tmp_path, *layers))
    with pytest.raises(ValueError, match="has 20 x 12 pixels, but its mask 8 x 8"):
        PaintedPicture("Picture").read(painted(tmp_path, draw_layer((8, 8), (1, 1, 3, 3))))
