"""Decoded images on the disk: decoded once, whatever happens, and never different from the files."""

import itertools
import logging
import multiprocessing
import os
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from diffusers_ext.data import ImageDataset, UnreadableImagesError, image_dataset, load_image_dataset
from diffusers_ext.data.decoded_images import PIXELS

from .drawing import draw, write_images


NAMES = [f"{number}.png" for number in range(7)]


@pytest.fixture
def decoded(monkeypatch) -> Counter:
    """How often each file was decoded in this process."""
    counts = Counter()

    def decode_image(value, *arguments):
        counts[Path(value).name] += 1
        return original(value, *arguments)

    original = image_dataset.decode_image
    monkeypatch.setattr(image_dataset, "decode_image", decode_image)
    return counts


def load(folder: Path, cache: Path, **options) -> ImageDataset:
    # All images have another shape than the crops, so they are kept at several shapes.
    settings = {"resolution": (6, 9), "cache_images": True, "random_flip": True, "cache_dir": str(cache)}
    return load_image_dataset(train_data_dir=str(folder), **(settings | options))


def pixels(dataset: ImageDataset, num_batches: int = 5) -> torch.Tensor:
    batches = itertools.islice(dataset.batches(3, seed=1), num_batches)
    references = [batch["pixel_values"].float() for batch in dataset.reference_batches(3)]
    return torch.cat([*(batch["pixel_values"] for batch in batches), *references])


def kept(cache: Path) -> list[Path]:
    return sorted(cache.glob("diffusers_ext/decoded_images/*/"))


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def uncached(folder: Path, cache: Path, **options) -> torch.Tensor:
    return pixels(load(folder, cache, cache_images=False, **options))


def test_a_second_start_decodes_nothing(tmp_path, decoded):
    folder, cache = write_images(tmp_path / "images", *NAMES), tmp_path / "cache"
    expected = uncached(folder, cache)
    load(folder, cache).prepare()
    first = decoded.copy()
    decoded.clear()
    dataset = load(folder, cache)
    assert torch.equal(pixels(dataset), expected) and dataset.cached
    assert first and not decoded and len(kept(cache)) == 1


def test_only_changed_images_are_decoded_again(tmp_path, decoded):
    names = [f"{number:03}.png" for number in range(100)]
    folder, cache = write_images(tmp_path / "images", *names), tmp_path / "cache"
    load(folder, cache).prepare()
    draw(5, 12, 13).save(folder / "041.png")
    draw(6, 12, 13).save(folder / "new.png")
    (folder / "077.png").unlink()
    decoded.clear()
    dataset = load(folder, cache)
    dataset.prepare()
    assert decoded["041.png"] == decoded["new.png"] == 1 and decoded.total() < 25
    assert torch.equal(pixels(dataset), uncached(folder, cache))


def test_a_file_that_keeps_its_size_and_time_is_noticed(tmp_path):
    folder, cache = write_images(tmp_path / "images", *NAMES), tmp_path / "cache"
    load(folder, cache).prepare()
    path = folder / "3.png"
    state = path.stat()
    path.write_bytes(path.read_bytes()[:100] + bytes(state.st_size - 100))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(UnreadableImagesError, match="3.png"):
        load(folder, cache).prepare()


def test_pixels_depend_on_what_is_done_to_them(tmp_path):
    folder, cache = write_images(tmp_path / "images", *NAMES), tmp_path / "cache"
    options = [{}, {"resolution": 5}, {"center_crop": True}, {"load_size": 10}, {"channels": 1}]
    for _ in range(2):
        for option in options:
            assert torch.equal(pixels(load(folder, cache, **option)), uncached(folder, cache, **option))
    assert len(kept(cache)) == len(options)


@pytest.mark.parametrize("damage", ["truncated", "flipped bit", "no pixels", "no index", "index", "flipped index"])
def test_damage_is_noticed_and_mended(tmp_path, caplog, damage):
    folder, cache = write_images(tmp_path / "images", *NAMES), tmp_path / "cache"
    load(folder, cache).prepare()
    for path in kept(cache)[0].iterdir():
        content = bytearray(path.read_bytes())
        if (path.name == PIXELS) == (damage in ("truncated", "flipped bit", "no pixels")):
            if damage.startswith("no"):
                path.unlink()
                continue
            if damage.startswith("flipped"):
                content[-20] ^= 16
            path.write_bytes(content if damage.startswith("flipped") else content[: len(content) // 2])
    assert torch.equal(pixels(load(folder, cache)), uncached(folder, cache))
    assert any("are damaged" in message for message in warnings(caplog))
    caplog.clear()
    assert torch.equal(pixels(load(folder, cache)), uncached(folder, cache)) and not warnings(caplog)


def fail_to_write(monkeypatch, error: OSError) -> None:
    """The disk is full after two images."""

    def write(folder, identities, images):
        (folder / PIXELS).write_bytes(next(iter(images)).pixels.numpy().tobytes())
        raise error

    monkeypatch.setattr("diffusers_ext.data.decoded_images._write", write)


def test_a_full_disk_is_survived(tmp_path, monkeypatch, caplog):
    folder, cache = write_images(tmp_path / "images", *NAMES), tmp_path / "cache"
    with monkeypatch.context() as patch:
        fail_to_write(patch, OSError(28, "No space left on device"))
        dataset = load(folder, cache)
        assert torch.equal(pixels(dataset), uncached(folder, cache)) and not dataset.cached
    (warning,) = warnings(caplog)
    assert "No space left on device" in warning and "--cache_dir" in warning
    assert kept(cache) == []
    pixels(load(folder, cache))
    assert len(kept(cache)) == 1


def test_what_does_not_fit_on_the_disk_is_not_tried(tmp_path, monkeypatch, caplog):
    folder, cache = write_images(tmp_path / "images", *NAMES), tmp_path / "cache"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 1000))
    dataset = load(folder, cache, resolution=64)
    assert torch.equal(pixels(dataset), uncached(folder, cache, resolution=64)) and not dataset.cached
    (warning,) = warnings(caplog)
    assert "they need" in warning and "decoded each time" in warning and kept(cache) == []


