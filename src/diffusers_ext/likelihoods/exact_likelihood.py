"""The likelihood of a whole data set under a pipeline that knows it exactly, as a row of a table."""

import math
from collections.abc import Callable, Iterable

import torch


def exact_likelihood_row(
    pipeline,
    batches: Iterable[dict[str, torch.Tensor]],
    *,
    gather: Callable[[list[torch.Tensor]], torch.Tensor] = torch.cat,
) -> dict:
    """The exact likelihood of a data set, ready for JSON.

    Args:
        pipeline: has a method `bits_per_dim(images, class_labels)`, as [`AutoregressivePipeline`].
        batches: the images of this process: `dataset.reference_batches(...)`, with "pixel_values" and for a
            class-conditional pipeline "class_labels".
        gather: joins the tensors (B,) of all processes, in the order of the set.

    Returns:
        `dict`: `bits_per_dim` is the mean over the images, and `standard_error` the standard error of this mean.

    Raises:
        ValueError: if the pipeline needs class labels, and the images have none.
    """
    values = []
    for batch in batches:
        labels = batch.get("class_labels") if pipeline.num_classes is not None else None
        values.append(pipeline.bits_per_dim(batch["pixel_values"], labels))
    return mean_row("exact", gather(values))


def mean_row(likelihood: str, values: torch.Tensor) -> dict:
    """The row of a kind of likelihood whose bits/dim are `values` (N,)."""
    values = values.double()
    error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else None
    return {
        "likelihood": likelihood,
        "bits_per_dim": values.mean().item(),
        "standard_error": error,
        "provenance": {"num_images": len(values)},
    }
