"""Class accuracy: whether generated images show the requested class."""

from collections.abc import Mapping

import torch

from diffusers_ext.metrics.arrays import as_matrix


def class_accuracy(predictions, requested_labels) -> dict[str, float | dict[int, float]]:
    """How often the predicted class is the requested one.

    Args:
        predictions: logits (N, K), whose largest entry is the predicted class, or class ids (N,).
        requested_labels: class ids (N,), with the same numbering.

    Returns:
        `{"accuracy", "accuracy_balanced", "accuracy_per_class"}`, each from 0 to 1: over all samples, averaged over
        the requested classes, and for each requested class id in ascending order.

    Raises:
        ValueError: for logits that are not finite, labels that are not integers, and a number of labels that differs
            from the number of predictions.
    """
    predictions, requested = torch.as_tensor(predictions).cpu(), _as_labels(requested_labels)
    predicted = (
        as_matrix(predictions, "The logits").argmax(dim=1) if predictions.ndim == 2 else _as_labels(predictions)
    )
    if predicted.shape != requested.shape:
        raise ValueError(
            f"There must be as many requested labels as predictions, not {len(requested)} for {len(predicted)}."
        )
    hits = (predicted == requested).double()
    per_class = {label: hits[requested == label].mean().item() for label in requested.unique().tolist()}
    return {
        "accuracy": hits.mean().item(),
        "accuracy_balanced": sum(per_class.values()) / len(per_class),
        "accuracy_per_class": per_class,
    }


def _as_labels(labels) -> torch.Tensor:
    labels = torch.as_tensor(labels).detach().cpu()
    if labels.ndim != 1 or labels.numel() == 0 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"Labels must be one integer per sample, not {labels.dtype} of shape {tuple(labels.shape)}.")
    return labels.long()


def match_class_ids(id2label: Mapping | None, extractor_id2label: Mapping) -> dict[int, int]:
    """The extractor's class id for each class id of a data set.

    Classes are matched by name. If either side only numbers its classes (without names, or with "3" or "LABEL_3" for
    class 3), they are matched by id, provided that both sides have the same ids.

    Args:
        id2label: the data set's class names by id, or None. Ids may be strings, as in JSON.
        extractor_id2label: the extractor's class names by id.

    Raises:
        ValueError: if the extractor has no class, or more than one, with the name of a class of the data set.
    """
    theirs = {int(i): str(name) for i, name in extractor_id2label.items()}
    ours = theirs if id2label is None else {int(i): str(name) for i, name in id2label.items()}
    if ours == theirs:
        return {i: i for i in ours}
    names = list(theirs.values())
    if all(names.count(name) == 1 for name in ours.values()):
        ids = {name: i for i, name in theirs.items()}
        return {i: ids[name] for i, name in ours.items()}
    if _only_numbered(ours) or _only_numbered(theirs):
        if ours.keys() == theirs.keys():
            return {i: i for i in ours}
        raise ValueError(
            f"The data set's {len(ours)} classes cannot be matched with the extractor's {len(theirs)} by number: use "
            "a classifier of the same classes, or give both class names."
        )
    strangers = [name for name in ours.values() if names.count(name) != 1]
    raise ValueError(
        "The extractor must have exactly one class for each class name of the data set, but does not for "
        f"{', '.join(strangers[:5])}: its classes are {', '.join(names[:10])}{' ...' if len(names) > 10 else ''}."
    )


def _only_numbered(id2label: Mapping[int, str]) -> bool:
    return all(name in (str(i), f"LABEL_{i}") for i, name in id2label.items())
