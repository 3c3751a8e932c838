"""Class labels that users pass: ids, or names from `id2label`."""

import difflib
import math
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import torch

from .checks import check_positive_int, is_integer


ClassLabels = int | str | list[int | str] | torch.Tensor | np.ndarray


def read_id2label(id2label: dict[int, str] | dict[str, str] | None) -> dict[int, str] | None:
    """The names of classes by id. Ids may be strings, because JSON has no integer keys."""
    if id2label is None:
        return None
    if not all(str(label).isdigit() for label in id2label):
        raise ValueError(f"`id2label` must map class ids to names, but has the keys {list(id2label)[:5]}.")
    return {int(label): name for label, name in id2label.items()}


def check_label_range(name: str, labels: Iterable[int | None], num_labels: int | None, network: str = "the network"):
    """
    Refuses labels in a pipeline's configuration that a network does not have.

    Args:
        name (`str`): what holds the labels.
        labels (`Iterable[int | None]`): the labels; `None` among them passes.
        num_labels (`int`, *optional*): how many labels the network has; if not given, there is no upper bound.
        network (`str`): what the error calls the network.
    """
    for label in labels:
        if label is not None and not 0 <= label < (math.inf if num_labels is None else num_labels):
            known = "class ids start at 0" if num_labels is None else f"{network} has {num_labels} classes, from 0 on"
            raise ValueError(f"`{name}` has the label {label}, but {known}.")


def check_class_labels_given(
    class_labels: ClassLabels | None,
    has_classes: bool | None,
    null_class_label: int | None,
    network: str = "the network",
):
    """
    Refuses class labels for a network without classes, and a call without them for a network that needs them.

    With `has_classes=None`, which means that it is unknown, both pass.
    """
    if class_labels is not None and has_classes is False:
        raise ValueError(f"`class_labels` must be left out, because {network} has no classes.")
    if class_labels is None and has_classes and null_class_label is None:
        raise ValueError(
            f"`class_labels` must be given, because {network} has classes, and the pipeline has no `null_class_label`."
        )


def count_images(
    num_labels: int | None, num_images_per_label: int, batch_size: int | None, name: str = "num_images_per_label"
) -> int:
    """
    The number of images of a call.

    Args:
        num_labels (`int`, *optional*): the number of class labels that are given; `None` for unconditional images.
        num_images_per_label (`int`): the number of images for each label; 1 without labels.
        batch_size (`int`, *optional*): the number of unconditional images, by default 1; `None` with labels.
        name (`str`): how the pipeline calls the number for each label.

    Raises:
        ValueError: for other combinations.
    """
    check_positive_int(name, num_images_per_label)
    if num_labels is not None:
        if batch_size is not None:
            raise ValueError(
                f"`batch_size` is for unconditional images: with `class_labels`, pass more of them, or `{name}`."
            )
        return num_labels * num_images_per_label
    if num_images_per_label != 1:
        raise ValueError(f"`{name}` needs `class_labels`: pass `batch_size` for unconditional images.")
    if batch_size is not None:
        check_positive_int("batch_size", batch_size)
    return batch_size or 1


def look_up_labels(
    class_labels: ClassLabels,
    id2label: dict[int, str] | None,
    num_labels: int | None,
    null_class_labels: Collection[int | None] = (),
    num_images: int | None = None,
) -> list[int]:
    """
    The class ids of labels that are given by id or by name. Names are spelled as in `id2label`.

    Args:
        class_labels (`int`, `str`, a list of them, `torch.Tensor` or `np.ndarray`): one label or several.
        id2label (`dict[int, str]`, *optional*): the name of each class id.
        num_labels (`int`, *optional*): how many labels there are, those for no class included. If not given, the ids
            are the keys of `id2label`, or without it, all numbers from 0 on.
        null_class_labels (`Collection[int | None]`): labels that stand for no class; `None` among them means nothing.
        num_images (`int`, *optional*): if given, `class_labels` are one for all images or one for each.

    Returns:
        `list[int]`: one id for each label, or with `num_images`, for each image.

    Raises:
        ValueError: for no label at all, an unknown or ambiguous name, an id out of range or of no class, another
            number of labels, or anything else.
    """
    if isinstance(class_labels, (torch.Tensor, np.ndarray)):
        class_labels = class_labels.tolist()
    labels = list(class_labels) if isinstance(class_labels, (list, tuple, range)) else [class_labels]
    if not labels:
        raise ValueError("`class_labels` is empty: pass one label or more, or leave it out.")
    if num_images is not None and len(labels) not in (1, num_images):
        raise ValueError(f"`class_labels` must be one label or {num_images}, one per image, but is {len(labels)}.")
    ids = [look_up_label(label, id2label or {}, num_labels, null_class_labels) for label in labels]
    return ids * num_images if num_images is not None and len(ids) == 1 else ids


def look_up_label(
    label: Any,
    id2label: dict[int, str],
    num_labels: int | None,
    null_class_labels: Collection[int | None],
    name: str = "class_labels",
) -> int:
    """The class id of one label of the argument `name`; see `look_up_labels`."""
    if isinstance(label, (np.generic, np.ndarray, torch.Tensor)) and label.ndim == 0:
        label = label.item()
    if isinstance(label, str):
        label = look_up_name(label, id2label)
    if not is_integer(label):
        raise ValueError(f"`{name}` must hold class ids (integers) or class names, but holds {label!r}.")
    if label in null_class_labels:
        raise ValueError(f"The label {label} stands for no class: leave `class_labels` out for unconditional images.")
    known = range(num_labels) if num_labels is not None else id2label
    if label < 0 or (known and label not in known):
        ids = [known_label for known_label in known if known_label not in null_class_labels]
        known = f"the class ids are {min(ids)} to {max(ids)}" if ids else "class ids start at 0"
        raise ValueError(f"There is no class {label}: {known}.")
    return label


def look_up_name(name: str, id2label: dict[int, str]) -> int:
    """The class id of a name."""
    if not id2label:
        raise ValueError(
            f"The name {name!r} cannot be looked up, because the pipeline has no `id2label`: pass a class id."
        )
    ids = [label for label, known_name in id2label.items() if known_name == name]
    if len(ids) > 1:
        raise ValueError(f"The name {name!r} belongs to the classes {ids}: pass the id of the one you mean.")
    if not ids:
        names = difflib.get_close_matches(name, id2label.values()) or list(id2label.values())
        names = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
        raise ValueError(f"There is no class named {name!r}: did you mean one of {names}?")
    return ids[0]
