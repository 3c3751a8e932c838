import itertools
import pickle
import random
import shutil

import numpy as np
import psutil
import pytest
import torch
from datasets import Dataset, Features, Image
from PIL import Image as PILImage

from diffusers_ext.data import ImageDataset, UnreadableImagesError, image_rows, load_image_dataset

from .drawing import draw, write_images


# The ways to read the same folder. Streams have another order.
INDEXED = {"cached": {"cache_images": True}, "uncached": {"cache_images": False}}
STREAMED = {"streamed": {"streaming": True, "shuffle_buffer_size": 7}}
EVERY_WAY = INDEXED | STREAMED


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """23 images of two classes and several shapes; 23 is not divisible by any batch size."""
    path = tmp_path_factory.mktemp("images")
    for number in range(23):
        label = "cat" if number % 3 else "dog"
        (path / label).mkdir(exist_ok=True)
        draw(number, height=9 + number % 4, width=9 + number % 5).save(path / label / f"{number:02}.png")
    return str(path)


def load(folder, way: str = "cached", **arguments) -> ImageDataset:
    options = {"resolution": 8, "random_flip": True} | EVERY_WAY[way] | arguments
    return load_image_dataset(train_data_dir=str(folder), **options)


def take(dataset: ImageDataset, num_batches: int, batch_size: int, **arguments) -> list[dict[str, torch.Tensor]]:
    return list(itertools.islice(dataset.batches(batch_size, **({"seed": 5} | arguments)), num_batches))


def joined(batches: list[dict[str, torch.Tensor]], key: str = "pixel_values") -> torch.Tensor:
    return torch.cat([batch[key] for batch in batches])


@pytest.mark.parametrize("way", EVERY_WAY)
def test_a_batch(folder, way):
    dataset = load(folder, way)
    batch = take(dataset, 1, 6)[0]
    assert set(batch) == {"pixel_values", "class_labels"}
    assert batch["pixel_values"].shape == (6, 3, 8, 8) and batch["pixel_values"].dtype == torch.float32
    assert batch["class_labels"].shape == (6,) and batch["class_labels"].dtype == torch.int64
    assert -1 <= batch["pixel_values"].min() < -0.5 and 0.5 < batch["pixel_values"].max() <= 1
    assert dataset.id2label == {0: "cat", 1: "dog"} and dataset.num_skipped == 0
    assert dataset.num_examples == (None if way == "streamed" else 23)
    assert set(take(load(folder, way, label_column="none"), 1, 6)[0]) == {"pixel_values"}


@pytest.mark.parametrize("way", EVERY_WAY)
@pytest.mark.parametrize("num_processes, batch_size", [(2, 6), (3, 4), (12, 1)])
def test_processes_share_one_stream(folder, way, num_processes, batch_size):
    dataset = load(folder, way)
    alone = take(dataset, 5, 12)
    shares = [
        take(dataset, 5, batch_size, process_index=index, num_processes=num_processes)
        for index in range(num_processes)
    ]
    for step, batch in enumerate(alone):
        for key in batch:
            assert torch.equal(torch.cat([share[step][key] for share in shares]), batch[key])


@pytest.mark.parametrize("way", EVERY_WAY)
@pytest.mark.parametrize("start", [1, 22, 23, 24, 50])
def test_resuming_continues_the_stream(folder, way, start):
    dataset = load(folder, way)
    whole = joined(take(dataset, 12, 6))
    assert torch.equal(joined(take(dataset, 3, 7, start=start)), whole[start : start + 21])
    with_two = [take(dataset, 1, 4, start=start, process_index=r, num_processes=2)[0] for r in range(2)]
    assert torch.equal(joined(with_two), whole[start : start + 8])


@pytest.mark.parametrize("way", ["uncached", "streamed"])
@pytest.mark.parametrize("num_workers", [1, 3])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_change_nothing(folder, way, num_workers):
    dataset = pickle.loads(pickle.dumps(load(folder, way)))  # like workers that are not forked
    for mine, theirs in zip(take(dataset, 7, 5, num_workers=num_workers), take(dataset, 7, 5), strict=True):
        for key in theirs:
            assert torch.equal(mine[key], theirs[key])


