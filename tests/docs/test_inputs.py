"""What the page of inputs says, row by row: a case for each row of its tables, which fails if the row has none."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from PIL import Image, ImageCms
from safetensors.torch import save_file

from diffusers_ext.converters.checkpoint_files import read_state_dict
from diffusers_ext.converters.kohya import from_kohya
from diffusers_ext.data import UnreadableImagesError, load_image_dataset
from diffusers_ext.data.decoding import UnreadableImageError, decode_image
from diffusers_ext.data.light_files import encode_light, read_light
from diffusers_ext.data.png16 import encode_png16, read_png16
from diffusers_ext.data.side_by_side import load_side_by_side_dataset
from diffusers_ext.models import MSRResNet
from diffusers_ext.pipelines import RestorationPipeline
from diffusers_ext.pipelines.masks import read_mask
from diffusers_ext.restore import main as restore
from diffusers_ext.training.text_to_image.base_models import load_base_model
from tests.converters import test_kohya as kohya
from tests.data.drawing import draw, write_images
from tests.pipelines import test_masks as masks


PAGE = (Path(__file__).parents[2] / "docs" / "inputs.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.split(f"## {title}", 1)[1].split("\n## ", 1)[0]


def rows(title: str) -> list[str]:
    """The first cells of a section's table."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [line.split("|")[1].strip() for line in lines[2:]]


def encoded(image: Image.Image, file_format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def pixels(image: Image.Image, file_format: str = "PNG", channels: int = 3, **options) -> torch.Tensor:
    return decode_image(encoded(image, file_format, **options), channels)


def batch(**options) -> dict[str, torch.Tensor]:
    return next(load_image_dataset(**{"resolution": 8, **options}).reference_batches(2))


# Images


def raster_formats(tmp_path, monkeypatch):
    formats = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "TGA", "JPEG2000")
    assert all(pixels(draw(0), file_format).shape == (3, 8, 8) for file_format in formats)
    red, blue = (Image.new("RGB", (4, 4), color) for color in ("red", "blue"))
    assert torch.equal(pixels(red, "GIF", save_all=True, append_images=[blue]), pixels(red))


def heif(tmp_path, monkeypatch):
    write_images(tmp_path, "a.png", "b.heic")
    monkeypatch.delitem(Image.EXTENSION, ".heic", raising=False)  # as if no reader for it were installed
    assert len(batch(train_data_dir=str(tmp_path))["pixel_values"]) == 1


def modes(tmp_path, monkeypatch):
    for mode in ("L", "RGB", "CMYK", "P", "1"):
        image = draw(0).convert(mode)
        expected = np.array(image.convert("RGB"))
        assert np.array_equal(pixels(image, "TIFF").permute(1, 2, 0), expected)


def sixteen_bits(tmp_path, monkeypatch):
    levels = Image.fromarray(np.array([[0, 257, 65535]], dtype=np.uint16))
    assert pixels(levels, channels=1).tolist() == [[[0, 1, 255]]]


def transparency(tmp_path, monkeypatch):
    image = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    assert (pixels(image) == 255).all() and (pixels(image, channels=4) == 0).all()
    assert (pixels(image, channels=2) == 0).all()


def orientation(tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x112] = 6
    assert pixels(draw(0, 4, 6), exif=exif).shape == (3, 6, 4)


def profiles(tmp_path, monkeypatch):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert torch.equal(pixels(draw(0), icc_profile=profile), pixels(draw(0)))


def broken_metadata(tmp_path, monkeypatch):
    content = encoded(draw(0), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert torch.equal(decode_image(content, 3), pixels(draw(0), "JPEG"))


def documents(tmp_path, monkeypatch):
    for content in (
        encoded(Image.new("F", (4, 4)), "TIFF"),
        encoded(draw(0), "EPS"),
        encoded(draw(0), "PDF"),
    ):
        with pytest.raises(UnreadableImageError):
            decode_image(content, 3)


def damaged_images(tmp_path, monkeypatch):
    write_images(tmp_path, "a.png", "b.png")
    (tmp_path / "c.png").write_bytes(encoded(draw(2), "PNG")[:60])
    with pytest.raises(UnreadableImagesError, match="c.png"):
        batch(train_data_dir=str(tmp_path))
    dataset = load_image_dataset(train_data_dir=str(tmp_path), resolution=8, skip_unreadable_images=True)
    assert sum(len(b["pixel_values"]) for b in dataset.reference_batches(2)) == 2 and dataset.num_skipped == 1


def large_images(tmp_path, monkeypatch):
    with pytest.raises(UnreadableImageError, match="exceeds limit of 63 pixels"):
        decode_image(encoded(draw(0), "PNG"), 3, max_pixels=63)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 31)  # Pillow refuses twice this number
    with pytest.raises(UnreadableImageError, match="raise --max_image_pixels"):
        decode_image(encoded(draw(0), "PNG"), 3)


