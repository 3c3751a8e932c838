"""Captions: where they are read from, which one is drawn for an image, and errors about missing ones."""

import itertools
import json

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as PILImage

from diffusers_ext.data import load_image_dataset

from .drawing import draw, write_images


WAYS = {"cached": {"cache_images": True}, "uncached": {"cache_images": False}, "streamed": {"streaming": True}}


def load(folder, way: str = "cached", **arguments):
    options = {"resolution": 8, "caption_column": "text", "shuffle_buffer_size": 3}
    return load_image_dataset(train_data_dir=str(folder), **(options | WAYS[way] | arguments))


def take(dataset, num_batches: int, batch_size: int = 4, **arguments) -> list[dict[str, torch.Tensor]]:
    return list(itertools.islice(dataset.batches(batch_size, **({"seed": 3} | arguments)), num_batches))


def captions(dataset, batches: list[dict[str, torch.Tensor]]) -> list[str]:
    return [dataset.captions[index] for batch in batches for index in batch["caption_ids"].tolist()]


def number_of(pixel_values: torch.Tensor, count: int) -> list[int]:
    """The numbers of these drawn images."""
    known = torch.stack([torch.from_numpy(np.array(draw(number))) for number in range(count)])
    known = known.permute(0, 3, 1, 2) / 127.5 - 1
    return [(known - image).abs().amax(dim=(1, 2, 3)).argmin().item() for image in pixel_values]


def write_metadata(folder, rows: list[dict]):
    write_images(folder, *(f"{number}.png" for number in range(len(rows))))
    lines = [json.dumps({"file_name": f"{number}.png", **row}) for number, row in enumerate(rows)]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("way", WAYS)
def test_each_image_comes_with_its_caption(tmp_path, way):
    write_metadata(tmp_path, [{"text": f"picture {number}"} for number in range(5)])
    dataset = load(tmp_path, way)
    batches = take(dataset, 5)
    for batch in batches:
        assert batch["caption_ids"].dtype == torch.int64 and batch["caption_ids"].shape == (4,)
        shown = [dataset.captions[index] for index in batch["caption_ids"]]
        assert shown == [f"picture {number}" for number in number_of(batch["pixel_values"], 5)]
    reference = next(dataset.reference_batches(10))
    assert captions(dataset, [reference]) == [f"picture {number}" for number in range(5)]
    without = load(tmp_path, way, caption_column=None)
    assert without.captions is None and set(take(without, 1)[0]) == {"pixel_values"}


@pytest.mark.parametrize("way", WAYS)
def test_one_of_several_captions_is_drawn_for_each_visit(tmp_path, way):
    write_metadata(tmp_path, [{"many": [f"{number}{letter}" for letter in "abcde"]} for number in range(4)])
    dataset = load(tmp_path, way, caption_column="many")
    batches = take(dataset, 100)
    drawn = captions(dataset, batches)
    seen = [number for batch in batches for number in number_of(batch["pixel_values"], 4)]
    assert [int(caption[0]) for caption in drawn] == seen
    counts = [drawn.count(caption) for caption in dataset.captions]
    assert len(counts) == 20 and min(counts) >= 8 and max(counts) <= 36  # 20 each, expected
    # Images draw independently: the letters within an epoch differ.
    assert len({tuple(caption[1] for caption in sorted(drawn[start : start + 4])) for start in range(0, 400, 4)}) > 50
    assert captions(dataset, [next(dataset.reference_batches(10))]) == ["0a", "1a", "2a", "3a"]