@pytest.mark.parametrize("way", EVERY_WAY)
def test_every_epoch_has_every_image_once_in_an_order_of_its_own(folder, way):
    dataset = load(folder, way, center_crop=True, random_flip=False)
    references = joined(list(dataset.reference_batches(5)))
    row_of = {image.numpy().tobytes(): row for row, image in enumerate(references)}
    batches = take(dataset, 23, 3)  # three epochs
    images = ((joined(batches) + 1) * 127.5).round().to(torch.uint8)
    rows = [row_of[image.numpy().tobytes()] for image in images]
    epochs = [rows[:23], rows[23:46], rows[46:]]
    assert all(sorted(epoch) == list(range(23)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != list(range(23))
    labels = joined(list(dataset.reference_batches(5)), "class_labels")
    assert torch.equal(labels[rows], joined(batches, "class_labels"))


@pytest.mark.parametrize("center_crop", [True, False])
@pytest.mark.parametrize("resolution", [8, (6, 10), 32])
def test_cached_and_uncached_are_equal(folder, center_crop, resolution):
    cached, uncached = (load(folder, way, center_crop=center_crop, resolution=resolution) for way in INDEXED)
    assert torch.equal(joined(take(cached, 6, 9)), joined(take(uncached, 6, 9)))
    mine, theirs = (joined(list(dataset.reference_batches(9))) for dataset in (cached, uncached))
    assert torch.equal(mine, theirs)
    assert cached.cached and not uncached.cached


@pytest.mark.parametrize("way", EVERY_WAY)
def test_the_seed_matters(folder, way):
    dataset = load(folder, way)
    assert torch.equal(joined(take(dataset, 2, 8)), joined(take(dataset, 2, 8)))
    assert not torch.equal(joined(take(dataset, 2, 8)), joined(take(dataset, 2, 8, seed=6)))


def test_augmentation_is_fresh_in_every_epoch(tmp_path):
    folder = write_images(tmp_path, "a.png")
    upright = torch.from_numpy(np.array(draw(0))).permute(2, 0, 1) / 127.5 - 1
    flipped = [torch.equal(image, upright.flip(-1)) for image in joined(take(load(folder), 4, 50))]
    straight = [torch.equal(image, upright) for image in joined(take(load(folder), 4, 50))]
    assert [not flip for flip in flipped] == straight and 75 < sum(flipped) < 125
    crops = joined(take(load(folder, resolution=(8, 4), random_flip=False), 1, 50))
    assert len({crop.numpy().tobytes() for crop in crops}) == 5  # of 5 places


@pytest.mark.parametrize("way", EVERY_WAY)
def test_global_random_state_is_neither_read_nor_changed(folder, way):
    def draws():
        return torch.rand(1).item(), random.random(), np.random.rand()

    def seed_all():
        torch.manual_seed(0), random.seed(0), np.random.seed(0)

    seed_all()
    untouched = draws()
    seed_all()
    dataset = load(folder, way)
    first = joined(take(dataset, 3, 8))
    take(dataset, 2, 8, num_workers=1)
    list(dataset.reference_batches(8))
    assert draws() == untouched
    assert torch.equal(joined(take(dataset, 3, 8)), first)  # from another global random state


@pytest.mark.parametrize("way", EVERY_WAY)
def test_reference_batches(folder, way):
    dataset = load(folder, way, resolution=(8, 9))
    batches = list(dataset.reference_batches(10))
    assert [len(batch["pixel_values"]) for batch in batches] == [10, 10, 3]
    whole = joined(batches)
    assert whole.dtype == torch.uint8 and whole.shape == (23, 3, 8, 9)
    for key in ("pixel_values", "class_labels"):
        for limit in (None, 11):
            kept = joined(batches, key)[:limit]
            for rank in range(3):
                share = joined(list(dataset.reference_batches(2, rank, 3, limit)), key)
                assert torch.equal(share, kept[rank::3])
    assert len(list(dataset.reference_batches(4, 2, 3, limit=2))) == 0


def test_reference_pixels_are_exact(tmp_path):
    folder = write_images(tmp_path, "a.png", "b.png", "c.png")
    expected = np.stack([np.array(draw(number)).transpose(2, 0, 1) for number in range(3)])
    for way in EVERY_WAY:
        assert (next(load(folder, way).reference_batches(3))["pixel_values"].numpy() == expected).all()


def test_a_set_smaller_than_a_batch(tmp_path):
    folder = write_images(tmp_path, "a.png", "b.png", "c.png")
    for way in EVERY_WAY:
        batch = take(load(folder, way), 1, 10)[0]
        assert (
            len(
                {
                    image.numpy().tobytes()
                    for image in torch.maximum(batch["pixel_values"], batch["pixel_values"].flip(-1))
                }
            )
            == 3
        )


def break_images(folder) -> list[str]:
    """Three unreadable files, and the reason for each."""
    whole = (folder / "cat" / "0.png").read_bytes()
    broken = {"cut.png": whole[: len(whole) // 2], "empty.jpg": b"", "text.PNG": b"no image"}
    for name, content in broken.items():
        (folder / "cat" / name).write_bytes(content)
    return [str(folder / "cat" / name) for name in broken]


@pytest.mark.parametrize("way", INDEXED)
def test_unreadable_images_stop_the_run_before_it_starts(tmp_path, way):
    write_images(tmp_path, "cat/0.png", "cat/1.png", "dog/2.png")
    files = break_images(tmp_path)
    with pytest.raises(UnreadableImagesError) as caught:
        load(tmp_path, way, verify_images=True).prepare()
    assert sorted(caught.value.files) == sorted(files)
    assert all(file in str(caught.value) for file in files) and "skip_unreadable_images" in str(caught.value)
    dataset = load(tmp_path, way, verify_images=True, skip_unreadable_images=True)
    dataset.prepare()
    assert (dataset.num_examples, dataset.num_skipped) == (3, 3)
    batch = next(dataset.reference_batches(10))
    assert batch["class_labels"].tolist() == [0, 0, 1]
    expected = np.stack([np.array(draw(number)).transpose(2, 0, 1) for number in range(3)])
    assert (batch["pixel_values"].numpy() == expected).all()
    take(dataset, 3, 2)


@pytest.mark.parametrize("way", EVERY_WAY)
def test_nothing_readable_at_all(tmp_path, way):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UnreadableImagesError, match="a.png"):
        take(load(tmp_path, way, skip_unreadable_images=True), 1, 1)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_stream_stops_at_an_unreadable_image_or_replaces_it(tmp_path, num_workers):
    write_images(tmp_path, "cat/0.png", "cat/1.png", "dog/2.png")
    files = break_images(tmp_path)
    with pytest.raises(UnreadableImagesError) as caught:
        take(load(tmp_path, "streamed"), 6, 2, num_workers=num_workers)
    assert set(caught.value.files) <= set(files) and caught.value.files
    dataset = load(tmp_path, "streamed", skip_unreadable_images=True)
    whole = joined(take(dataset, 6, 2, num_workers=num_workers))
    assert dataset.num_skipped == 6  # three in each of two epochs
    assert torch.equal(joined(take(dataset, 2, 4, start=3)), whole[3:11])
    shares = [take(dataset, 6, 1, process_index=rank, num_processes=2) for rank in range(2)]
    assert torch.equal(torch.stack([joined(share) for share in shares], dim=1).flatten(0, 1), whole)
    assert len(next(dataset.reference_batches(10))["pixel_values"]) == 3
    with pytest.raises(UnreadableImagesError):
        list(load(tmp_path, "streamed").reference_batches(10))


def test_rows_without_a_path_are_named_by_number(tmp_path):
    features = Features({"image": Image()})
    good = tmp_path / "good.png"
    draw(0).save(good)
    images = [{"bytes": good.read_bytes(), "path": None}, {"bytes": b"bad", "path": None}]
    Dataset.from_dict({"image": images}, features=features).save_to_disk(tmp_path / "set")
    with pytest.raises(UnreadableImagesError) as caught:
        load(tmp_path / "set").prepare()
    assert caught.value.files == ["row 1"]


def test_fingerprint_is_of_the_content(tmp_path):
    one = write_images(tmp_path / "one", "cat/0.png", "cat/1.png", "dog/2.png")
    prints = {way: load(one, way).fingerprint() for way in EVERY_WAY}
    assert prints["cached"] == prints["uncached"] == load(one, resolution=4, center_crop=True).fingerprint()
    shutil.copytree(one, tmp_path / "copy", copy_function=shutil.copyfile)
    (tmp_path / "copy" / "cat" / "0.png").rename(tmp_path / "copy" / "cat" / "00.png")
    changes = {
        "pixels": lambda path: draw(9).save(path / "cat" / "1.png"),
        "labels": lambda path: (path / "cat" / "1.png").rename(path / "dog" / "1.png"),
        "names": lambda path: (path / "cat").rename(path / "bird"),
        "fewer": lambda path: (path / "cat" / "1.png").unlink(),
        "shape": lambda path: PILImage.fromarray(np.array(draw(1)).reshape(4, 16, 3)).save(path / "cat" / "1.png"),
    }
    for way in EVERY_WAY:
        assert load(tmp_path / "copy", way).fingerprint() == prints[way]
    for name, change in changes.items():
        shutil.copytree(one, tmp_path / name)
        change(tmp_path / name)
        for way in EVERY_WAY:
            assert load(tmp_path / name, way).fingerprint() != prints[way], (name, way)
    assert load(one, label_column="none").fingerprint() != prints["cached"]


def test_only_what_fits_is_cached(folder, monkeypatch):
    size = 23 * 3 * 16 * 16  # with center_crop, all images are this large

    def cached_with(available: int) -> bool:
        monkeypatch.setattr(image_rows, "available_memory", lambda: available)
        dataset = load(folder, cache_images=None, center_crop=True, resolution=16)
        dataset.prepare()
        return dataset.cached

    assert cached_with(2 * size) and not cached_with(2 * size - 1)


def test_available_memory_is_that_of_machine_and_container():
    assert 0 < image_rows.available_memory() <= psutil.virtual_memory().total


def test_extreme_shapes(tmp_path):
    for number, (height, width) in enumerate([(1, 900), (700, 2), (1, 1), (40, 40)]):
        draw(number, height, width).save(tmp_path / f"{number}.png")
    for way in INDEXED:
        for resolution in (16, (5, 40)):
            batch = take(load(tmp_path, way, resolution=resolution), 1, 8)[0]
            assert batch["pixel_values"].shape[1:] == (3, *load(tmp_path, way, resolution=resolution).resolution)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_channels(folder, channels):
    assert take(load(folder, channels=channels), 1, 2)[0]["pixel_values"].shape == (2, channels, 8, 8)


def test_streams_need_classes_that_are_known(tmp_path):
    (tmp_path / "set").mkdir()
    rows = Dataset.from_dict({"image": [draw(0)], "label": ["cat"]}, features=None).cast_column("image", Image())
    rows.to_parquet(tmp_path / "set" / "train.parquet")
    with pytest.raises(ValueError, match="'label' has Value.'string'., whose classes are not known"):
        load(tmp_path / "set", "streamed")
    batch = next(load(tmp_path / "set", "streamed", label_column="none").reference_batches(1))
    assert (batch["pixel_values"][0].numpy() == np.array(draw(0)).transpose(2, 0, 1)).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"process_index": 2, "num_processes": 2}, "process_index must be from 0"),
        ({"start": -1}, "must not be negative"),
        ({"num_workers": -1}, "must not be negative"),
    ],
)
def test_impossible_batches(folder, arguments, message):
    with pytest.raises(ValueError, match=message):
        load(folder).batches(**({"batch_size": 1, "seed": 0} | arguments))


def test_an_image_that_vanishes_while_training_is_named(tmp_path):
    dataset = load(write_images(tmp_path, "a.png"), "uncached")
    (tmp_path / "a.png").unlink()
    with pytest.raises(UnreadableImagesError, match="a.png: no such file"):
        take(dataset, 1, 1)
