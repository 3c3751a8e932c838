import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from diffusers_ext.data.image_folder import list_files, load_image_folder

from .drawing import write_images


def load(folder: Path, label_column: str | None = None) -> dict[str, dict[str, str | None]]:
    """split -> {path of an image relative to the folder: name of its class}"""
    found = {}
    for split, rows in load_image_folder(str(folder), list_files(str(folder)), label_column).items():
        paths = [os.path.relpath(image["path"], folder) for image in rows["image"]]
        feature = rows.features.get("label")
        labels = [None] * len(rows) if feature is None else feature.int2str(list(rows["label"]))
        found[split] = dict(zip(paths, labels, strict=True))
    return found


def test_flat_folder_is_unlabelled_whatever_its_files_are_called(tmp_path):
    write_images(tmp_path, "a.png", "b.JPG", "c.Jpeg", "my test.png", "train-1.webp")
    assert load(tmp_path) == {"train": dict.fromkeys(["a.png", "b.JPG", "c.Jpeg", "my test.png", "train-1.webp"])}


def test_hidden_files_special_folders_and_other_files_are_left_out(tmp_path):
    write_images(tmp_path, "a.png", ".b.png", ".cache/c.png", "__MACOSX/d.png")
    for name in ("notes.txt", "a.txt", "Thumbs.db", "c.eps"):
        (tmp_path / name).write_text("caption")
    assert load(tmp_path) == {"train": {"a.png": None}}


def test_class_folders(tmp_path):
    write_images(tmp_path, "dog/b.png", "cat/a.png", "dog [1]/c.png")
    assert load(tmp_path) == {"train": {"cat/a.png": "cat", "dog [1]/c.png": "dog [1]", "dog/b.png": "dog"}}
    assert load(tmp_path, "none") == {"train": dict.fromkeys(["cat/a.png", "dog [1]/c.png", "dog/b.png"])}


def test_classes_named_by_numbers_are_in_their_order(tmp_path):
    write_images(tmp_path, "10/a.png", "9/b.png", "1/c.png")
    rows = load_image_folder(str(tmp_path), list_files(str(tmp_path)))["train"]
    assert rows.features["label"].names == ["1", "9", "10"]


def test_one_class_folder_is_a_class_only_if_asked_for(tmp_path):
    write_images(tmp_path, "cat/a.png", "cat/b.png")
    assert load(tmp_path) == {"train": {"cat/a.png": None, "cat/b.png": None}}
    assert load(tmp_path, "label") == {"train": {"cat/a.png": "cat", "cat/b.png": "cat"}}


def test_splits(tmp_path):
    write_images(tmp_path, "train/cat/a.png", "train/dog/b.png", "val/dog/c.png", "test2017/cat/d.png")
    assert load(tmp_path) == {
        "train": {"train/cat/a.png": "cat", "train/dog/b.png": "dog"},
        "validation": {"val/dog/c.png": "dog"},
        "test": {"test2017/cat/d.png": "cat"},
    }


def test_splits_share_their_classes(tmp_path):
    write_images(tmp_path, "train/cat/a.png", "train/dog/b.png", "test/dog/c.png")
    splits = load_image_folder(str(tmp_path), list_files(str(tmp_path)))
    assert splits["test"].features == splits["train"].features
    assert list(splits["test"]["label"]) == [1]


def test_folders_around_everything(tmp_path):
    write_images(tmp_path / "one", "data/photos/cat/a.png", "data/photos/dog/b.png")
    write_images(tmp_path / "two", "data/train/a.png", "data/test/b.png")
    assert load(tmp_path / "one") == {"train": {"data/photos/cat/a.png": "cat", "data/photos/dog/b.png": "dog"}}
    assert load(tmp_path / "two") == {"train": {"data/train/a.png": None}, "test": {"data/test/b.png": None}}


def test_a_class_named_like_a_split_has_to_be_declared(tmp_path):
    write_images(tmp_path, "bus/a.png", "train/b.png")
    with pytest.raises(ValueError, match="'train', which is named like a split, and 'bus'"):
        load(tmp_path)
    assert load(tmp_path, "label") == {"train": {"bus/a.png": "bus", "train/b.png": "train"}}


def test_a_stray_image_does_not_cost_the_labels_silently(tmp_path):
    write_images(tmp_path, "cat/a.png", "dog/b.png", "stray.png")
    with pytest.raises(ValueError, match="different depths .'stray.png' and"):
        load(tmp_path)
    assert set(load(tmp_path, "none")["train"]) == {"cat/a.png", "dog/b.png", "stray.png"}


