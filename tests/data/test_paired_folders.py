"""Pairs from two folders of equal names."""

import pytest
import torch
from datasets import Dataset
from PIL import ImageOps

from diffusers_ext.data import load_image_dataset
from diffusers_ext.training.restoration.tasks import RestorationConfig
from diffusers_ext.training.translation.translation_recipe import TranslationConfig

from .drawing import draw, write_images


NAMES = ("train/cat/0.png", "train/dog/1.png", "train/dog/2.b.png", "test/cat/0.png")


def write_folders(folder, names=NAMES):
    """Images, and their negatives in another folder, some as another kind of file."""
    write_images(folder / "photos", *names)
    for number, name in enumerate(names):
        path = folder / "labels" / (name.replace(".png", ".tif") if number % 2 else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        ImageOps.invert(draw(number)).save(path)
    return {"train_data_dir": str(folder / "photos"), "conditioning_image_dir": str(folder / "labels")}


@pytest.mark.parametrize("way", [{"cache_images": True}, {"cache_images": False}, {"streaming": True}])
@pytest.mark.parametrize("split", ["train", "test"])
def test_images_of_equal_names_are_pairs(tmp_path, way, split):
    dataset = load_image_dataset(**write_folders(tmp_path), **way, split=split, resolution=8, random_flip=True)
    batch = next(dataset.batches(6, seed=0))
    assert (batch["pixel_values"] + batch["conditioning_pixel_values"]).abs().max() < 0.001
    assert set(dataset.id2label.values()) == {"cat", "dog"}
    reference = next(dataset.reference_batches(9))["pixel_values"]
    assert len(reference) == {"train": 3, "test": 1}[split]


def test_a_metadata_file_may_describe_the_images(tmp_path):
    folders = write_folders(tmp_path, ("0.png", "1.png"))
    (tmp_path / "photos" / "metadata.csv").write_text("file_name,text\n1.png,one\n0.png,null\n")
    batch = next(load_image_dataset(**folders, resolution=8, caption_column="text").reference_batches(2))
    assert torch.equal(batch["conditioning_pixel_values"], 255 - batch["pixel_values"])


def test_what_is_no_pair_is_refused(tmp_path):
    folders = write_folders(tmp_path)

    def refused(sentence, error=ValueError, **options):
        with pytest.raises(error, match=sentence):
            load_image_dataset(**(folders | options), resolution=8)

    refused("there is no folder", FileNotFoundError, conditioning_image_dir=str(tmp_path / "edges"))
    refused("must be outside the folder of the images", train_data_dir=str(tmp_path), label_column="none")
    refused("are two ways to name conditioning images", conditioning_image_column="image")
    refused("for a local folder of image files", train_data_dir=None, dataset_name="digits")
    draw(9).save(tmp_path / "labels" / "train" / "dog" / "1.webp")
    refused("has 2 images for 'train/dog/1.png': train/dog/1.tif, train/dog/1.webp")
    (tmp_path / "labels" / "train" / "dog" / "1.webp").unlink()
    (tmp_path / "labels" / "train" / "dog" / "1.tif").unlink()
    refused("1 of 3 images have no conditioning image of the same name in .*, first 'train/dog/1.png'")
    Dataset.from_dict({"image": [b"", b""]}).save_to_disk(tmp_path / "saved")
    refused("for a local folder of image files", train_data_dir=str(tmp_path / "saved"))


def test_translation_and_palette_take_a_second_folder(tmp_path):
    folders = write_folders(tmp_path, ("0.png", "1.png"))
    config = TranslationConfig(method="pix2pix", **folders)
    assert config.is_paired
    batch = next(config.load_dataset((8, 8), 3).reference_batches(2))
    assert torch.equal(batch["conditioning_pixel_values"], 255 - batch["pixel_values"])
    batch = next(RestorationConfig(tasks=["translation"], **folders).load_dataset((8, 8), 3).reference_batches(2))
    assert torch.equal(batch["conditioning_pixel_values"], 255 - batch["pixel_values"])
    with pytest.raises(ValueError, match="need each other"):
        RestorationConfig(tasks=["colorization"], **folders)
    with pytest.raises(ValueError, match="--conditioning_image_column and --conditioning_image_dir are two ways"):
        TranslationConfig(method="pix2pix", conditioning_image_column="edges", **folders)
    with pytest.raises(ValueError, match="--conditioning_image_dir and --side_by_side are two ways to get pairs"):
        TranslationConfig(method="pix2pix", side_by_side=True, **folders)
