"""Sketches are read from files and data sets, and come in reproducible, augmented batches."""

import json

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value

from diffusers_ext.data import SketchDataset, load_sketches
from diffusers_ext.data.sketch_dataset import drop_points
from diffusers_ext.data.sketch_files import Sketches, drawing_to_points


# an open square and a dot, as QuickDraw has it, and its points
DRAWING = [[[10, 40, 40, 10], [5, 5, 35, 35]], [[25], [20]]]
POINTS = [[0, 0, 0], [30, 0, 0], [0, 30, 0], [-30, 0, 1], [15, -15, 1]]


def write_ndjson(file, *words, drawing=DRAWING):
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"word": word, "recognized": True, "drawing": drawing} for word in words]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_npz(file, **lengths):
    generator, arrays = np.random.default_rng(0), {}
    for split, counts in lengths.items():
        points = generator.integers(-50, 50, (sum(counts), 3))
        points[:, 2] = points[:, 2] > 20
        arrays |= {f"{split}_lengths": np.array(counts, np.int32), f"{split}_strokes": points.astype(np.int16)}
    np.savez(file, **arrays)
    return arrays


def test_drawings_of_quickdraw_become_points():
    np.testing.assert_array_equal(drawing_to_points(DRAWING), POINTS)
    of_datasets = {"x": [stroke[0] for stroke in DRAWING], "y": [stroke[1] for stroke in DRAWING]}
    np.testing.assert_array_equal(drawing_to_points(of_datasets), POINTS)
    np.testing.assert_array_equal(drawing_to_points([{"x": x, "y": y} for x, y in DRAWING]), POINTS)
    np.testing.assert_array_equal(drawing_to_points(POINTS), POINTS)


def test_raw_drawings_are_scaled_and_simplified():
    # a straight line of many points, which trembles by a thousandth, and a corner
    x = np.concatenate([np.linspace(100, 600, 40), np.full(9, 600.0)])
    y = np.concatenate([50 + 0.5 * np.sin(np.arange(40)), np.linspace(100, 300, 9)])
    y[[0, 39]] = 50
    raw = [[x.tolist(), y.tolist(), list(range(49))], [[100.0, 100.0], [300.0, 300.0], [60, 61]]]
    points = drawing_to_points(raw)
    np.testing.assert_allclose(points[:3, :2], [[0, 0], [255, 0], [0, 127.5]], atol=1e-3)
    np.testing.assert_array_equal(points[:, 2], [0, 0, 1, 0, 1])


def test_files_of_quickdraw_have_their_words_as_classes(tmp_path):
    write_ndjson(tmp_path / "dog.ndjson", "dog", "dog")
    write_ndjson(tmp_path / "cat.ndjson", "cat")
    sketches = load_sketches(train_data_dir=str(tmp_path))
    assert sketches.id2label == {0: "cat", 1: "dog"} and sketches.labels.tolist() == [0, 1, 1]
    assert sketches.lengths.tolist() == [5, 5, 5]
    torch.testing.assert_close(sketches.points, torch.tensor(POINTS * 3, dtype=torch.float32))
    one = load_sketches(dataset_name=str(tmp_path / "cat.ndjson"), label_column="none")
    assert one.labels is None and len(one.lengths) == 1


def test_folders_can_be_splits(tmp_path):
    write_ndjson(tmp_path / "train" / "cat.ndjson", "cat", "cat")
    write_ndjson(tmp_path / "valid" / "cat.ndjson", "cat")
    lengths = [len(load_sketches(train_data_dir=str(tmp_path), split=split).lengths) for split in ("train", "valid")]
    assert lengths == [2, 1]


def test_arrays_of_points_have_splits(tmp_path):
    arrays = write_npz(tmp_path / "sheep.npz", train=[3, 5], valid=[4])
    for split in ("train", "valid"):
        sketches = load_sketches(train_data_dir=str(tmp_path / "sheep.npz"), split=split)
        assert sketches.labels is None and sketches.lengths.tolist() == arrays[f"{split}_lengths"].tolist()
        np.testing.assert_array_equal(sketches.points, arrays[f"{split}_strokes"])


def test_several_files_of_points_are_classes(tmp_path):
    write_npz(tmp_path / "sheep.npz", train=[3, 5])
    write_npz(tmp_path / "cat.npz", train=[4])
    sketches = load_sketches(train_data_dir=str(tmp_path))
    assert sketches.id2label == {0: "cat", 1: "sheep"} and sketches.labels.tolist() == [0, 1, 1]


