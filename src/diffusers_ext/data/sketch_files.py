"""Sketches in files: Google's QuickDraw (.ndjson), arrays of points (.npz), and data sets of Hugging Face."""

import json
import os
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from diffusers_ext.data.label_column import UNLABELLED, class_names, encode_labels, find_label_column
from diffusers_ext.data.sources import open_splits


EXTENSIONS = (".ndjson", ".npz")
# Google's simplified drawings are in a square of this size, without the points that are so close to a line.
SQUARE, TOLERANCE = 255.0, 2.0


@dataclass
class Sketches:
    """N sketches, one after the other.

    Attributes:
        points: float32 (P, 3), all points as stroke-3: the offset from the point before, and 1 where the pen is lifted
            after the point. The first point of a sketch is reached with the pen lifted.
        lengths: int64 (N,), the number of points of each sketch.
        labels: int64 (N,), the class ids; None if there are none.
        id2label: the names of the classes; None if there are none.
    """

    points: torch.Tensor
    lengths: torch.Tensor
    labels: torch.Tensor | None = None
    id2label: dict[int, str] | None = None


def load_sketches(
    dataset_name: str | None = None,
    dataset_config_name: str | None = None,
    train_data_dir: str | None = None,
    split: str = "train",
    sketch_column: str = "drawing",
    label_column: str | None = None,
    cache_dir: str | None = None,
) -> Sketches:
    """One split of a set of sketches.

    A local file or folder can have .ndjson files of QuickDraw (simplified or raw), whose word is the class of a
    drawing, and .npz files with the arrays `train_lengths` (N,) and `train_strokes` (P, 3) and those of other splits;
    of several .npz files, each is a class. In a folder, the split is that of a folder `train`, `valid` ... in it, if
    there are such folders; else .ndjson files are for training. Other folders, and names on the Hub, are read by HF
    `datasets`.

    Args:
        dataset_name: a Hub name, or a local file or folder.
        dataset_config_name: the configuration of a data set on the Hub.
        train_data_dir: a local file or folder, instead of `dataset_name`.
        split: the split.
        sketch_column: of a data set of HF `datasets`, the column with the drawings.
        label_column: its column with the classes, by default `word` or `label`; "none" for none, here and for files.
        cache_dir: where downloaded data sets are kept.

    Raises:
        ValueError, FileNotFoundError: in one sentence, for what can't be read.
    """
    if (dataset_name is None) == (train_data_dir is None):
        raise ValueError(
            "give --dataset_name (a Hub name, or a local file or folder) or --train_data_dir (a file or folder), "
            + ("not both" if dataset_name is not None else "but neither is given")
        )
    name = os.path.expanduser(dataset_name if train_data_dir is None else train_data_dir)
    if train_data_dir is not None and not os.path.exists(name):
        raise FileNotFoundError(f"there is no file or folder {name!r}")
    files = _list_sketch_files(name, split)
    if files:
        found = [_read_file(file, split) for file in files]
        if len(found) > 1:  # a file of points is a class, if there are others
            names = [os.path.splitext(os.path.basename(file))[0] for file in files]
            found = [
                (points, lengths, words or [name] * len(lengths))
                for name, (points, lengths, words) in zip(names, found, strict=True)
            ]
        return _join(found, labelled=label_column != UNLABELLED)
    if os.path.isfile(name):
        raise ValueError(f"{name!r} is no file of sketches: these are {' and '.join(EXTENSIONS)}")
    return _read_columns(open_splits(name, dataset_config_name, cache_dir), name, split, sketch_column, label_column)


def _list_sketch_files(name: str, split: str) -> list[str]:
    if os.path.isfile(name):
        return [name] if name.endswith(EXTENSIONS) else []
    folder = os.path.join(name, split)
    folder = folder if os.path.isdir(folder) else name
    if not os.path.isdir(folder):
        return []
    return sorted(entry.path for entry in os.scandir(folder) if entry.name.endswith(EXTENSIONS))


