import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from datasets import Array3D, ClassLabel, Dataset, DatasetDict, Features, Image, Value
from sklearn.datasets import load_digits

from diffusers_ext.data import load_image_dataset

from .drawing import draw, write_images


def png(number: int) -> bytes:
    file = io.BytesIO()
    draw(number).save(file, "PNG")
    return file.getvalue()


def reference(dataset):
    return next(dataset.reference_batches(100))


def write_parquet(folder: Path, features: Features | None = None, name: str = "train.parquet", **columns) -> Path:
    folder.mkdir(exist_ok=True)
    Dataset.from_dict(columns, features=features).to_parquet(folder / name)
    return folder


def load_parquet(folder: Path, **arguments):
    cache = str(folder.parent / "cache")
    return load_image_dataset(train_data_dir=str(folder), resolution=8, cache_dir=cache, **arguments)


def assert_images(dataset, numbers: list[int]) -> None:
    expected = np.stack([np.asarray(draw(number)).transpose(2, 0, 1) for number in numbers])
    assert (reference(dataset)["pixel_values"].numpy() == expected).all()


def test_digits():
    sets = {split: load_image_dataset("digits", split=split, resolution=8, channels=1) for split in ("train", "test")}
    assert [sets[split].num_examples for split in sets] == [1266, 531]
    assert sets["train"].id2label == dict(
        enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
    )
    ours, theirs = Counter(), Counter()
    for dataset in sets.values():
        batch = next(dataset.reference_batches(2000))
        images, labels = batch["pixel_values"].squeeze(1).numpy(), batch["class_labels"].tolist()
        ours.update((label, image.tobytes()) for image, label in zip(images, labels, strict=True))
        shares = np.bincount(labels) / len(labels)
        assert shares.min() > 0.09 and shares.max() < 0.11  # stratified
    digits = load_digits()
    for image, label in zip(digits.images, digits.target, strict=True):
        theirs[(int(label), np.round(image * 255 / 16).astype(np.uint8).tobytes())] += 1
    assert ours == theirs  # every digit once, with exact pixels and its label


def test_digits_in_colour_and_larger():
    batch = reference(load_image_dataset("digits", resolution=(16, 24), channels=3, split="test"))
    assert batch["pixel_values"].shape == (100, 3, 16, 24)
    assert (batch["pixel_values"][:, :1] == batch["pixel_values"]).all()


def test_parquet_with_class_labels(tmp_path):
    features = Features({"image": Image(), "label": ClassLabel(names=["cat", "dog"])})
    folder = write_parquet(tmp_path / "set", features, image=[draw(0), draw(1), draw(2)], label=[1, 0, 1])
    dataset = load_parquet(folder)
    assert dataset.id2label == {0: "cat", 1: "dog"}
    assert_images(dataset, [0, 1, 2])
    assert reference(dataset)["class_labels"].tolist() == [1, 0, 1]
    assert load_parquet(folder, label_column="none").id2label is None
    assert "class_labels" not in reference(load_parquet(folder, label_column="none"))
    assert [path.name for path in folder.iterdir()] == ["train.parquet"]  # nothing written


@pytest.mark.parametrize(
    "values, names, ids",
    [
        (["dog", "cat", "dog"], ["cat", "dog"], [1, 0, 1]),
        ([10, 2, 7], ["2", "7", "10"], [2, 0, 1]),
        (["10", "2", "7"], ["2", "7", "10"], [2, 0, 1]),
        ([True, False, True], ["False", "True"], [1, 0, 1]),
    ],
)
def test_strings_and_integers_are_classes(tmp_path, values, names, ids):
    folder = write_parquet(tmp_path / "set", img=[png(0), png(1), png(2)], kind=values)
    dataset = load_parquet(folder, image_column="img", label_column="kind")
    assert dataset.id2label == dict(enumerate(names))
    assert reference(dataset)["class_labels"].tolist() == ids