@pytest.mark.parametrize("way", WAYS)
def test_processes_resuming_workers_and_seeds(tmp_path, way):
    write_metadata(tmp_path, [{"text": [f"{number}{letter}" for letter in "abc"]} for number in range(5)])
    dataset = load(tmp_path, way)
    whole = captions(dataset, take(dataset, 6))
    assert captions(dataset, take(load(tmp_path, way), 6)) != [] and whole == captions(dataset, take(dataset, 6))
    later = load(tmp_path, way)
    assert captions(later, take(later, 2, 5, start=6)) == whole[6:16]
    shares = [load(tmp_path, way) for _ in range(2)]
    batches = [take(share, 6, 2, process_index=rank, num_processes=2) for rank, share in enumerate(shares)]
    split = [
        captions(share, [batch])
        for pair in zip(*batches, strict=True)
        for share, batch in zip(shares, pair, strict=True)
    ]
    assert [caption for part in split for caption in part] == whole
    worked = load(tmp_path, way)
    assert captions(worked, take(worked, 6, num_workers=1)) == whole
    assert captions(dataset, take(dataset, 6, seed=4)) != whole


@pytest.mark.parametrize("way", WAYS)
def test_text_files_beside_the_images(tmp_path, way):
    write_images(tmp_path, "a/0.png", "a/1.png", "b/c/2.JPG", "3.dots.png")
    (tmp_path / "a" / "0.txt").write_text("\ufeffa cat\n", encoding="utf-8")
    (tmp_path / "a" / "1.txt").write_text("a dog\r\n\r\n  a puppy \n", encoding="utf-8", newline="")
    (tmp_path / "b" / "c" / "2.txt").write_text("чашка", encoding="utf-8")
    (tmp_path / "3.dots.txt").write_text("dots")
    (tmp_path / "readme.txt").write_text("no caption")
    dataset = load(tmp_path, way, label_column="none")
    reference = next(dataset.reference_batches(10))
    assert captions(dataset, [reference]) == ["dots", "a cat", "a dog", "чашка"]
    assert "a puppy" in captions(dataset, take(dataset, 10))


def test_text_files_beside_images_that_metadata_describe(tmp_path):
    write_images(tmp_path, "0.png", "1.png")
    (tmp_path / "metadata.csv").write_text("file_name,label\n1.png,b\n0.png,a\n")
    for number in range(2):
        (tmp_path / f"{number}.txt").write_text(f"picture {number}")
    dataset = load(tmp_path)
    reference = next(dataset.reference_batches(2))
    assert captions(dataset, [reference]) == ["picture 1", "picture 0"]
    assert reference["class_labels"].tolist() == [1, 0]
    (tmp_path / "metadata.csv").write_text("file_name,text\n1.png,said here\n0.png,and here\n")
    dataset = load(tmp_path)
    assert captions(dataset, [next(dataset.reference_batches(2))]) == ["said here", "and here"]


@pytest.mark.parametrize("way", WAYS)
def test_columns_of_a_data_set(tmp_path, way):
    features = Features(
        {
            "image": Image(),
            "one": Value("large_string"),
            "many": List(Value("string")),
            "kind": ClassLabel(names=["x", "y"]),
        }
    )
    rows = {"image": [draw(0), draw(1)], "one": ["a", "b"], "many": [["c", None, " "], ["d", "e"]], "kind": [1, 0]}
    Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "set")
    for column, expected in {"one": ["a", "b"], "many": ["c", "d"], "kind": ["y", "x"]}.items():
        dataset = load(tmp_path / "set", way, caption_column=column)
        assert captions(dataset, [next(dataset.reference_batches(2))]) == expected


def test_class_names_of_the_digits_are_captions():
    dataset = load_image_dataset("digits", resolution=8, channels=1, caption_column="label")
    reference = next(dataset.reference_batches(200))
    assert [dataset.captions[i] for i in reference["caption_ids"]] == [
        dataset.id2label[label] for label in reference["class_labels"].tolist()
    ]
    assert sorted(dataset.captions) == sorted(dataset.id2label.values())


def test_captions_follow_readable_images(tmp_path):
    write_metadata(tmp_path, [{"text": f"picture {number}"} for number in range(4)])
    (tmp_path / "1.png").write_bytes(b"")
    for way in WAYS:
        dataset = load(tmp_path, way, skip_unreadable_images=True)
        assert captions(dataset, [next(dataset.reference_batches(4))]) == ["picture 0", "picture 2", "picture 3"]


