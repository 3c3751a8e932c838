"""Images that users pass."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import one_hot

from diffusers_ext.pipelines.films import make_even
from diffusers_ext.pipelines.images import enlarge_images, fit_channels, list_images, read_image
from diffusers_ext.pipelines.masks import read_masks


def to_tensor(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255


def test_colours_of_transparent_pixels_do_not_bleed_out():
    """As in Pillow: a black square on nothing, under which there is invisible green."""
    picture = Image.new("RGBA", (6, 6), (0, 255, 0, 0))
    picture.paste((0, 0, 0, 255), (1, 2, 4, 5))
    enlarged = enlarge_images(to_tensor(picture), (15, 18))
    assert enlarged[:, 1].max() == 0
    theirs = to_tensor(picture.resize((18, 15), Image.Resampling.BICUBIC))
    assert (enlarged - theirs).abs().max() < 1.5 / 255


def test_paths_are_images(tmp_path):
    picture = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    picture.save(tmp_path / "a.png")
    for image in (tmp_path / "a.png", str(tmp_path / "a.png")):
        (read,) = [read_image("image", entry) for entry in list_images("image", image)]
        assert torch.equal(read, read_image("image", picture))
    picture.convert("1").save(tmp_path / "mask.png")
    assert torch.equal(read_masks(tmp_path / "mask.png", 2, 8, 8), read_masks(picture.convert("1"), 2, 8, 8))


@pytest.mark.parametrize("content", [None, b"", b"no image", b"\x89PNG\r\n\x1a\n\0\0"])
def test_files_that_are_no_images_are_refused(tmp_path, content):
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="`image` .*a.png") as caught:
        list_images("image", [path])
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_a_cut_file_is_refused(tmp_path):
    Image.effect_noise((64, 64), 50).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="can't be read as an image: image file is truncated"):
        read_image("image", tmp_path / "a.jpg")


@pytest.mark.parametrize("size", [(7, 5), (8, 5), (7, 6), (8, 6)])
def test_frames_of_odd_sides_are_padded(size):
    picture = Image.effect_noise(size, 50).convert("RGB")
    even = make_even(picture)
    assert even.size == (8, 6)
    assert even.crop((0, 0, *size)).tobytes() == picture.tobytes()
    assert even.getpixel((7, 5)) == picture.getpixel((size[0] - 1, size[1] - 1))


LABELS = torch.arange(12).view(2, 6)


@pytest.mark.parametrize(
    ("label_map", "sentence"),
    [
        (one_hot(LABELS).permute(2, 0, 1).bool(), "`image` is a one-hot label map of 12 classes, but must have 3 cha"),
        (one_hot(LABELS).numpy().astype(np.float32), "`image` is a one-hot label map of 12 classes, but must have 3"),
        (
            one_hot(LABELS).permute(2, 0, 1).numpy().astype(bool),
            r"has 6 \(arrays are \(H, W, C\), tensors \(C, H, W\)\)",
        ),
        (LABELS, "a label map of numbers needs the colours or gray levels that its classes had in training"),
        (LABELS.numpy(), "a label map of numbers needs the colours or gray levels that its classes had in training"),
    ],
)
def test_label_maps_that_are_no_images_are_refused(label_map, sentence):
    with pytest.raises(ValueError, match=sentence):
        fit_channels("image", read_image("image", label_map), 3)