def test_splits_number_their_strings_alike(tmp_path):
    write_parquet(tmp_path / "set", image=[png(0), png(1)], label=["cat", "dog"])
    folder = write_parquet(tmp_path / "set", name="test.parquet", image=[png(2)], label=["dog"])
    dataset = load_parquet(folder, split="test")
    assert dataset.id2label == {0: "cat", 1: "dog"} and reference(dataset)["class_labels"].tolist() == [1]


def test_columns_of_bytes_paths_and_arrays(tmp_path):
    assert_images(load_parquet(write_parquet(tmp_path / "bytes", image=[png(3), png(4)])), [3, 4])
    folder = write_parquet(tmp_path / "paths", image=["images/3.png", str(tmp_path / "4.png")])
    (folder / "images").mkdir()
    draw(3).save(folder / "images" / "3.png")
    draw(4).save(tmp_path / "4.png")
    assert_images(load_parquet(folder), [3, 4])
    features = Features({"image": Array3D(shape=(8, 8, 3), dtype="uint8")})
    arrays = [np.asarray(draw(number)) for number in (3, 4)]
    assert_images(load_parquet(write_parquet(tmp_path / "arrays", features, image=arrays)), [3, 4])


def test_saved_to_disk(tmp_path):
    rows = Dataset.from_dict({"image": [draw(0), draw(1)]}, features=Features({"image": Image()}))
    rows.save_to_disk(tmp_path / "one")
    DatasetDict({"train": rows, "test": rows.select([1])}).save_to_disk(tmp_path / "several")
    assert_images(load_image_dataset(str(tmp_path / "one"), resolution=8), [0, 1])
    assert_images(load_image_dataset(str(tmp_path / "several"), resolution=8, split="test"), [1])


def test_a_folder_by_either_name(tmp_path):
    write_images(tmp_path, "cat/0.png", "dog/1.png")
    for arguments in ({"dataset_name": str(tmp_path)}, {"train_data_dir": str(tmp_path)}):
        dataset = load_image_dataset(resolution=8, **arguments)
        assert_images(dataset, [0, 1])
        assert dataset.id2label == {0: "cat", 1: "dog"}


