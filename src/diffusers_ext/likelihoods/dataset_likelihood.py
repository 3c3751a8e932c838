"""The likelihood of a whole data set under the network of a pipeline, as rows of a table."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from diffusers_ext.likelihoods.ode_likelihood import ode_bits_per_dim
from diffusers_ext.likelihoods.probability_flow import num_function_evaluations, probability_flow
from diffusers_ext.likelihoods.variational_bound import discrete_process, vlb_bits_per_dim


LIKELIHOODS = ("vlb", "ode")


def likelihood_rows(
    pipeline,
    batches: Iterable[dict[str, torch.Tensor]],
    kinds: Sequence[str] = LIKELIHOODS,
    *,
    seed: int = 0,
    num_vlb_steps: int | None = None,
    num_ode_steps: int = 50,
    num_probes: int = 1,
    process_index: int = 0,
    num_processes: int = 1,
    gather: Callable[[list[torch.Tensor]], torch.Tensor] = torch.cat,
) -> list[dict]:
    """The likelihood of a data set under a pipeline's network, without guidance, ready for JSON.

    Args:
        pipeline ([`ClassConditionalPipeline`]): its network, scheduler and labels are used.
        batches: the images of this process, which for process r of P are the rows r, r + P, r + 2P, ... of the set:
            `dataset.reference_batches(...)`, with "pixel_values" and for a class-conditional network "class_labels".
        kinds: any of `LIKELIHOODS`: `vlb` is the variational bound, `ode` the likelihood by the probability-flow ODE.
        seed: the seed of noise, dequantisation and probes.
        num_vlb_steps: the number of steps of the chain of `vlb`; by default all steps that the network was trained on.
        num_ode_steps, num_probes: see [`ode_bits_per_dim`].
        process_index, num_processes: r and P.
        gather: joins the tensors of shape (B, ...) of all processes, in the order of the set.

    Returns:
        `list[dict]`: a row for each kind. `bits_per_dim` is the mean over the images and `standard_error` the standard
        error of this mean. A row of `vlb` also has `prior_bits_per_dim` and `decoder_bits_per_dim`, which are parts of
        the bound; a row of `ode` has the mean `solver_error`.

    Raises:
        ValueError: for a pipeline of latents, an unknown kind, a kind that the pipeline's scheduler does not allow,
            and labels that the network does not know.
    """
    if getattr(pipeline, "vae", None) is not None:
        raise ValueError("Likelihoods are measured for pixels, but this pipeline generates latents of its `vae`.")
    measures = {}
    for kind in kinds:
        if kind not in LIKELIHOODS:
            raise ValueError(f"A likelihood is one of {', '.join(LIKELIHOODS)}, not {kind}.")
        if kind == "vlb":
            measures[kind] = _vlb_measure(pipeline, seed, num_vlb_steps)
        else:
            measures[kind] = _ode_measure(pipeline, seed, num_ode_steps, num_probes)

    values, count = {kind: [] for kind in kinds}, 0
    for batch in batches:
        images = batch["pixel_values"].to(pipeline.device)
        indices = [process_index + row * num_processes for row in range(count, count + len(images))]
        count += len(images)
        labels = _class_labels(pipeline, batch.get("class_labels"), len(images))
        for kind, measure in measures.items():
            values[kind].append(measure.of(images, labels, indices))
    return [{"likelihood": kind, **measure.row(gather(values[kind]))} for kind, measure in measures.items()]


@dataclass
class _Measure:
    """What is measured for each image, and how.

    Attributes:
        of: from images, their labels and their indices to values (N, columns).
        columns: the names of the values.
        provenance: the settings of the measurement.
    """

    of: Callable[[torch.Tensor, torch.Tensor | None, list[int]], torch.Tensor]
    columns: tuple[str, ...]
    provenance: dict

    def row(self, values: torch.Tensor) -> dict:
        """The mean of each column of `values` (N, columns), and the standard error of the first mean."""
        values, count = values.double(), len(values)
        means = dict(zip(self.columns, values.mean(dim=0).tolist(), strict=True))
        error = values[:, 0].std().item() / math.sqrt(count) if count > 1 else None
        return {**means, "standard_error": error, "provenance": {"num_images": count, **self.provenance}}


def _vlb_measure(pipeline, seed: int, num_steps: int | None) -> _Measure:
    scheduler = discrete_process(pipeline.scheduler)
    if num_steps is not None:
        # Evenly from the noisiest step to the first, whatever the sampler's spacing: the bound is over the whole
        # process.
        scheduler.set_timesteps(respacing=str(num_steps))

    def measure(images, labels, indices):
        bound = vlb_bits_per_dim(pipeline.unet, scheduler, images, labels, seed=seed, indices=indices)
        return torch.stack([bound.total_bpd, bound.prior_bpd, bound.vb[:, -1]], dim=1)

    provenance = {"num_steps": len(scheduler.timesteps), "variance_type": scheduler.config.variance_type, "seed": seed}
    return _Measure(measure, ("bits_per_dim", "prior_bits_per_dim", "decoder_bits_per_dim"), provenance)


def _ode_measure(pipeline, seed: int, num_steps: int, num_probes: int) -> _Measure:
    flow = probability_flow(pipeline.scheduler)
    options = {"num_steps": num_steps, "num_probes": num_probes, "trace": "rademacher"}

    def measure(images, labels, indices):
        result = ode_bits_per_dim(
            pipeline.unet, pipeline.scheduler, images, labels, seed=seed, indices=indices, **options
        )
        return torch.stack([result.bits_per_dim, result.error], dim=1)

    provenance = {
        "solver": "rk4",
        **options,
        "num_function_evaluations": num_function_evaluations(num_steps),
        "sigma_min": math.tan(flow.start),
        "dequantization": "uniform",
        "seed": seed,
    }
    return _Measure(measure, ("bits_per_dim", "solver_error"), provenance)


def _class_labels(pipeline, labels: torch.Tensor | None, count: int) -> torch.Tensor | None:
    """The labels to call the pipeline's network with: the given ones, its null class, or None."""
    if pipeline.unet.config.get("num_class_embeds") is None:
        return None
    if labels is not None:
        return torch.tensor(pipeline.get_label_ids(labels), device=pipeline.device)
    if pipeline.config.null_class_label is None:
        raise ValueError("The network needs class labels, but the images have none.")
    return torch.full((count,), pipeline.config.null_class_label, device=pipeline.device)
