"""Files that look like pictures and are not used: they are named."""

import itertools
import logging

import pytest
from datasets import Dataset
from PIL import Image

from diffusers_ext.data import load_image_dataset
from diffusers_ext.training.text_to_image.class_images import ClassImages

from .drawing import write_images


def messages(folder, caplog, **options) -> list[str]:
    caplog.set_level(logging.INFO, "diffusers_ext")
    load_image_dataset(train_data_dir=str(folder), resolution=8, **options)
    return [record.getMessage().replace(str(folder), "pictures") for record in caplog.records]


def test_the_number_of_images_is_said(tmp_path, caplog):
    write_images(tmp_path, "train/a.png", "train/b.jpg", "test/c.png")
    for name in ("README.md", "train/a.txt", "notes.txt", "config.yaml", "LICENSE", "film.mp4"):
        (tmp_path / name).write_text("text")
    assert messages(tmp_path, caplog) == ["Images found in 'pictures': 2 (train), 1 (test)."]


def test_pictures_without_a_reader_are_named(tmp_path, caplog, monkeypatch):
    write_images(tmp_path, "a.png", *(f"IMG_{number}.HEIC" for number in range(5)), "scan.cr9", "photo", "icon.svg")
    monkeypatch.delitem(Image.EXTENSION, ".heic", raising=False)  # as if no reader for it were installed
    found, left_out = messages(tmp_path, caplog)
    assert found == "Images found in 'pictures': 1 (train)."
    assert left_out == (
        "Left out of 'pictures', because nothing here reads them: 1 file without extension (photo), 1 .cr9 file "
        "(scan.cr9), 5 .heic files (IMG_0.HEIC, IMG_1.HEIC, IMG_2.HEIC and 2 more; to read them, pip install "
        "diffusers_ext[heif]), 1 .svg file (icon.svg)."
    )


def test_pictures_of_a_class_without_a_reader_are_named(tmp_path, caplog, monkeypatch):
    write_images(tmp_path, "a.png", "b.heic")
    monkeypatch.delitem(Image.EXTENSION, ".heic", raising=False)
    assert len(ClassImages(tmp_path, "a dog", 1, "origin").paths) == 1
    assert "1 .heic file (b.heic; to read them" in caplog.text


def test_a_folder_without_readable_images_says_what_it_has(tmp_path, monkeypatch):
    write_images(tmp_path, "a.heic")
    monkeypatch.delitem(Image.EXTENSION, ".heic", raising=False)
    with pytest.raises(ValueError, match=r"contains neither images .*, only 1 .heic file .a.heic; to read them, pip"):
        load_image_dataset(train_data_dir=str(tmp_path), resolution=8)


def test_images_beside_data_files_are_said(tmp_path, caplog):
    write_images(tmp_path, "preview.png")
    image = (tmp_path / "preview.png").read_bytes()
    Dataset.from_dict({"image": [image]}).to_parquet(tmp_path / "train.parquet")
    left_out = messages(tmp_path, caplog, cache_dir=str(tmp_path / "cache"))
    assert left_out == ["Left out of 'pictures', because it has data files: 1 images (preview.png)."]


def test_images_that_no_metadata_file_names_are_said(tmp_path, caplog):
    write_images(tmp_path, "a.png", "b.png", "edges/a.png", "edges/b.png")
    (tmp_path / "metadata.csv").write_text("file_name,edges_file_name\na.png,edges/a.png\n")
    assert messages(tmp_path, caplog) == [
        "Images found in 'pictures': 1 (train).",
        "Left out of 'pictures', because no metadata file names them: 2 images (b.png, edges/b.png).",
    ]


def test_unreadable_images_that_are_skipped_are_named(tmp_path, caplog):
    write_images(tmp_path, "a.png", "b.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    load_image_dataset(train_data_dir=str(tmp_path), resolution=8, skip_unreadable_images=True).prepare()
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == [f"Images that cannot be read are left out, 1:\n  {tmp_path}/b.png: not an image"]


def test_a_stream_names_each_image_that_it_skips_once(tmp_path, caplog):
    write_images(tmp_path, "a.png", "b.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    dataset = load_image_dataset(
        train_data_dir=str(tmp_path), resolution=8, streaming=True, skip_unreadable_images=True
    )
    list(dataset.reference_batches(2))
    list(itertools.islice(dataset.batches(2, seed=0), 3))
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == [f"Images that cannot be read are left out, 1:\n  {tmp_path}/b.png: not an image"]


def test_photographs_of_phones_are_read_with_the_extra(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    picture = Image.new("RGB", (16, 16), (255, 0, 0))
    pillow_heif.from_pillow(picture).save(str(tmp_path / "a.HEIC"), quality=-1)
    dataset = load_image_dataset(train_data_dir=str(tmp_path), resolution=8)
    red, green, blue = next(dataset.reference_batches(1))["pixel_values"][0].float().mean((1, 2))
    assert red > 240 and green < 15 and blue < 15