def write_metadata(path: Path, rows: list[dict]) -> None:
    if path.suffix == ".csv":
        lines = [",".join(rows[0])] + [",".join(str(value) for value in row.values()) for row in rows]
        path.write_text("\n".join(lines) + "\n")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pa.parquet.write_table(pa.Table.from_pylist(rows), path)


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_metadata_files(tmp_path, name):
    write_images(tmp_path, "a.png", "b/c.png", "unlisted.png")
    write_metadata(tmp_path / name, [{"file_name": "b/c.png", "label": "x"}, {"file_name": "a.png", "label": "y"}])
    rows = load_image_folder(str(tmp_path), list_files(str(tmp_path)))["train"]
    assert [os.path.relpath(image["path"], tmp_path) for image in rows["image"]] == ["b/c.png", "a.png"]
    assert list(rows["label"]) == ["x", "y"]


def test_metadata_of_splits_and_of_several_image_columns(tmp_path):
    write_images(tmp_path, "train/photo/a.png", "train/edges/a.png", "test/photo/b.png", "test/edges/b.png")
    for split, name in (("train", "a.png"), ("test", "b.png")):
        row = {"file_name": f"photo/{name}", "edges_file_name": f"edges/{name}", "text": name}
        write_metadata(tmp_path / split / "metadata.jsonl", [row])
    splits = load_image_folder(str(tmp_path), list_files(str(tmp_path)))
    assert list(splits) == ["train", "test"]
    row = splits["test"][0]
    assert row["image"]["path"] == str(tmp_path / "test/photo/b.png")
    assert row["edges"]["path"] == str(tmp_path / "test/edges/b.png")
    assert row["text"] == "b.png"


def test_metadata_above_the_splits(tmp_path):
    write_images(tmp_path, "train/a.png", "test/b.png")
    rows = [{"file_name": "train/a.png", "label": 3}, {"file_name": "test/b.png", "label": 4}]
    write_metadata(tmp_path / "metadata.csv", rows)
    splits = load_image_folder(str(tmp_path), list_files(str(tmp_path)))
    assert list(splits["train"]["label"]) == [3] and list(splits["test"]["label"]) == [4]


@pytest.mark.parametrize("name", ["../a.png", "/etc/passwd", "file:///etc/passwd", "b/../../a.png"])
def test_metadata_cannot_point_outside(tmp_path, name):
    write_images(tmp_path, "a.png")
    write_metadata(tmp_path / "metadata.jsonl", [{"file_name": name}])
    with pytest.raises(ValueError, match="must be relative and stay inside"):
        load(tmp_path)


def test_metadata_files_of_different_columns(tmp_path):
    write_images(tmp_path, "a/1.png", "b/2.png")
    write_metadata(tmp_path / "a" / "metadata.jsonl", [{"file_name": "1.png"}])
    write_metadata(tmp_path / "b" / "metadata.jsonl", [{"file_name": "2.png", "label": "x"}])
    rows = load_image_folder(str(tmp_path), list_files(str(tmp_path)))["train"]
    assert list(rows["label"]) == [None, "x"]
    write_metadata(tmp_path / "a" / "metadata.jsonl", [{"file_name": "1.png", "label": 1}])
    with pytest.raises(ValueError, match="the metadata files of .* differ in the types of a column"):
        load(tmp_path)


def test_metadata_with_file_names_that_are_no_text(tmp_path):
    write_images(tmp_path, "a.png")
    (tmp_path / "metadata.csv").write_bytes(b"file_name,label\ncaf\xe9.png,x\n")
    with pytest.raises(ValueError, match="metadata.csv' cannot be read: .* invalid UTF8"):
        load(tmp_path)
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "metadata.jsonl").write_text('{"file_name": 7}')
    with pytest.raises(ValueError, match="'metadata.jsonl' names 7: file names must be text"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["7", "2024-05-01"])
def test_file_names_may_look_like_numbers_and_dates(tmp_path, name):
    write_images(tmp_path, "a.png")
    (tmp_path / "metadata.csv").write_text(f"file_name,label\n{name},2024-05-01\n")
    rows = load_image_folder(str(tmp_path), list_files(str(tmp_path)))["train"]
    assert [os.path.basename(image["path"]) for image in rows["image"]] == [name]
    assert list(rows["label"]) == ["2024-05-01"]


def test_links_around_themselves_are_not_followed(tmp_path):
    write_images(tmp_path / "set", "a/1.png", "b/2.png")
    write_images(tmp_path / "elsewhere", "3.png")
    (tmp_path / "set" / "a" / "loop").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "c").symlink_to(tmp_path / "elsewhere")
    assert load(tmp_path / "set") == {"train": {"a/1.png": "a", "b/2.png": "b", "c/3.png": "c"}}


def test_metadata_without_file_names_or_broken(tmp_path):
    write_images(tmp_path, "a.png")
    write_metadata(tmp_path / "metadata.csv", [{"name": "a.png", "label": 1}])
    with pytest.raises(ValueError, match="no column 'file_name' .* only name, label"):
        load(tmp_path)
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "metadata.jsonl").write_text("not json")
    with pytest.raises(ValueError, match="metadata.jsonl' cannot be read"):
        load(tmp_path)
