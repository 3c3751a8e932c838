"""Aspect-ratio buckets: their sizes, and batches of one size, which do not depend on the number of processes."""

import itertools
import json
import pickle
from collections import Counter

import pytest
import torch
from PIL import Image, ImageOps

from diffusers_ext.data import load_image_dataset
from diffusers_ext.data.buckets import BucketOrder, aspect_ratio_buckets, nearest_bucket
from diffusers_ext.pixels import to_pixel_values

from .drawing import draw


BUCKETS = [(8, 8), (4, 16), (16, 4), (8, 12)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """19 images of several shapes; one bucket stays empty."""
    path = tmp_path_factory.mktemp("images")
    shapes = [(9, 9), (10, 9), (5, 18), (8, 30), (20, 20), (9, 14), (8, 12), (16, 24)]
    for number in range(19):
        draw(number, *shapes[number % len(shapes)]).save(path / f"{number:02}.png")
        (path / f"{number:02}.txt").write_text(f"picture {number}")
    return str(path)


def load(folder, **arguments):
    options = {"resolution": 8, "buckets": BUCKETS, "caption_column": "text"} | arguments
    return load_image_dataset(train_data_dir=folder, **options)


def take(dataset, num_batches: int, batch_size: int, **arguments) -> list[dict[str, torch.Tensor]]:
    return list(itertools.islice(dataset.batches(batch_size, **({"seed": 5} | arguments)), num_batches))


def test_sizes_have_the_area_of_the_square_and_sides_of_whole_steps():
    sizes = aspect_ratio_buckets(512, step=64, max_ratio=2)
    assert (512, 512) in sizes and sizes == sorted(set(sizes))
    assert {(width, height) for height, width in sizes} == set(sizes)
    for height, width in sizes:
        assert height % 64 == width % 64 == 0 and max(height, width) <= 2 * min(height, width)
        assert (
            height * width <= 512**2 < height * (max(height, width) + 64) or height * width == 512**2 or height < width
        )
        assert min(height, width) + 64 > 512**2 / max(height, width)  # as large as possible for this area
    assert sizes == [(384, 640), (448, 576), (512, 512), (576, 448), (640, 384)]
    assert aspect_ratio_buckets(64, step=8, max_ratio=1) == [(64, 64)]
    for arguments in ({"resolution": 100}, {"resolution": 32}, {"resolution": 64, "max_ratio": 0.5}):
        with pytest.raises(ValueError, match="buckets? must be|bucket's sides must be at least 1"):
            aspect_ratio_buckets(**arguments)


@pytest.mark.parametrize(
    ("size", "bucket"),
    [((100, 100), (8, 8)), ((10, 300), (4, 16)), ((300, 10), (16, 4)), ((100, 123), (8, 12)), ((100, 122), (8, 8))],
)
def test_the_nearest_aspect_ratio(size, bucket):
    assert nearest_bucket(size, BUCKETS) == bucket


@pytest.mark.parametrize("cache_images", [True, False])
def test_batches_are_of_one_size_and_cropped_in_the_middle(folder, cache_images):
    dataset = load(folder, cache_images=cache_images)
    expected = {size: images_of(folder, size) for size in dataset.buckets}
    assert dataset.buckets == {(4, 16): 5, (8, 8): 8, (8, 12): 6}
    shapes = Counter()
    for batch in take(dataset, 30, 3):
        size = tuple(batch["pixel_values"].shape[-2:])
        assert batch["time_ids"][:, 4:].tolist() == [list(size)] * 3
        shapes[size] += 1
        for image, caption_id in zip(batch["pixel_values"], batch["caption_ids"], strict=True):
            number = int(dataset.captions[caption_id].split()[1])
            assert torch.equal(image, expected[size][number])
    assert set(shapes) == set(dataset.buckets)


def images_of(folder, size: tuple[int, int]) -> torch.Tensor:
    """All images in one size."""
    alone = load_image_dataset(train_data_dir=folder, resolution=size, center_crop=True)
    return to_pixel_values(next(alone.reference_batches(100))["pixel_values"])


def test_every_image_is_visited_equally_often(folder):
    dataset = load(folder)
    batches = take(dataset, 10 * 19, 4)  # forty epochs
    visits = Counter(index for batch in batches for index in batch["caption_ids"].tolist())
    assert len(visits) == 19 and min(visits.values()) >= 38 and max(visits.values()) <= 42


@pytest.mark.parametrize("run_length", [1, 4, 16])
def test_the_order_is_a_shuffle_of_runs(run_length):
    bucket_of = torch.tensor([0] * 5 + [1] * 9 + [2])
    order = BucketOrder(bucket_of, run_length)
    runs = [order.visits(3, run * run_length, run_length) for run in range(15 * 8)]
    buckets = [bucket_of[rows].unique().tolist() for rows, _ in runs]
    assert all(len(found) == 1 for found in buckets)
    shares = Counter(found[0] for found in buckets)
    assert shares == {0: 40, 1: 72, 2: 8}
    for member in range(15):  # each is visited once in each of its epochs
        epochs = [epoch for rows, its in runs for row, epoch in zip(rows.tolist(), its, strict=True) if row == member]
        assert sorted(epochs) == list(range(8 * run_length))
    assert [found[0] for found in buckets] != sorted(found[0] for found in buckets)
    other = [bucket_of[order.visits(4, run * run_length, 1)[0]].item() for run in range(15 * 8)]
    assert other != [found[0] for found in buckets]
    assert torch.equal(order.visits(3, 50 * run_length + run_length // 2, 1)[0], runs[50][0][run_length // 2][None])


@pytest.mark.parametrize("cache_images", [True, False])
def test_processes_accumulation_and_resuming_change_nothing(folder, cache_images):
    dataset = load(folder, cache_images=cache_images, random_flip=True)
    whole = take(dataset, 12, 4)
    halves = [take(dataset, 12, 2, process_index=rank, num_processes=2) for rank in range(2)]
    accumulated = take(dataset, 24, 2, run_length=4)
    for step, batch in enumerate(whole):
        for key in batch:
            assert torch.equal(torch.cat([half[step][key] for half in halves]), batch[key])
            assert torch.equal(torch.cat([part[key] for part in accumulated[2 * step : 2 * step + 2]]), batch[key])
    for found, expected in zip(take(dataset, 3, 4, start=20), whole[5:8], strict=True):
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    worked = take(pickle.loads(pickle.dumps(dataset)), 12, 4, num_workers=2)
    assert all(torch.equal(worked[step][key], whole[step][key]) for step in range(12) for key in whole[0])
    assert len(take(dataset, 2, 3, start=7)) == 2  # resumed with another batch: at the beginning of a run


def test_reference_batches_are_in_order_and_of_one_size(folder):
    dataset = load(folder)
    for processes in (1, 2):
        for rank in range(processes):
            batches = list(dataset.reference_batches(3, rank, processes, limit=17))
            found = [dataset.captions[index] for batch in batches for index in batch["caption_ids"].tolist()]
            assert found == [f"picture {number}" for number in range(rank, 17, processes)]
            assert all(1 <= len(batch["pixel_values"]) <= 3 for batch in batches)
    assert list(dataset.reference_batches(3, 1, 2, limit=1)) == []


def test_a_conditioning_image_shares_its_images_bucket(folder, tmp_path):
    rows = []
    for number, shape in enumerate([(9, 9), (5, 18), (9, 14)]):
        picture = draw(number, *shape)
        picture.save(tmp_path / f"{number}.png")
        ImageOps.invert(picture).resize((shape[1] * 2, shape[0] * 2), Image.Resampling.NEAREST).save(
            tmp_path / f"{number}-inverse.png"
        )
        rows.append({"file_name": f"{number}.png", "conditioning_image_file_name": f"{number}-inverse.png"})
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    dataset = load(str(tmp_path), caption_column=None, conditioning_image_column="conditioning_image")
    shapes = set()
    for batch in take(dataset, 9, 1):
        shapes.add(tuple(batch["pixel_values"].shape[-2:]))
        assert batch["pixel_values"].shape == batch["conditioning_pixel_values"].shape
    assert shapes == {(8, 8), (4, 16), (8, 12)}


def test_what_cannot_work(folder):
    with pytest.raises(ValueError, match="leave out --streaming or --aspect_ratio_buckets"):
        load(folder, streaming=True)
    with pytest.raises(ValueError, match="positive number of pixels"):
        load(folder, buckets=[(0, 8)])
    with pytest.raises(ValueError, match=r"run_length \(6\) must be a multiple of all processes' batch \(4\)"):
        load(folder).batches(4, seed=0, run_length=6)