def _read_file(file: str, split: str) -> tuple[np.ndarray, np.ndarray, list[str] | None]:
    """The points, the lengths, and the words of a file."""
    if file.endswith(".npz"):
        return *read_npz(file, split), None
    if split != "train" and os.path.basename(os.path.dirname(file)) != split:
        raise ValueError(
            f"{file!r} has no split {split!r}: put files into folders train and {split}, or use the split train"
        )
    drawings, words = zip(*_read_lines(file), strict=True)
    return *_concatenate(drawings), list(words)


def _join(found: list[tuple[np.ndarray, np.ndarray, list[str] | None]], labelled: bool) -> Sketches:
    points, lengths, words = zip(*found, strict=True)
    sketches = Sketches(torch.from_numpy(np.concatenate(points)), torch.from_numpy(np.concatenate(lengths)))
    if labelled and all(word is not None for of_file in words for word in of_file or [None]):
        flat = [word for of_file in words for word in of_file]
        names = class_names(flat)
        ids = {name: index for index, name in enumerate(names)}
        sketches.labels = torch.tensor([ids[word] for word in flat])
        sketches.id2label = dict(enumerate(names))
    return sketches


def read_npz(file: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The points, float32 (P, 3), and the lengths, int64 (N,), of a split of an .npz file without pickles.

    Raises:
        ValueError: for the files of sketch-rnn, which have pickles, and for other arrays.
    """
    wanted = f"{split}_lengths", f"{split}_strokes"
    try:
        with np.load(file, allow_pickle=False) as arrays:
            known = sorted(arrays.files)
            found = [arrays[name] for name in wanted if name in known]
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{file!r} can't be read as arrays without pickles: {' '.join(str(error).split())}"
        ) from error
    if len(found) < len(wanted) and split in known:
        raise ValueError(
            f"{file!r} has pickles, which can run code when they are loaded: convert it once to the arrays "
            f"{' and '.join(wanted)}, as docs/sketches.md shows"
        )
    if len(found) < len(wanted):
        raise ValueError(f"{file!r} has no arrays {' and '.join(wanted)}, but {', '.join(known)}")
    lengths, points = found
    is_numeric = all(np.issubdtype(array.dtype, np.number) for array in (lengths, points))
    fits = is_numeric and lengths.ndim == 1 and points.ndim == 2 and points.shape[1] == 3
    if not fits or lengths.sum() != len(points) or (len(lengths) and lengths.min() < 1):
        raise ValueError(
            f"{file!r} must have {split}_lengths (N,), which are positive, and {split}_strokes (P, 3), where P is "
            f"their sum, but they have the shapes {lengths.shape} and {points.shape}"
        )
    points = points.astype(np.float32)
    if not np.isfinite(points).all() or not np.isin(points[:, 2], (0, 1)).all():
        raise ValueError(f"{file!r}: points are (dx, dy, lifted) with finite offsets, and lifted is 0 or 1")
    return points, lengths.astype(np.int64)


def _read_lines(file: str) -> Iterator[tuple[np.ndarray, str | None]]:
    """The points and the word of each drawing of an .ndjson file."""
    with open(file, encoding="utf-8") as lines:
        count = 0
        for number, line in enumerate(lines, start=1):
            if line.strip():
                count += 1
                try:
                    row = json.loads(line)
                    yield drawing_to_points(row["drawing"]), row.get("word")
                except (ValueError, TypeError, KeyError) as error:
                    raise ValueError(f"line {number} of {file!r} is no drawing of QuickDraw: {error}") from error
        if not count:
            raise ValueError(f"{file!r} has no drawings")


def _read_columns(splits: dict, name: str, split: str, sketch_column: str, label_column: str | None) -> Sketches:
    if split not in splits:
        raise ValueError(f"{name!r} has no split {split!r}, its splits are {', '.join(map(str, splits))}")
    rows = splits[split]
    if sketch_column not in rows.features:
        raise ValueError(f"{name!r} has no column {sketch_column!r} of sketches, but {', '.join(rows.features)}")
    if label_column is None and "word" in rows.features:
        label_column = "word"
    drawings = []
    for number, drawing in enumerate(rows[sketch_column]):
        try:
            drawings.append(drawing_to_points(drawing))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"row {number} of {sketch_column!r} in {name!r} is no drawing: {error}") from error
    points, lengths = _concatenate(drawings)
    sketches = Sketches(torch.from_numpy(points), torch.from_numpy(lengths))
    label_column = find_label_column(rows.features, label_column)
    if label_column is not None:
        sketches.labels, sketches.id2label = encode_labels(rows, label_column, splits.values())
    return sketches


def _concatenate(drawings: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    drawings = list(drawings)
    points = np.concatenate([np.zeros((0, 3), np.float32), *drawings])
    return points, np.array([len(drawing) for drawing in drawings], dtype=np.int64)


def drawing_to_points(drawing: Any) -> np.ndarray:
    """The points, float32 (n, 3), of a drawing.

    Args:
        drawing: a list of strokes as QuickDraw has them, `[xs, ys]`, or `[xs, ys, times]` of raw drawings, which are
            scaled and simplified as Google did (https://github.com/googlecreativelab/quickdraw-dataset); in HF
            `datasets` also `{"x": ..., "y": ...}`; or points `(dx, dy, lifted)`.

    Raises:
        ValueError: if it is none of them.
    """
    if isinstance(drawing, dict):  # of HF datasets: a list of strokes for each key
        drawing = list(zip(*(drawing[key] for key in ("x", "y", "t") if key in drawing), strict=True))
    elif isinstance(drawing, list) and drawing and isinstance(drawing[0], dict):
        drawing = [[stroke[key] for key in ("x", "y", "t") if key in stroke] for stroke in drawing]
    if drawing is None or len(drawing) == 0:
        raise ValueError("it has no strokes")
    if np.ndim(drawing[0][0]) == 0:
        points = np.array(drawing, dtype=np.float32)
        if points.ndim != 2 or points.shape[1] != 3 or not np.isin(points[:, 2], (0, 1)).all():
            raise ValueError("points are (dx, dy, lifted), and lifted is 0 or 1")
    else:
        strokes = [np.stack([np.asarray(values, np.float32) for values in stroke[:2]], axis=1) for stroke in drawing]
        if any(stroke.shape[0] < 1 or stroke.shape[1:] != (2,) for stroke in strokes):
            raise ValueError("a stroke must have as many xs as ys, and at least one")
        if any(len(stroke) > 2 for stroke in drawing):
            strokes = simplify(strokes)
        points = np.concatenate(strokes)
        points = np.concatenate([np.diff(points, axis=0, prepend=points[:1]), np.zeros((len(points), 1))], axis=1)
        points[np.cumsum([len(stroke) for stroke in strokes]) - 1, 2] = 1
    if not np.isfinite(points).all():
        raise ValueError("a coordinate is not finite")
    return points.astype(np.float32)


def simplify(strokes: list[np.ndarray]) -> list[np.ndarray]:
    """Strokes, each (n, 2), in a square of 255, without points that are within 2 of the line through the others."""
    points = np.concatenate(strokes)
    low, extent = points.min(axis=0), np.ptp(points, axis=0).max()
    scale = SQUARE / extent if extent > 0 else 1.0
    return [_without_points_on_lines((stroke - low) * scale) for stroke in strokes]


def _without_points_on_lines(stroke: np.ndarray) -> np.ndarray:
    """The algorithm of Ramer, Douglas and Peucker."""
    kept = np.zeros(len(stroke), dtype=bool)
    kept[[0, -1]] = True
    parts = [(0, len(stroke) - 1)]
    while parts:
        first, last = parts.pop()
        if last - first < 2:
            continue
        inner, (x, y) = stroke[first + 1 : last] - stroke[first], stroke[last] - stroke[first]
        length = np.hypot(x, y)
        distances = np.abs(inner[:, 0] * y - inner[:, 1] * x) / length if length else np.hypot(*inner.T)
        farthest = distances.argmax()
        if distances[farthest] > TOLERANCE:
            middle = first + 1 + farthest
            kept[middle] = True
            parts += [(first, middle), (middle, last)]
    return stroke[kept]