def test_what_is_kept_already_is_used_on_a_full_disk(tmp_path, monkeypatch, caplog):
    folder, cache = write_images(tmp_path / "images", *NAMES), tmp_path / "cache"
    load(folder, cache).prepare()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 0))
    dataset = load(folder, cache)
    dataset.prepare()
    assert dataset.cached and not warnings(caplog)


def test_a_place_that_is_no_folder(tmp_path, caplog):
    folder, cache = write_images(tmp_path / "images", *NAMES), tmp_path / "cache"
    cache.mkdir()
    (cache / "diffusers_ext").write_text("a file of the user")
    assert torch.equal(pixels(load(folder, cache)), uncached(folder, cache))
    assert "can't be kept" in warnings(caplog)[0]
    assert (cache / "diffusers_ext").read_text() == "a file of the user"


@pytest.mark.parametrize("kept_or_not", [True, False])
def test_unreadable_images_are_replaced_in_the_same_way_with_and_without_a_cache(tmp_path, kept_or_not):
    folder, cache = write_images(tmp_path / "images", *NAMES), tmp_path / "cache"
    for name in ("2.png", "3.png", "6.png"):
        (folder / name).write_bytes(b"no image")
    with pytest.raises(UnreadableImagesError) as caught:
        load(folder, cache, cache_images=kept_or_not, verify_images=True).prepare()
    assert [Path(file).name for file in caught.value.files] == ["2.png", "3.png", "6.png"]
    options = {"skip_unreadable_images": True, "cache_images": kept_or_not}
    dataset = load(folder, cache, **options)
    mine = pixels(dataset)
    assert torch.equal(mine, uncached(folder, cache, skip_unreadable_images=True))
    assert torch.equal(mine, pixels(load(folder, cache, **options, verify_images=True)))
    assert (dataset.num_examples, dataset.num_skipped, dataset.epoch_length) == (4, 3, 7)
    shares = [dataset.batches(2, seed=1, process_index=index, num_processes=2) for index in range(2)]
    both = torch.cat([next(share)["pixel_values"] for _ in range(3) for share in shares])
    assert torch.equal(both, mine[:12])


def test_an_image_that_becomes_readable_is_decoded(tmp_path):
    folder, cache = write_images(tmp_path / "images", *NAMES), tmp_path / "cache"
    whole = (folder / "2.png").read_bytes()
    away = tmp_path / "away.png"
    (folder / "2.png").rename(away)
    (folder / "2.png").symlink_to(away)
    away.unlink()
    with pytest.raises(UnreadableImagesError, match="no such file"):
        load(folder, cache).prepare()
    away.write_bytes(whole)
    dataset = load(folder, cache)
    dataset.prepare()
    assert dataset.num_skipped == 0


def test_verified_images_are_not_verified_again(tmp_path, decoded):
    folder, cache = (
        write_images(tmp_path / "images", *[f"{number:03}.png" for number in range(50)]),
        tmp_path / "cache",
    )
    for expected in (50, 0):
        decoded.clear()
        load(folder, cache, cache_images=False, verify_images=True).prepare()
        assert decoded.total() == expected
    assert kept(cache) and sum(path.stat().st_size for path in cache.rglob(PIXELS)) == 0


def decode_slowly(folder: str, cache: str, times) -> None:
    original = image_dataset.decode_image

    def decode_image(value, *arguments):
        times.append(Path(value).name)
        time.sleep(0.02)
        return original(value, *arguments)

    image_dataset.decode_image = decode_image
    load(Path(folder), Path(cache), resolution=8).prepare()


def test_processes_that_start_at_once_share_the_work(tmp_path):
    names = [f"{number:03}.png" for number in range(60)]
    folder, cache = write_images(tmp_path / "images", *names), tmp_path / "cache"
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager:
        times = manager.list()
        processes = [context.Process(target=decode_slowly, args=(folder, cache, times)) for _ in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0, 0, 0]
        # 60 once, and at most 20 in each process to estimate how large all are
        assert len(times) <= 60 + 3 * 20
    assert len(kept(cache)) == 1


def test_what_is_kept_is_said(tmp_path, caplog):
    folder, cache = write_images(tmp_path / "images", *NAMES), tmp_path / "cache"
    with caplog.at_level(logging.INFO):
        load(folder, cache).prepare()
    (said,) = [record.getMessage() for record in caplog.records if "decoded images" in record.getMessage()]
    assert "MB" in said and str(kept(cache)[0]) in said


def test_images_larger_than_a_block(tmp_path):
    folder, cache = tmp_path / "images", tmp_path / "cache"
    folder.mkdir()
    for number in range(3):
        draw(number, 700 + number, 800).save(folder / f"{number}.png")
    for _ in range(2):
        dataset = load(folder, cache, resolution=(600, 700))
        assert torch.equal(
            pixels(dataset, 2), pixels(load(folder, cache, resolution=(600, 700), cache_images=False), 2)
        )
