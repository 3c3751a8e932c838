"""Paired sets: images with conditioning images."""

import io
import itertools
import json

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image
from PIL import Image as PILImage, ImageOps

from diffusers_ext.data import UnreadableImagesError, load_image_dataset
from diffusers_ext.pixels import to_pixel_values

from .drawing import draw


WAYS = {"cached": {"cache_images": True}, "uncached": {"cache_images": False}, "streamed": {"streaming": True}}
KEYS = ("pixel_values", "conditioning_pixel_values")


def write_pairs(folder, count: int = 7, labelled: bool = False):
    """Images, and their negatives as conditioning images, so that the sum identifies a pair."""
    rows = []
    for number in range(count):
        image = draw(number, height=12 + number % 3, width=14 + number % 4)
        for name, picture in (("photo", image), ("edges", ImageOps.invert(image))):
            (folder / name).mkdir(parents=True, exist_ok=True)
            picture.save(folder / name / f"{number}.png")
        row = {"file_name": f"photo/{number}.png", "conditioning_image_file_name": f"edges/{number}.png"}
        rows.append(row | ({"label": "ab"[number % 2]} if labelled else {}))
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def load(folder, way: str = "cached", **arguments):
    options = {"resolution": 8, "random_flip": True, "conditioning_image_column": "conditioning_image"}
    return load_image_dataset(train_data_dir=str(folder), **(options | WAYS[way] | arguments))


def take(dataset, num_batches: int = 4, batch_size: int = 5, **arguments) -> dict[str, torch.Tensor]:
    batches = list(itertools.islice(dataset.batches(batch_size, **({"seed": 3} | arguments)), num_batches))
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_pair_is_cropped_resized_and_flipped_together(tmp_path, way, channels):
    dataset = load(write_pairs(tmp_path), way, channels=channels)
    batch = take(dataset)
    for key in KEYS:
        assert batch[key].shape == (20, channels, 8, 8) and batch[key].dtype == torch.float32
        assert batch[key].is_contiguous()
    # They remain negatives of each other, up to the rounding of a level.
    assert (batch[KEYS[0]] + batch[KEYS[1]]).abs().max() <= 2.1 / 127.5
    assert batch[KEYS[0]].std() > 0.1
    reference = next(dataset.reference_batches(10))
    assert all(reference[key].shape == (7, channels, 8, 8) and reference[key].dtype == torch.uint8 for key in KEYS)
    sums = reference[KEYS[0]].int() + reference[KEYS[1]].int()
    assert (sums - 255).abs().max() <= 2


@pytest.mark.parametrize("way", WAYS)
def test_jitter_moves_both_images_of_a_pair(tmp_path, way):
    dataset = load(write_pairs(tmp_path, count=1), way, load_size=(11, 13), random_flip=False)
    batch = take(dataset)
    assert batch[KEYS[0]].shape == (20, 3, 8, 8)
    assert (batch[KEYS[0]] + batch[KEYS[1]]).abs().max() <= 2.1 / 127.5
    assert len({image.numpy().tobytes() for image in batch[KEYS[0]]}) > 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"load_size": 7}, r"load_size must be at least the resolution, \(8, 8\), not \(7, 7\)"),
        ({"load_size": 9, "center_crop": True}, "load_size is for random crops"),
        ({"load_size": 9, "buckets": [(8, 8)]}, "leave out --load_size or --aspect_ratio_buckets"),
        ({"load_size": 0}, "load_size must be a positive number of pixels"),
    ],
)
def test_jitter_without_room_is_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, **arguments)


@pytest.mark.parametrize("way", WAYS)
def test_the_images_are_those_of_an_unpaired_set(tmp_path, way):
    write_pairs(tmp_path, labelled=True)
    paired = take(load(tmp_path, way, label_column="none"))
    unpaired = take(load(tmp_path, way, label_column="none", conditioning_image_column=None))
    assert set(paired) == set(KEYS) and set(unpaired) == {"pixel_values"}
    assert torch.equal(paired["pixel_values"], unpaired["pixel_values"])
    if way != "streamed":
        assert set(take(load(tmp_path, way))) == {*KEYS, "class_labels"}


@pytest.mark.parametrize("way", WAYS)
def test_processes_and_resuming(tmp_path, way):
    dataset = load(write_pairs(tmp_path), way)
    whole = take(dataset)
    later = take(dataset, 2, 5, start=6)
    shares = [take(dataset, 4, 2, process_index=rank, num_processes=2) for rank in range(2)]
    for key in KEYS:
        assert torch.equal(later[key], whole[key][6:16])
        mixed = torch.stack([share[key].unflatten(0, (4, 2)) for share in shares], dim=1).flatten(0, 2)
        assert torch.equal(mixed, whole[key][:16])


