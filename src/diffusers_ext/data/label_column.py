"""The label column of a data set: finding it, and converting its values to class ids with names."""

import re
from collections.abc import Iterable

import torch
from datasets import ClassLabel, Dataset, Features, Value


# The `label_column` that ignores the labels of a data set.
UNLABELLED = "none"


def find_label_column(features: Features, label_column: str | None) -> str | None:
    """The name of the column with the class labels, or None for an unlabelled set.

    Args:
        features: the columns of the data set.
        label_column: None uses the column "label" if it exists; "none" uses no labels.

    Raises:
        ValueError: if there is no such column, or its values are not classes.
    """
    if label_column == UNLABELLED or label_column is None and "label" not in features:
        return None
    label_column = label_column or "label"
    if label_column not in features:
        raise ValueError(f"there is no label column {label_column!r}, the columns are {', '.join(features)}")
    feature = features[label_column]
    if not isinstance(feature, ClassLabel) and not _is_discrete(feature):
        raise ValueError(
            f"the label column {label_column!r} has {feature}, not classes (a ClassLabel, strings or integers): "
            f"choose another column, or give --label_column {UNLABELLED} to train without labels"
        )
    return label_column


def _is_discrete(feature) -> bool:
    return isinstance(feature, Value) and re.fullmatch(r"(large_)?string|u?int\d+|bool", feature.dtype) is not None


def class_names(values: Iterable) -> list[str]:
    """The distinct values as sorted strings; in numerical order (2 before 10) if all are integers."""
    names = {str(value) for value in values}
    if all(re.fullmatch(r"-?\d+", name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def encode_labels(dataset: Dataset, column: str, splits: Iterable[Dataset]) -> tuple[torch.Tensor, dict[int, str]]:
    """The class ids of all rows, int64 (N,), and the names of the classes by id.

    A ClassLabel column has names. Strings and integers are numbered in the order of `class_names`, over all `splits`
    with the column, so that all splits of a set have the same ids.

    Raises:
        ValueError: if rows have no label (null, empty or -1).
    """
    values = dataset[column][:]
    missing = [row for row, value in enumerate(values) if is_missing(value)]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(values)} rows have no label in column {column!r} (null, empty or -1, first in "
            f"row {missing[0]}): choose a split with labels, or give --label_column {UNLABELLED}"
        )
    feature = dataset.features[column]
    if isinstance(feature, ClassLabel):
        return torch.tensor(values, dtype=torch.int64), dict(enumerate(feature.names))
    everywhere = {value for split in splits if column in split.features for value in split[column][:]}
    names = class_names(value for value in everywhere if not is_missing(value))
    ids = {name: index for index, name in enumerate(names)}
    return torch.tensor([ids[str(value)] for value in values], dtype=torch.int64), dict(enumerate(names))


def is_missing(label) -> bool:
    """Whether a label is missing: null, an empty cell of a CSV file, or the -1 of test splits."""
    return label is None or label == "" or label == -1