IMAGES = {
    "PNG, JPEG, WebP, TIFF, BMP, GIF and the other raster formats of Pillow": raster_formats,
    "HEIC, HEIF": heif,
    "gray, RGB, CMYK, palettes, 1 bit": modes,
    "16 bits, gray": sixteen_bits,
    "transparency": transparency,
    "EXIF orientation": orientation,
    "ICC profiles": profiles,
    "broken EXIF, XMP, text or profile beside intact pixels": broken_metadata,
    "float images, EPS, PDF and other documents": documents,
    "damaged or cut files": damaged_images,
    "more than 179 million pixels": large_images,
}


# Data sets


def folders(tmp_path, monkeypatch):
    flat = write_images(tmp_path / "flat", "a.png", "b.png")
    classes = write_images(tmp_path / "classes", "cat/a.png", "dog/b.png")
    splits = write_images(tmp_path / "splits", "train/cat/a.png", "train/dog/b.png", "test/cat/c.png")
    assert set(batch(train_data_dir=str(flat))) == {"pixel_values"}
    for folder in (classes, splits):
        assert batch(train_data_dir=str(folder))["class_labels"].tolist() == [0, 1]


def bitmaps(tmp_path, monkeypatch):
    values = np.random.default_rng(0).integers(0, 256, (2, 8, 8), dtype=np.uint8)
    (tmp_path / "train").mkdir()
    np.save(tmp_path / "train" / "cat.npy", values[:1])
    np.save(tmp_path / "train" / "dog.npy", values[1:].reshape(1, 64))
    read = batch(train_data_dir=str(tmp_path), channels=1)
    assert read["class_labels"].tolist() == [0, 1]
    assert torch.equal(read["pixel_values"][:, 0], torch.from_numpy(values))


def captions_of(**options) -> list[str]:
    return load_image_dataset(resolution=8, caption_column="text", **options).captions


def metadata_files(tmp_path, monkeypatch):
    table = Dataset.from_dict({"file_name": ["a.png", "b.png"], "text": ["007", "two\nlines"]})
    for ending, write in (("csv", table.to_csv), ("jsonl", table.to_json), ("parquet", table.to_parquet)):
        folder = write_images(tmp_path / ending, "a.png", "b.png")
        write(folder / f"metadata.{ending}")
        assert set(captions_of(train_data_dir=str(folder))) == {"007", "two\nlines"}


def text_files(tmp_path, monkeypatch):
    write_images(tmp_path, "a.png", "b.png")
    (tmp_path / "a.txt").write_text("one\nuno")
    (tmp_path / "b.txt").write_text("two")
    assert set(captions_of(train_data_dir=str(tmp_path))) == {"one", "uno", "two"}


def stored_sets(tmp_path, monkeypatch):
    table = Dataset.from_dict({"image": [draw(0), draw(1)], "label": ["cat", "dog"]})
    (tmp_path / "parquet").mkdir()
    table.to_parquet(tmp_path / "parquet" / "train.parquet")
    DatasetDict({"train": table}).save_to_disk(tmp_path / "saved")
    (tmp_path / "webdataset").mkdir()
    with tarfile.open(tmp_path / "webdataset" / "train.tar", "w") as tar:
        for name in ("0.png", "1.png"):
            tar.add(write_images(tmp_path / "loose", name) / name, name)
    assert len(batch(train_data_dir=str(tmp_path / "webdataset"), image_column="png")["pixel_values"]) == 2
    for name in ("parquet", "saved"):
        for option in ("train_data_dir", "dataset_name"):
            assert batch(**{option: str(tmp_path / name)})["class_labels"].tolist() == [0, 1]


def pairs(tmp_path, monkeypatch):
    images, others = (
        write_images(tmp_path / "images", "a.png", "b.png"),
        write_images(tmp_path / "c", "b.jpg", "a.jpg"),
    )
    by_folder = batch(train_data_dir=str(images), conditioning_image_dir=str(others))
    assert torch.equal(by_folder["conditioning_pixel_values"], by_folder["pixel_values"].flip(0))
    table = Dataset.from_dict({"image": [draw(0)], "sketch": [draw(1)]})
    table.to_parquet(tmp_path / "pairs.parquet")
    (tmp_path / "parquet").mkdir()
    (tmp_path / "pairs.parquet").rename(tmp_path / "parquet" / "train.parquet")
    by_column = batch(train_data_dir=str(tmp_path / "parquet"), conditioning_image_column="sketch")
    assert not torch.equal(by_column["conditioning_pixel_values"], by_column["pixel_values"])
    (tmp_path / "both").mkdir()
    draw(0, 8, 16).save(tmp_path / "both" / "a.png")
    dataset = load_side_by_side_dataset(8, train_data_dir=str(tmp_path / "both"))
    assert next(dataset.reference_batches(1))["conditioning_pixel_values"].shape == (1, 3, 8, 8)