def test_a_small_conditioning_image_is_enlarged(tmp_path):
    write_pairs(tmp_path, 1)
    PILImage.new("L", (7, 6), 100).save(tmp_path / "edges" / "0.png")  # of an image of 14x12
    batch = take(load(tmp_path), 1, 2)
    assert torch.equal(batch[KEYS[1]], to_pixel_values(torch.full((2, 3, 8, 8), 100)))


@pytest.mark.parametrize("way", WAYS)
def test_unreadable_conditioning_images(tmp_path, way):
    write_pairs(tmp_path)
    (tmp_path / "edges" / "2.png").write_bytes(b"no image")
    draw(0, 12, 40).save(tmp_path / "edges" / "4.png")
    (tmp_path / "photo" / "5.png").write_bytes(b"")
    broken = {str(tmp_path / name) for name in ("edges/2.png", "edges/4.png", "photo/5.png")}
    with pytest.raises(UnreadableImagesError) as caught:
        take(load(tmp_path, way), 10)
    assert set(caught.value.files) <= broken and caught.value.files
    if way == "cached":
        assert set(caught.value.files) == broken
        assert "of 12x40 pixels has another aspect ratio than its image, 13x14" in str(caught.value)
    dataset = load(tmp_path, way, skip_unreadable_images=True)
    batch = next(dataset.reference_batches(10))
    assert all(len(batch[key]) == 4 for key in KEYS) and dataset.num_skipped == 3
    assert (batch[KEYS[0]].int() + batch[KEYS[1]].int() - 255).abs().max() <= 2


def png(image: PILImage.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_columns_of_a_parquet_file_and_of_a_saved_set(tmp_path):
    images = [draw(number) for number in range(3)]
    negatives = [ImageOps.invert(image) for image in images]
    (tmp_path / "parquet").mkdir()
    columns = {"after": [png(image) for image in images], "before": [png(image) for image in negatives]}
    Dataset.from_dict(columns).to_parquet(tmp_path / "parquet" / "train.parquet")
    features = Features({"after": Image(), "before": Image()})
    Dataset.from_dict({"after": images, "before": negatives}, features=features).save_to_disk(tmp_path / "saved")
    for name in ("parquet", "saved"):
        arguments = {"image_column": "after", "conditioning_image_column": "before", "cache_dir": str(tmp_path)}
        batch = next(load(tmp_path / name, **arguments).reference_batches(3))
        for key, pictures in zip(KEYS, (images, negatives), strict=True):
            assert (
                batch[key].numpy() == np.stack([np.array(picture).transpose(2, 0, 1) for picture in pictures])
            ).all()


def test_rows_without_a_path_or_an_image_are_named_by_number(tmp_path):
    values = {"image": [png(draw(0)), png(draw(1))], "conditioning_image": [png(draw(2)), None]}
    Dataset.from_dict(values).save_to_disk(tmp_path / "set")
    with pytest.raises(UnreadableImagesError, match="row 1: there is no image"):
        load(tmp_path / "set").prepare()


def test_fingerprint_is_of_the_pair(tmp_path):
    write_pairs(tmp_path)
    for way in WAYS:
        before = load(tmp_path, way).fingerprint()
        alone = load(tmp_path, way, conditioning_image_column=None).fingerprint()
        swapped = load(
            tmp_path, way, image_column="conditioning_image", conditioning_image_column="image"
        ).fingerprint()
        original = (tmp_path / "edges" / "3.png").read_bytes()
        draw(50, 12, 17).save(tmp_path / "edges" / "3.png")
        changed = load(tmp_path, way).fingerprint()
        assert load(tmp_path, way, conditioning_image_column=None).fingerprint() == alone
        (tmp_path / "edges" / "3.png").write_bytes(original)
        assert len({before, alone, swapped, changed}) == 4 and load(tmp_path, way).fingerprint() == before


def test_columns_that_are_not_there(tmp_path):
    write_pairs(tmp_path)
    with pytest.raises(ValueError, match="no image column 'edges', the columns are image, conditioning_image"):
        load(tmp_path, conditioning_image_column="edges")
    with pytest.raises(ValueError, match="must be different columns, not both 'image'"):
        load(tmp_path, conditioning_image_column="image")