def test_data_sets_with_columns(tmp_path):
    features = Features({"drawing": List(List(List(Value("int32")))), "word": ClassLabel(names=["cat", "dog"])})
    rows = Dataset.from_dict({"drawing": [DRAWING, DRAWING[:1]], "word": [1, 0]}, features=features)
    (tmp_path / "data").mkdir()
    rows.to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    sketches = load_sketches(dataset_name=str(tmp_path / "data"), cache_dir=str(tmp_path / "cache"))
    assert sketches.id2label == {0: "cat", 1: "dog"} and sketches.labels.tolist() == [1, 0]
    assert sketches.lengths.tolist() == [5, 4] and sketches.points[:5].tolist() == POINTS
    with pytest.raises(ValueError, match="has no column 'sketch' of sketches, but drawing, word"):
        load_sketches(dataset_name=str(tmp_path / "data"), sketch_column="sketch", cache_dir=str(tmp_path / "cache"))


def test_files_with_pickles_are_not_opened(tmp_path):
    sketches = np.empty(1, dtype=object)
    sketches[0] = np.array(POINTS, np.int16)
    np.savez(tmp_path / "cat.npz", train=sketches, valid=sketches)
    with pytest.raises(ValueError, match="has pickles, which can run code .*: convert it once .*docs/sketches.md"):
        load_sketches(train_data_dir=str(tmp_path / "cat.npz"))
    np.savez(tmp_path / "cat.npz", train_lengths=sketches, train_strokes=sketches)
    with pytest.raises(ValueError, match="cat.npz' can't be read as arrays without pickles: Object"):
        load_sketches(train_data_dir=str(tmp_path / "cat.npz"))


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "has no drawings"),
        ("{\n", "line 1 of .* is no drawing of QuickDraw"),
        ('{"drawing": [[[1, 2], [3]]]}\n', "line 1 of .* is no drawing of QuickDraw"),
        ('{"drawing": []}\n', "it has no strokes"),
        ('{"drawing": 3}\n', "line 1 of .* is no drawing of QuickDraw"),
        ('{"drawing": [[[NaN], [3]]]}\n', "a coordinate is not finite"),
        ('{"word": "cat"}\n', "line 1 of .* is no drawing of QuickDraw: .*drawing"),
        ("[1, 2]\n", "line 1 of .* is no drawing of QuickDraw"),
    ],
)
def test_wrong_drawings_are_named(tmp_path, content, message):
    (tmp_path / "cat.ndjson").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_sketches(train_data_dir=str(tmp_path / "cat.ndjson"))


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"images": np.zeros(3)}, "has no arrays train_lengths and train_strokes, but images"),
        ({"train_lengths": np.array([2]), "train_strokes": np.zeros((3, 3))}, "where P is their sum"),
        ({"train_lengths": np.array([3]), "train_strokes": np.zeros((3, 2))}, "where P is their sum"),
        ({"train_lengths": np.array([3, 0]), "train_strokes": np.zeros((3, 3))}, "which are positive"),
        ({"train_lengths": np.array([3]), "train_strokes": np.full((3, 3), 2.0)}, "lifted is 0 or 1"),
        ({"train_lengths": np.array(["a"]), "train_strokes": np.zeros((3, 3))}, "must have train_lengths"),
    ],
)
def test_wrong_arrays_are_named(tmp_path, arrays, message):
    np.savez(tmp_path / "cat.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load_sketches(train_data_dir=str(tmp_path / "cat.npz"))


def test_other_sources_are_refused(tmp_path):
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no zip")
    (tmp_path / "notes.txt").write_text("no sketch")
    for arguments, message in (
        ({"train_data_dir": str(tmp_path / "broken.npz")}, "can't be read as arrays without pickles"),
        ({"train_data_dir": str(tmp_path / "notes.txt")}, "is no file of sketches: these are .ndjson and .npz"),
        ({"train_data_dir": str(tmp_path / "missing")}, "there is no file or folder"),
        ({}, "neither is given"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            load_sketches(**arguments)
    write_ndjson(tmp_path / "cat.ndjson", "cat")
    with pytest.raises(ValueError, match="has no split 'valid': put files into folders train and valid"):
        load_sketches(train_data_dir=str(tmp_path / "cat.ndjson"), split="valid")


def make_sketches(*lengths) -> Sketches:
    points = torch.randn(sum(lengths), 3, generator=torch.Generator().manual_seed(0)) * 20
    points[:, 2] = (points[:, 2] > 20).float()
    return Sketches(points, torch.tensor(lengths), torch.arange(len(lengths)) % 2, {0: "cat", 1: "dog"})


def test_offsets_are_divided_by_their_standard_deviation():
    sketches = make_sketches(4, 9, 2)
    dataset = SketchDataset(sketches, max_length=5)
    assert dataset.num_examples == 2 and dataset.num_left_out == 1 and dataset.max_length == 5
    kept = torch.cat([sketches.points[:4], sketches.points[13:]])
    assert dataset.offset_std == pytest.approx(kept[:, :2].double().std(correction=0).item())
    (batch,) = dataset.reference_batches(8)
    assert batch["lengths"].tolist() == [4, 2] and batch["class_labels"].tolist() == [0, 0]
    torch.testing.assert_close(batch["strokes"][0, :4, :2] * dataset.offset_std, sketches.points[:4, :2])
    assert not batch["strokes"][1, 2:].any()
    with pytest.raises(ValueError, match="all sketches are longer than --max_length 1"):
        SketchDataset(sketches, max_length=1)
    with pytest.raises(ValueError, match="all offsets of the sketches are the same"):
        SketchDataset(Sketches(torch.ones(2, 3), torch.tensor([2])))


def test_batches_depend_on_the_position_alone():
    dataset = SketchDataset(make_sketches(*range(3, 14)), random_scale=0.2, point_drop=0.3)
    stream = dataset.batches(4, seed=1)
    first = [next(stream) for _ in range(6)]
    later = next(dataset.batches(4, seed=1, start=12))
    halves = [next(dataset.batches(2, seed=1, start=12, process_index=p, num_processes=2)) for p in range(2)]
    for name, values in first[3].items():
        torch.testing.assert_close(later[name], values, rtol=0, atol=0)
        torch.testing.assert_close(torch.cat([half[name] for half in halves]), values, rtol=0, atol=0)
    assert not torch.equal(next(dataset.batches(4, seed=2))["strokes"], first[0]["strokes"])
    assert SketchDataset(make_sketches(3, 4)).fingerprint() != SketchDataset(make_sketches(4, 3)).fingerprint()


def test_scales_are_within_their_range():
    plain = SketchDataset(make_sketches(*[12] * 40))
    scaled = SketchDataset(make_sketches(*[12] * 40), random_scale=0.2)
    one, other = (next(dataset.batches(40, seed=0))["strokes"] for dataset in (plain, scaled))
    factors = other[..., :2] / one[..., :2]
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors))
    assert 0.8 <= factors.min() < 0.85 and 1.15 < factors.max() <= 1.2
    assert not torch.allclose(factors[..., 0], factors[..., 1])


def drop_points_one_by_one(points, uniforms, probability):
    """A loop over points, as the text of the function says it."""
    kept, in_stroke = [], 0
    before_lifted = True
    for point, uniform in zip(points.tolist(), uniforms.tolist(), strict=True):
        lifted = point[2] > 0
        in_stroke = 0 if lifted or before_lifted else in_stroke + 1
        if not lifted and not before_lifted and in_stroke > 2 and uniform < probability:
            kept[-1] = [kept[-1][0] + point[0], kept[-1][1] + point[1], kept[-1][2]]
        else:
            kept.append(point)
        before_lifted = lifted
    return torch.tensor(kept)


def test_points_are_dropped_as_by_a_loop():
    sketches = make_sketches(30, 17, 25)
    (batch,) = SketchDataset(sketches).reference_batches(3)
    uniforms = torch.rand(3, 30, generator=torch.Generator().manual_seed(1))
    points, lengths = drop_points(batch["strokes"], batch["lengths"], uniforms, 0.5)
    assert (lengths < batch["lengths"]).all()
    for index, length in enumerate(batch["lengths"]):
        expected = drop_points_one_by_one(batch["strokes"][index, :length], uniforms[index, :length], 0.5)
        assert len(expected) == lengths[index] and not points[index, lengths[index] :].any()
        torch.testing.assert_close(points[index, : lengths[index]], expected)
    torch.testing.assert_close(points[..., :2].sum(dim=1), batch["strokes"][..., :2].sum(dim=1))
