"""Label maps as conditioning images: classes are not mixed, and numbers become colours."""

import numpy as np
import pytest
import torch
from PIL import Image

from diffusers_ext.data import decode_label_colors, load_image_dataset
from diffusers_ext.data.conditions import default_palette
from diffusers_ext.data.decoding import UnreadableImageError
from diffusers_ext.training.restoration.tasks import RestorationConfig
from diffusers_ext.training.translation.translation_recipe import TranslationConfig

from .drawing import draw


CLASSES = [0, 1, 7, 11]
OWN_COLORS = [(255 - label, label, 90 + label // 2) for label in range(256)]


def labels(number: int) -> np.ndarray:
    """Classes of random rectangles."""
    return np.kron(np.random.default_rng(number).choice(CLASSES, (6, 5)), np.ones((8, 9))).astype(np.uint8)


def label_map(number: int, mode: str) -> Image.Image:
    numbers = labels(number)
    if mode == "RGB":
        return Image.fromarray(np.array(OWN_COLORS, dtype=np.uint8)[numbers])
    if mode == "I;16":
        return Image.fromarray(numbers.astype(np.uint16))
    image = Image.fromarray(numbers)
    if mode == "gray P":  # what a PNG file with a palette of numbers shows
        image.putpalette([level for level in range(256) for _ in range(3)])
    elif mode == "P":
        image.putpalette([channel for colour in OWN_COLORS for channel in colour])
    else:
        image = image.convert(mode)
    return image


def write_pairs(folder, mode: str, names=("photos", "labels")):
    for number in range(3):
        for name, image in zip(names, (draw(number, 48, 45), label_map(number, mode)), strict=True):
            (folder / name).mkdir(exist_ok=True)
            image.save(folder / name / f"{number}.{'tif' if mode == 'I' else 'png'}")
    return {"train_data_dir": str(folder / names[0]), "conditioning_image_dir": str(folder / names[1])}


def colors_of(images: torch.Tensor) -> set[tuple[int, ...]]:
    return set(map(tuple, images.movedim(1, -1).reshape(-1, 3).tolist()))


@pytest.mark.parametrize("mode", ["L", "I", "I;16", "gray P", "P", "RGB"])
@pytest.mark.parametrize("way", [{"cache_images": True}, {"streaming": True}])
def test_resizing_adds_no_colours(tmp_path, mode, way):
    folders = write_pairs(tmp_path, mode)
    dataset = load_image_dataset(**folders, **way, resolution=13, conditioning_label_maps="colors")
    expected = OWN_COLORS if mode in ("P", "RGB") else default_palette()
    maps = next(dataset.reference_batches(3))["conditioning_pixel_values"]
    assert colors_of(maps) == {expected[label] for label in CLASSES}
    batch = next(dataset.batches(6, seed=1))["conditioning_pixel_values"]
    assert colors_of(((batch + 1) * 127.5).round().int()) == {expected[label] for label in CLASSES}
    if mode == "RGB":
        blended = next(load_image_dataset(**folders, **way, resolution=13).reference_batches(3))
        assert len(colors_of(blended["conditioning_pixel_values"])) > 10


def test_black_and_white_and_numbers_that_have_no_colour():
    mask = Image.fromarray(np.array([[True, False]]))
    assert decode_label_colors(mask).flatten(1).T.tolist() == [list(default_palette()[1]), [0, 0, 0]]
    with pytest.raises(UnreadableImageError, match="from 0 to 255, not 300 to 300"):
        decode_label_colors(Image.fromarray(np.full((2, 2), 300, dtype=np.uint16)))
    with pytest.raises(UnreadableImageError, match="one channel of integers, but this image is F"):
        decode_label_colors(Image.fromarray(np.zeros((2, 2), dtype=np.float32)))


def test_label_maps_beside_their_images_in_one_file(tmp_path):
    for number in range(2):
        pair = Image.new("RGB", (90, 48))
        pair.paste(label_map(number, "RGB"), (0, 0))
        pair.paste(draw(number, 48, 45), (45, 0))
        pair.save(tmp_path / f"{number}.png")
    config = TranslationConfig(
        method="pix2pix", side_by_side=True, train_data_dir=str(tmp_path), conditioning_label_maps="colors"
    )
    batch = next(config.load_dataset((13, 13), 3).reference_batches(2))
    assert colors_of(batch["conditioning_pixel_values"]) <= set(OWN_COLORS)
    assert len(colors_of(batch["pixel_values"])) > 100


def test_translation_and_palette_take_label_maps(tmp_path):
    folders = write_pairs(tmp_path, "L")
    options = {**folders, "conditioning_label_maps": "colors"}
    for config in (
        TranslationConfig(method="pix2pix", **options),
        RestorationConfig(tasks=["translation"], **options),
    ):
        maps = next(config.load_dataset((13, 13), 3).reference_batches(3))["conditioning_pixel_values"]
        assert colors_of(maps) == {default_palette()[label] for label in CLASSES}
        with pytest.raises(ValueError, match="--conditioning_label_maps colors needs images of 3 channels, not of 1"):
            config.load_dataset((13, 13), 1)
    with pytest.raises(ValueError, match="--conditioning_label_maps must be colors or levels, not 'one_hot'"):
        load_image_dataset(**folders, conditioning_label_maps="one_hot")
    with pytest.raises(ValueError, match="--conditioning_label_maps is for conditioning images: name them by"):
        TranslationConfig(method="pix2pix", inputs="edges", conditioning_label_maps="colors")