@pytest.mark.parametrize("way", ["cached", "uncached"])
@pytest.mark.parametrize("nothing", [None, "", "  "])
def test_images_without_captions_are_named(tmp_path, way, nothing):
    write_metadata(tmp_path, [{"text": "a"}, {"text": nothing}, {"text": nothing}])
    sentence = r"2 of 3 images have no caption in column 'text', first .*1\.png: add the captions, remove the images"
    with pytest.raises(ValueError, match=sentence):
        load(tmp_path, way)


def test_missing_text_files_and_empty_lists(tmp_path):
    write_images(tmp_path, "0.png", "1.png")
    with pytest.raises(ValueError, match="no caption column 'text', the columns are image; .* .txt file beside each"):
        load(tmp_path)
    (tmp_path / "0.txt").write_text("only this one")
    with pytest.raises(ValueError, match=r"1 of 2 images have no caption in column 'text', first .*1\.png"):
        load(tmp_path)
    (tmp_path / "1.txt").write_text("\n\n")
    with pytest.raises(ValueError, match=r"1 of 2 images have no caption"):
        load(tmp_path)
    (tmp_path / "1.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"1\.txt' are not UTF-8"):
        load(tmp_path)
    write_metadata(tmp_path / "lists", [{"text": ["a"]}, {"text": []}])
    with pytest.raises(ValueError, match=r"1 of 2 images have no caption in column 'text', first .*1\.png"):
        load(tmp_path / "lists")


def test_what_is_no_text(tmp_path):
    write_metadata(tmp_path, [{"text": 3}, {"text": 4}])
    with pytest.raises(ValueError, match="the caption column 'text' has Value.'int64'., not text or lists of text"):
        load(tmp_path)
    with pytest.raises(ValueError, match="no caption column 'caption', the columns are text, image"):
        load(tmp_path, caption_column="caption")


def test_a_stream_meets_a_missing_caption(tmp_path):
    features = Features({"image": Image(), "text": Value("string")})
    rows = Dataset.from_dict({"image": [draw(0), draw(1)], "text": ["a", None]}, features=features)
    rows.to_parquet(tmp_path / "train.parquet")
    dataset = load(tmp_path, "streamed", cache_dir=str(tmp_path / "cache"))
    with pytest.raises(ValueError, match="image 1 of epoch 0 has no caption in column 'text': add the captions"):
        next(dataset.reference_batches(2))


@pytest.mark.parametrize("way", WAYS)
def test_the_fingerprint_is_of_the_captions_too(tmp_path, way):
    write_metadata(tmp_path, [{"text": "a", "other": "a"}, {"text": "b", "other": "c"}])
    prints = [load(tmp_path, way, caption_column=column).fingerprint() for column in (None, "text", "other")]
    assert len(set(prints)) == 3 and prints[1] == load(tmp_path, way).fingerprint()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("center_crop", [True, False])
def test_time_ids_say_what_was_cut_out(tmp_path, way, center_crop):
    """Pixels encode their row and column, so that a crop shows its position."""
    write_metadata(tmp_path, [{"text": "a"}])
    columns = torch.arange(24).repeat(16, 1) * 10
    rows = torch.arange(16)[:, None].repeat(1, 24) * 10
    pixels = torch.stack([rows, columns, columns], dim=-1).to(torch.uint8).numpy()
    PILImage.fromarray(pixels).save(tmp_path / "0.png")
    dataset = load(tmp_path, way, resolution=(16, 6), center_crop=center_crop, random_flip=True)
    batch = take(dataset, 1, 40)[0]
    levels = ((batch["pixel_values"] + 1) * 127.5).round().int()
    for image, ids in zip(levels, batch["time_ids"].tolist(), strict=True):
        assert ids[:2] == [16, 24] and ids[4:] == [16, 6] and ids[2] == 0
        first, last = image[1, 0, 0].item() // 10, image[1, 0, -1].item() // 10
        assert ids[3] == (first if first < last else 23 - first)
    assert len(set(batch["time_ids"][:, 3].tolist())) == (1 if center_crop else 15) or not center_crop
    assert next(dataset.reference_batches(1))["time_ids"].tolist() == [[16, 24, 0, 9, 16, 6]]