def label_maps(tmp_path, monkeypatch):
    images = write_images(tmp_path / "images", "a.png")
    (tmp_path / "maps").mkdir()
    labels = np.random.default_rng(0).integers(0, 2, (24, 24), dtype=np.uint8)
    Image.fromarray(labels).save(tmp_path / "maps" / "a.png")
    for kind, num_colors in (("colors", 2), ("levels", 2)):
        shown = batch(
            train_data_dir=str(images), conditioning_image_dir=str(tmp_path / "maps"), conditioning_label_maps=kind
        )["conditioning_pixel_values"][0]
        assert len(shown.flatten(1).unique(dim=1).T) == num_colors  # resized, and nothing in between


def instance_maps(tmp_path, monkeypatch):
    images = write_images(tmp_path / "images", "a.png")
    folders = {"conditioning_image_dir": "maps", "instance_map_dir": "objects"}
    objects = np.arange(24 * 24, dtype=np.uint16).reshape(24, 24) // 64 * 300
    for folder, pixels_of_map in (("maps", np.zeros((24, 24), np.uint8)), ("objects", objects)):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels_of_map).save(tmp_path / folder / "a.png")
    options = {name: str(tmp_path / folder) for name, folder in folders.items()}
    options |= {"conditioning_label_maps": "levels", "resolution": 24, "train_data_dir": str(images)}
    (found,) = batch(**options)["instance_pixel_values"]
    upper, lower = found.long()
    assert torch.equal(upper * 256 + lower, torch.from_numpy(objects // 300).long())
    with pytest.raises(ValueError, match="instance maps are for label maps"):
        batch(**{**options, "conditioning_label_maps": None})


DATA_SETS = {
    "a folder of images; a folder for each class; folders named like splits": folders,
    "gray images in .npy files, uint8 (N, H, W), or (N, D) for square ones; folders named like splits": bitmaps,
    "`metadata.csv`, `.jsonl` or `.parquet` with `file_name` and further columns": metadata_files,
    "a text file beside each image": text_files,
    "parquet, webdataset, `save_to_disk`, a data set of the Hub": stored_sets,
    "pairs": pairs,
    "label maps as conditioning images": label_maps,
    "maps of objects beside label maps": instance_maps,
}


# Files to restore


def restored(folder: Path) -> tuple[Path, list[str]]:
    """The folder of the results of a command, and the files that it skipped; the network changes nothing."""
    network = MSRResNet(base_channels=1, num_blocks=0, scale=1)
    torch.nn.init.zeros_(network.conv_out.weight)
    RestorationPipeline(network).save_pretrained(folder / "model")
    command = [str(folder / "in"), str(folder / "out"), "--model", str(folder / "model"), "--device", "cpu"]
    restore([*command, "--report", str(folder / "report.json")])
    return folder / "out", list(json.loads((folder / "report.json").read_text())["skipped"])


def restored_images(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    draw(0).save(tmp_path / "in" / "a.webp", lossless=True)
    levels = np.arange(2 * 3 * 4, dtype=np.uint16).reshape(2, 3, 4) * 2000
    (tmp_path / "in" / "b.png").write_bytes(encode_png16(levels))
    out, skipped = restored(tmp_path)
    assert np.array_equal(np.asarray(Image.open(out / "a.png")), np.asarray(draw(0))) and not skipped
    assert np.array_equal(read_png16(out / "b.png"), levels)


def restored_light(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    light = np.random.default_rng(0).random((4, 5, 3), dtype=np.float32) * 100
    for extension in (".hdr", ".exr"):
        (tmp_path / "in" / f"a{extension}").write_bytes(encode_light(light, extension))
    out, skipped = restored(tmp_path)
    assert not skipped
    assert all(np.abs(read_light(out / f"a{extension}") - light).max() < 1 for extension in (".hdr", ".exr"))


def skipped_files(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(encoded(draw(0), "JPEG")[:100])
    (tmp_path / "in" / "b.hdr").write_bytes(b"#?RADIANCE")
    (tmp_path / "in" / "c.txt").write_text("text")
    _, skipped = restored(tmp_path)
    assert [Path(name).name for name in skipped] == ["a.jpg", "b.hdr", "c.txt"]


RESTORED = {
    "images of the first table, of any size": restored_images,
    "light: Radiance (.hdr), OpenEXR (.exr) with R, G and B or Y": restored_light,
    "damaged files, and files that are no images": skipped_files,
}
CASES = {
    "Images": IMAGES,
    "Data sets": DATA_SETS,
    "Files to restore (`python -m diffusers_ext.restore`)": RESTORED,
}


@pytest.mark.parametrize("title", CASES)
def test_each_row_has_a_case(title):
    assert rows(title) == list(CASES[title])


@pytest.mark.parametrize(
    "case", [case for cases in CASES.values() for case in cases.values()], ids=lambda case: case.__name__
)
def test_images_and_data_sets(case: Callable, tmp_path, monkeypatch):
    case(tmp_path, monkeypatch)


# Masks


MASKS = {
    "black and\nwhite": masks.painting("L", 255),
    "boolean": masks.integers(bool, 1),
    "gray from 0 to 255": masks.painting("L", 100),
    "16 bits": masks.painting("I;16", 65535),
    "palettes": masks.palette_map(7, (64, 0, 0)),
    "a brush of any colour": masks.painting("RGB", (0, 255, 0)),
    "label maps with one label": masks.integers(np.int64, 7),
    "a transparent\nlayer": masks.painting("RGBA", (255, 0, 0, 255), (0, 0, 0, 0)),
}


@pytest.mark.parametrize("form", MASKS)
def test_masks(form):
    assert form in section("Masks and images of pipelines")
    assert read_mask(MASKS[form], 8, 8).sum() == 24


@pytest.mark.parametrize("mask", [np.zeros((8, 8)), np.arange(64, dtype=np.uint8).reshape(8, 8) % 3])
def test_masks_that_select_nothing_or_are_not_clear(mask):
    with pytest.raises(ValueError, match="`mask_image`"):
        read_mask(mask, 8, 8)


# LoRA files and checkpoints

LAYER = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"


def test_lora_files():
    pipe, state = kohya.pipeline("sd1"), kohya.kohya_file()
    accepted = {
        "with alphas": state,
        "or without": {key: value for key, value in state.items() if not key.endswith("alpha")},
        "DoRA with a magnitude for each output": {**state, f"{LAYER}.dora_scale": torch.ones(16, 1)},
    }
    refused = {
        "LoHa": {**state, f"{LAYER}.hada_w1_a": torch.ones(1)},
        "LoKr": {**state, f"{LAYER}.lokr_w1": torch.ones(1)},
        "Tucker decompositions": {**state, f"{LAYER}.lora_mid.weight": torch.ones(1)},
        "incomplete files": {f"{LAYER}.lora_down.weight": torch.ones(2, 16)},
        "files for another base": kohya.kohya_file("sd3"),
        "DoRA with a magnitude for each input": {**state, f"{LAYER}.dora_scale": torch.ones(1, 16)},
    }
    for words, tensors in accepted.items():
        assert words in section("LoRA files")
        assert from_kohya(tensors, pipe)[0]
    for words, tensors in refused.items():
        assert words in section("LoRA files")
        with pytest.raises(ValueError):
            from_kohya(tensors, pipe)


def test_checkpoints(tmp_path):
    tensors = {"a.weight": torch.ones(2, 3)}
    contents = [tensors, {"state_dict": tensors}, {"model_state_dict": tensors}]
    contents += [{f"{prefix}a.weight": torch.ones(2, 3)} for prefix in ("module.", "_orig_mod.")]
    for content in contents:
        for zipped in (True, False):
            torch.save(content, tmp_path / "model.pt", _use_new_zipfile_serialization=zipped)
            assert read_state_dict(tmp_path / "model.pt").keys() == tensors.keys()
    save_file(tensors, tmp_path / "model.safetensors")
    assert read_state_dict(tmp_path / "model.safetensors").keys() == tensors.keys()
    torch.save(torch.nn.Linear(2, 2), tmp_path / "network.pt")
    (tmp_path / "damaged.pt").write_bytes((tmp_path / "model.pt").read_bytes()[:100])
    for name in ("network.pt", "damaged.pt"):
        with pytest.raises(ValueError, match=name):
            read_state_dict(tmp_path / name)


@pytest.mark.parametrize("ending", [".safetensors", ".ckpt"])
def test_base_models_in_a_single_file(tmp_path, ending):
    assert f"`{ending}`" in section("Base models")
    (tmp_path / f"base{ending}").write_bytes(b"")
    with pytest.raises(ValueError, match="is a single file, .*from_single_file"):
        load_base_model(str(tmp_path / f"base{ending}"))