def test_the_card_of_a_repository_says_how_to_read_it(tmp_path):
    write_images(tmp_path / "set", "good/a.png", "good/b.png", "bad/c.png")
    (tmp_path / "set" / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: good/*\n---\n")
    assert load_parquet(tmp_path / "set").num_examples == 2
    (tmp_path / "set" / "README.md").write_text("Photos: good and bad\n")
    assert load_parquet(tmp_path / "set").num_examples == 3
    (tmp_path / "set" / "README.md").write_text("---\nconfigs: [\n---\n")
    with pytest.raises(ValueError, match="README.md' is not YAML"):
        load_parquet(tmp_path / "set")


def labelled(tmp_path: Path, feature, values: list, **arguments):
    features = Features({"image": Image(), "label": feature})
    return load_parquet(write_parquet(tmp_path / "set", features, image=[draw(0), draw(1)], label=values), **arguments)


def test_rows_without_label_are_refused(tmp_path):
    with pytest.raises(ValueError, match="2 of 2 rows have no label in column 'label' .null, empty or -1, first"):
        labelled(tmp_path, ClassLabel(names=["a"]), [-1, -1])
    with pytest.raises(ValueError, match="1 of 2 rows have no label .* first in row 1"):
        labelled(tmp_path, Value("string"), ["a", None])
    with pytest.raises(ValueError, match="1 of 2 rows have no label .* first in row 0"):
        labelled(tmp_path, Value("string"), ["", "a"])
    assert labelled(tmp_path, Value("string"), ["a", None], label_column="none").num_examples == 2


def test_columns_that_are_no_classes_or_no_images(tmp_path):
    with pytest.raises(ValueError, match="'label' has Value.'float32'., not classes"):
        labelled(tmp_path, Value("float32"), [0.5, 1.0])
    with pytest.raises(ValueError, match="'image' has Image.*not classes"):
        labelled(tmp_path, Value("int64"), [0, 1], label_column="image")
    with pytest.raises(ValueError, match="'label' has Value.'int64'., not images"):
        labelled(tmp_path, Value("int64"), [0, 1], image_column="label")
    with pytest.raises(ValueError, match="no image column 'picture', the columns are image, label"):
        labelled(tmp_path, Value("int64"), [0, 1], image_column="picture")
    with pytest.raises(ValueError, match="no label column 'kind', the columns are image, label"):
        labelled(tmp_path, Value("int64"), [0, 1], label_column="kind")


def test_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder '.*missing'"):
        load_image_dataset(train_data_dir=str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load_image_dataset(dataset_name="./missing")
    with pytest.raises(ValueError, match="contains neither images nor data files"):
        load_image_dataset(train_data_dir=str(tmp_path))
    write_images(tmp_path, "train/a.png", "test/b.png")
    with pytest.raises(ValueError, match="no split 'validation', its splits are train, test"):
        load_image_dataset(train_data_dir=str(tmp_path), split="validation")
    with pytest.raises(ValueError, match="no split 'val', its splits are train, test"):
        load_image_dataset("digits", split="val")


def test_a_broken_data_file_is_named(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match="the data set '.*set' cannot be loaded"):
        load_parquet(tmp_path / "set")
    labelled(tmp_path, Value("int64"), [0, 1])
    whole = (tmp_path / "set" / "train.parquet").read_bytes()
    (tmp_path / "set" / "train-1.parquet").write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="the data set '.*set' cannot be loaded: .*[Pp]arquet"):
        load_parquet(tmp_path / "set")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "neither is given"),
        ({"dataset_name": "digits", "train_data_dir": "."}, "not both"),
        ({"dataset_name": "digits", "resolution": 0}, "resolution must be"),
        ({"dataset_name": "digits", "resolution": (8, 8, 8)}, "resolution must be"),
        ({"dataset_name": "digits", "resolution": 8.0}, "resolution must be"),
        ({"dataset_name": "digits", "channels": 5}, "channels must be"),
        (
            {"dataset_name": "digits", "streaming": True, "cache_images": True},
            "leave out --streaming, or --cac",
        ),
        (
            {"dataset_name": "digits", "streaming": True, "verify_images": True},
            "leave out --streaming, or --cac",
        ),
        ({"dataset_name": "digits", "shuffle_buffer_size": 0}, "shuffle_buffer_size must be"),
    ],
)
def test_impossible_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_image_dataset(**arguments)


def test_bitmaps_of_quickdraw(tmp_path):
    generator = np.random.default_rng(0)
    cats, dogs = (generator.integers(0, 256, (count, 9), dtype=np.uint8) for count in (3, 2))
    np.save(tmp_path / "cat.npy", cats)
    np.save(tmp_path / "dog.npy", dogs.reshape(2, 3, 3))
    dataset = load_image_dataset(train_data_dir=str(tmp_path), resolution=3, channels=1, cache_images=False)
    (batch,) = dataset.reference_batches(8)
    assert dataset.id2label == {0: "cat", 1: "dog"} and batch["class_labels"].tolist() == [0, 0, 0, 1, 1]
    np.testing.assert_array_equal(batch["pixel_values"].flatten(1), np.concatenate([cats, dogs]))


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros((2, 7), np.uint8), r"must have gray images, .* but has uint8 \(2, 7\)"),
        (np.zeros((2, 9)), "must have gray images, .* but has float64"),
        (np.array([None]), "can't be read as an array without pickles"),
    ],
)
def test_other_arrays_are_named(tmp_path, array, message):
    np.save(tmp_path / "cat.npy", array)
    with pytest.raises(ValueError, match=message):
        load_image_dataset(train_data_dir=str(tmp_path), resolution=3, channels=1)
