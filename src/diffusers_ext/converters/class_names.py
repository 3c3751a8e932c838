"""The names of the classes of a converted network."""

from collections.abc import Mapping

from diffusers_ext.converters.state_dicts import listed


def class_names(id2label: Mapping | None, num_classes: int | None) -> Mapping | None:
    """The names of the network's classes, by default their ids.

    Raises:
        ValueError: if `id2label` does not name each class from 0 to `num_classes - 1`, or there are none.
    """
    if id2label is None:
        return None if num_classes is None else {label: str(label) for label in range(num_classes)}
    if num_classes is None:
        raise ValueError("`id2label` names classes, but the network has none.")
    _check_class_names(id2label, num_classes)
    return id2label


def _check_class_names(id2label: Mapping, num_classes: int) -> None:
    """Refuses names that are no strings, and ids of other classes. Ids are integers or, from JSON, strings."""
    ids, wanted = [str(label) for label in id2label], [str(label) for label in range(num_classes)]
    lacking, surplus = (sorted(set(a) - set(b), key=a.index) for a, b in ((wanted, ids), (ids, wanted)))
    if lacking or surplus:
        problems = {"lacks": lacking, "also has": surplus}
        found = " and ".join(f"{problem} {listed(labels)}" for problem, labels in problems.items() if labels)
        raise ValueError(f"`id2label` must name the classes from 0 to {num_classes - 1}, but {found}.")
    for label, name in id2label.items():
        if not isinstance(name, str):
            raise ValueError(f"`id2label` must hold names, but the name of class {label} is {name!r}.")
