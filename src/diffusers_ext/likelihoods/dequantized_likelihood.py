"""The likelihood of a whole data set under a density of dequantized pixels, as a row of a table."""

from collections.abc import Callable, Iterable

import torch

from diffusers_ext.data.randomness import derive_seed
from diffusers_ext.likelihoods.exact_likelihood import mean_row


def dequantized_likelihood_row(
    pipeline,
    batches: Iterable[dict[str, torch.Tensor]],
    *,
    seed: int = 0,
    process_index: int = 0,
    num_processes: int = 1,
    gather: Callable[[list[torch.Tensor]], torch.Tensor] = torch.cat,
) -> dict:
    """The bound on the likelihood of a data set by uniform dequantization, ready for JSON.

    Args:
        pipeline: has a method `bits_per_dim(images, class_labels, generator)`, as [`DensityPipeline`].
        batches: the images of this process, which for process r of P are the rows r, r + P, r + 2P, ... of the set:
            `dataset.reference_batches(...)`, with "pixel_values" and for a class-conditional pipeline "class_labels".
        seed: the seed of the dequantization, which depends only on it and on the index of the image.
        process_index, num_processes: r and P.
        gather: joins the tensors (B,) of all processes, in the order of the set.

    Returns:
        `dict`: `bits_per_dim` is the mean over the images, and `standard_error` the standard error of this mean.

    Raises:
        ValueError: for a density of latents.
    """
    values, count = [], 0
    for batch in batches:
        images = batch["pixel_values"]
        indices = [process_index + row * num_processes for row in range(count, count + len(images))]
        count += len(images)
        generators = [torch.Generator().manual_seed(derive_seed(seed, "dequantization", i)) for i in indices]
        labels = batch.get("class_labels") if pipeline.num_classes is not None else None
        values.append(pipeline.bits_per_dim(images, labels, generator=generators))
    row = mean_row("dequantized", gather(values))
    return {**row, "provenance": {**row["provenance"], "dequantization": "uniform", "seed": seed}}
