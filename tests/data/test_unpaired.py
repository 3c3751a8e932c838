"""Unpaired images of two domains, and pairs side by side in one file."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from diffusers_ext.data import UnreadableImagesError, load_image_dataset
from diffusers_ext.data.corruptions.outlines import outlines
from diffusers_ext.data.side_by_side import load_side_by_side_dataset
from diffusers_ext.data.unpaired import UnpairedImageDataset, load_unpaired_dataset
from tests.data.drawing import draw


SOURCE, TARGET = "conditioning_pixel_values", "pixel_values"
COUNTS = {"horse": 3, "zebra": 5, "cow": 2}


def flat(level: int, size=(10, 12), mode: str = "RGB") -> Image.Image:
    return Image.new("L", size, level).convert(mode)


def write_domains(folder, names=tuple(COUNTS), root: str = ""):
    """Images of uniform brightness, which identifies their domain."""
    for first, name in enumerate(names):
        (folder / root / name).mkdir(parents=True, exist_ok=True)
        for number in range(COUNTS.get(name, 3 + first)):
            picture = flat(80 * first + number, (10 + number, 12), ("RGB", "L", "RGBA")[number % 3])
            picture.save(folder / root / name / f"{number}.png")
    return folder


def load(folder, **options) -> UnpairedImageDataset:
    return load_unpaired_dataset(**{"train_data_dir": str(folder), "resolution": 8, "channels": 1, **options})


def levels(images: torch.Tensor) -> list[int]:
    return ((images[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


def take(dataset, num_batches, batch_size=1, **position) -> dict[str, list[int]]:
    batches = list(itertools.islice(dataset.batches(batch_size, **{"seed": 3, **position}), num_batches))
    return {key: levels(torch.cat([batch[key] for batch in batches])) for key in (SOURCE, TARGET)}


WAYS = ["classes", "folders", "two folders", "splits"]


def by(way: str, tmp_path) -> UnpairedImageDataset:
    """Horses and zebras, separated in several ways."""
    if way == "classes":
        return load(write_domains(tmp_path), domains=("horse", "zebra"))
    if way == "folders":
        write_domains(tmp_path, ("horse", "zebra"))
        for name, letter in (("horse", "trainA"), ("zebra", "trainB")):
            (tmp_path / name).rename(tmp_path / letter)
        return load(write_domains(tmp_path, ("testA", "testB")))
    if way == "two folders":
        write_domains(tmp_path, ("horse", "zebra"))
        return load(tmp_path / "horse", target_data_dir=str(tmp_path / "zebra"))
    write_domains(tmp_path, ("horse", "zebra"))
    (tmp_path / "horse").rename(tmp_path / "train")
    (tmp_path / "zebra").rename(tmp_path / "test")
    return load(tmp_path, target_split="test")


@pytest.mark.parametrize("way", WAYS)
def test_two_domains_in_several_ways(tmp_path, way):
    dataset = by(way, tmp_path)
    assert (dataset.source.num_examples, dataset.target.num_examples, dataset.num_examples) == (3, 5, 5)
    assert (dataset.channels, dataset.resolution, dataset.num_skipped, dataset.id2label) == (1, (8, 8), 0, None)
    seen = take(dataset, 15)
    # Each domain has its own epochs and orders.
    for key, first, count in ((SOURCE, 0, 3), (TARGET, 80, 5)):
        epochs = [seen[key][start : start + count] for start in range(0, 15, count)]
        assert all(sorted(epoch) == list(range(first, first + count)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) > 1


def test_the_letters_follow_the_split(tmp_path):
    by("folders", tmp_path)
    dataset = load(tmp_path, split="test")
    assert (dataset.source.num_examples, dataset.target.num_examples) == (3, 4)


def test_a_set_of_two_classes_needs_no_names(tmp_path):
    dataset = load(write_domains(tmp_path, ("horse", "zebra")))
    assert set(take(dataset, 3)[SOURCE]) == {0, 1, 2}
    swapped = load(tmp_path, domains=("zebra", "horse"))
    assert set(take(swapped, 3)[TARGET]) == {0, 1, 2} and swapped.fingerprint() != dataset.fingerprint()


def test_digits_are_domains_too():
    dataset = load_unpaired_dataset(("three", "eight"), dataset_name="digits", resolution=8, channels=1)
    labels = load_image_dataset("digits", resolution=8, channels=1)
    total = sum((batch["class_labels"] == 3).sum().item() for batch in labels.reference_batches(500))
    assert dataset.source.num_examples == total


def test_processes_divide_and_resuming_continues_the_stream(tmp_path):
    dataset = by("classes", tmp_path)
    whole = take(dataset, 6, batch_size=4)
    assert take(dataset, 6, batch_size=4) == whole
    resumed = take(dataset, 4, batch_size=4, start=8)
    halves = [take(dataset, 6, batch_size=2, process_index=r, num_processes=2) for r in (0, 1)]
    for key in (SOURCE, TARGET):
        assert resumed[key] == whole[key][8:]
        pairs = (half[key][start : start + 2] for start in range(0, 12, 2) for half in halves)
        assert list(itertools.chain.from_iterable(pairs)) == whole[key]
    assert take(dataset, 6, batch_size=4, seed=4) != whole


def test_domains_of_one_set_do_not_go_in_step(tmp_path):
    dataset = load(write_domains(tmp_path, ("zebra",)) / "zebra", target_data_dir=str(tmp_path / "zebra"))
    seen = take(dataset, 20)
    assert seen[SOURCE] != seen[TARGET]


def test_domains_can_be_streamed(tmp_path):
    write_domains(tmp_path, ("horse", "zebra"))
    dataset = load(tmp_path / "horse", target_data_dir=str(tmp_path / "zebra"), streaming=True)
    assert dataset.num_examples is None
    assert sorted(take(dataset, 15)[TARGET][:5]) == [80, 81, 82, 83, 84]
    with pytest.raises(ValueError, match="leave out --streaming"):
        load(tmp_path, streaming=True)


def test_no_two_domains(tmp_path):
    write_domains(tmp_path)
    for options, message in [
        ({}, "the data set has 3 classes"),
        ({"domains": ("horse", "donkey")}, "the domain 'donkey' is not a class"),
        ({"domains": ("horse", "horse")}, "must be two different classes, not horse, horse"),
        ({"domains": ("horse", "cow"), "target_data_dir": str(tmp_path)}, "not both"),
        ({"target_data_dir": str(tmp_path / "sheep")}, "there is no folder"),
    ]:
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            load(tmp_path, **options)
    with pytest.raises(ValueError, match="the data set has no classes"):
        load(tmp_path / "horse")
    with pytest.raises(ValueError, match="must have the same channels, not 1 and 3"):
        small = load_image_dataset("digits", channels=1, resolution=8)
        UnpairedImageDataset(small, load_image_dataset("digits", channels=3, resolution=8))


# Side by side


def write_side_by_side(folder, count=4):
    folder.mkdir(exist_ok=True)
    for number in range(count):
        right = draw(number, 10, 12)
        pair = Image.new("RGB", (24, 10))
        pair.paste(Image.fromarray(255 - np.asarray(right)), (0, 0))
        pair.paste(right, (12, 0))
        pair.save(folder / f"{number}.png")
    return folder


def test_halves_are_a_pair(tmp_path):
    dataset = load_side_by_side_dataset(8, random_flip=True, train_data_dir=str(write_side_by_side(tmp_path)))
    batch = next(dataset.batches(8, seed=0))
    assert batch[SOURCE].shape == batch[TARGET].shape == (8, 3, 8, 8)
    # They remain negatives of each other, because both halves are cropped and flipped alike.
    assert (batch[SOURCE] + batch[TARGET]).abs().max() <= 2.1 / 127.5 and batch[SOURCE].std() > 0.1
    reference = next(dataset.reference_batches(8))
    first = np.asarray(draw(0, 10, 12).resize((10, 8), Image.Resampling.BICUBIC))[:, 1:9]
    assert np.abs(reference[TARGET][0].permute(1, 2, 0).numpy().astype(int) - first).max() <= 3


def test_jitter_moves_both_halves_and_each_domain(tmp_path):
    write_side_by_side(tmp_path / "pairs", count=1)
    dataset = load_side_by_side_dataset(8, load_size=12, train_data_dir=str(tmp_path / "pairs"))
    batch = next(dataset.batches(20, seed=0))
    assert (batch[SOURCE] + batch[TARGET]).abs().max() <= 2.1 / 127.5
    assert len({image.numpy().tobytes() for image in batch[TARGET]}) > 5
    for name in ("horse", "zebra"):
        (tmp_path / "domains" / name).mkdir(parents=True)
        draw(3, 20, 20).save(tmp_path / "domains" / name / "0.png")
    for options in (
        {},
        {
            "target_data_dir": str(tmp_path / "domains" / "zebra"),
            "train_data_dir": str(tmp_path / "domains" / "horse"),
        },
    ):
        batch = next(load(tmp_path / "domains", load_size=12, **options).batches(20, seed=0))
        for key in (SOURCE, TARGET):
            assert len({image.numpy().tobytes() for image in batch[key]}) > 5


def test_files_of_an_odd_width_are_no_pairs(tmp_path):
    write_side_by_side(tmp_path)
    draw(9, 10, 13).save(tmp_path / "odd.png")
    with pytest.raises(UnreadableImagesError, match="odd.png"):
        load_side_by_side_dataset(8, train_data_dir=str(tmp_path)).prepare()
    dataset = load_side_by_side_dataset(8, train_data_dir=str(tmp_path), skip_unreadable_images=True)
    dataset.prepare()
    assert dataset.num_skipped == 1


# Edges


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_edges_are_where_brightness_changes(channels):
    images = torch.full((1, channels, 8, 8), -1.0)
    images[..., 4:] = 0.5
    shown = outlines(images, None).conditioning_image
    colours = shown[:, :-1] if channels in (2, 4) else shown
    assert (colours[..., 3:5] == 1).all() and (colours[..., :3] == -1).all() and (colours[..., 5:] == -1).all()
    if channels in (2, 4):
        assert torch.equal(shown[:, -1], images[:, -1])
    assert (outlines(images[:, :1], None, threshold=2.0).conditioning_image == -1).all()
    with pytest.raises(ValueError, match="positive threshold"):
        outlines(images, None, threshold=0.0)
