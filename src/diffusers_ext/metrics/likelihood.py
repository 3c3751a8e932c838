"""How many bits a model needs per dimension of an 8-bit image: its likelihood, as a bound and by the ODE.

An image has C*H*W dimensions of 256 levels; level k is 2k/255 - 1 in [-1, 1], and who knows nothing needs 8 bits for
it. Both measures give level k the probability of the same cell, 1/255 to either side, so they can be compared. What is
drawn at random for an image depends on the seed and its index in the data set only: batch sizes and the number of
processes change nothing.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from diffusers_ext.data.randomness import derive_seed
from diffusers_ext.losses.variational import prior_bits_per_dim, variational_bound_term
from diffusers_ext.metrics.arrays import as_pixel_values
from diffusers_ext.metrics.probability_flow import (
    exact_trace_probes,
    num_function_evaluations,
    ode_log_likelihood,
    probability_flow,
)
from diffusers_ext.schedulers.scheduling_gaussian_diffusion import ExactDDPMScheduler


LIKELIHOODS = ("vlb", "ode")
TRACES = ("rademacher", "gaussian", "exact")

LEVEL_WIDTH = 2 / 255


@dataclass
class VariationalBound:
    """The terms of the variational bound of N images on a chain of T steps.

    Attributes:
        total_bpd (`torch.Tensor` of shape (N,)): the bound in bits/dim: `prior_bpd` plus all of `vb`.
        prior_bpd (`torch.Tensor` of shape (N,)): the prior term in bits/dim.
        vb (`torch.Tensor` of shape (N, T)): bits/dim of the steps from the noisiest on; the last is the decoder's.
        xstart_mse, mse (`torch.Tensor` of shape (N, T)): mean squared errors of the clean image that the network
            predicts (after clipping), and of the noise that goes with it.
    """

    total_bpd: torch.Tensor
    prior_bpd: torch.Tensor
    vb: torch.Tensor
    xstart_mse: torch.Tensor
    mse: torch.Tensor


@torch.no_grad()
def vlb_bits_per_dim(
    network: Callable,
    scheduler,
    images: torch.Tensor,
    class_labels: torch.Tensor | None = None,
    *,
    seed: int = 0,
    indices: Sequence[int] | None = None,
    noise: torch.Tensor | None = None,
) -> VariationalBound:
    """The variational bound of images under a discrete process (Ho et al. 2020, eq. 5), one noise sample per step.

    Args:
        network: a denoiser with the call of UNet2DModel: `network(sample, timesteps, class_labels=...,
            return_dict=False)[0]`.
        scheduler ([`ExactDDPMScheduler`] or [`ExactDDIMScheduler`]): the process, with the chain of its last
            `set_timesteps` or the full one, its variance type and its clipping. Others stand for the full chain of
            their [`discrete_process`].
        images (`torch.Tensor` of shape (N, C, H, W)): uint8, or 8-bit levels in [-1, 1].
        class_labels (`torch.Tensor` of shape (N,), *optional*): the classes, for p(image | class).
        seed (`int`): of the noise.
        indices (`Sequence[int]`, *optional*, defaults to 0, 1, 2, ...): where the images lie in the data set.
        noise (`torch.Tensor` of shape (T, N, C, H, W), *optional*): the noise of each step, from the noisiest on,
            instead of a drawn one.

    Raises:
        ValueError: for a scheduler without such a process, no images, images out of range, other shapes of `indices`
            and `noise`, and output channels that don't suit the variance type.
    """
    if not hasattr(scheduler, "p_mean_variance"):
        scheduler = discrete_process(scheduler)
    images = as_pixel_values(images)
    generators = _generators("vlb", seed, indices, images)
    timesteps, dtype = scheduler.timesteps, getattr(network, "dtype", torch.float32)
    if noise is not None and noise.shape != (len(timesteps), *images.shape):
        raise ValueError(f"noise must have the shape {(len(timesteps), *images.shape)}, not {tuple(noise.shape)}.")

    vb, xstart_mse, mse = [], [], []
    for i, timestep in enumerate(timesteps):
        step_noise = _draw(torch.Tensor.normal_, generators, images) if noise is None else noise[i].to(images)
        steps = timestep.expand(len(images)).to(images.device)
        noisy = scheduler.q_sample(images, steps, step_noise)
        output = network(noisy.to(dtype), steps, class_labels=class_labels, return_dict=False)[0]
        term = variational_bound_term(output, images, noisy, steps, scheduler)
        vb.append(term.bits_per_dim)
        xstart_mse.append((term.pred_original_sample - images).square().mean(dim=(1, 2, 3)))
        mse.append((term.pred_epsilon - step_noise).square().mean(dim=(1, 2, 3)))
    prior, vb = prior_bits_per_dim(images, scheduler), torch.stack(vb, dim=1)
    return VariationalBound(
        total_bpd=prior + vb.sum(dim=1),
        prior_bpd=prior,
        vb=vb,
        xstart_mse=torch.stack(xstart_mse, dim=1),
        mse=torch.stack(mse, dim=1),
    )


def discrete_process(scheduler) -> ExactDDPMScheduler:
    """The process of any variance-preserving scheduler, for the variational bound; the full chain.

    Raises:
        ValueError: for a flow, and what else has no discrete variance-preserving process.
    """
    if scheduler.config.get("prediction_type") == "flow_prediction" or not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(
            f"The variational bound needs a discrete variance-preserving process, which {type(scheduler).__name__} "
            "does not have with this prediction type: measure the likelihood by the ODE."
        )
    return ExactDDPMScheduler.from_config(scheduler.config)


@dataclass
class ODELikelihood:
    """The likelihood of N images by the probability-flow ODE.

    Attributes:
        bits_per_dim (`torch.Tensor` of shape (N,)).
        error (`torch.Tensor` of shape (N,)): in bits/dim, see [`ODELogLikelihood`].
        num_function_evaluations (`int`): of the network per image.
    """

    bits_per_dim: torch.Tensor
    error: torch.Tensor
    num_function_evaluations: int


def ode_bits_per_dim(
    network: Callable,
    scheduler,
    images: torch.Tensor,
    class_labels: torch.Tensor | None = None,
    *,
    seed: int = 0,
    indices: Sequence[int] | None = None,
    num_steps: int = 50,
    trace: str = "rademacher",
    num_probes: int = 1,
) -> ODELikelihood:
    """The likelihood of 8-bit images under the density of [`ode_log_likelihood`], with uniform dequantisation.

    Uniform noise spreads each level over its cell of width 2/255 (Theis et al. 2016, section 3.1), which bounds the
    discrete likelihood: bits/dim = -log2(density) / (C*H*W) + log2(255/2). The offset is 6.994 bits; it is 7 where
    images are squeezed into [-1, 1) first, as by Song et al. (2021), against which the cells here are moved by up to
    half a level.

    Args:
        network, class_labels, seed, indices: see [`vlb_bits_per_dim`]; timesteps can be fractional.
        scheduler: any variance-preserving (epsilon, sample, v), flow-matching or EDM scheduler.
        images (`torch.Tensor` of shape (N, C, H, W)): uint8, or 8-bit levels in [-1, 1].
        num_steps (`int`): of the solver, an even number.
        trace (`str`): the random probes of Hutchinson's estimate of the divergence, `rademacher` or `gaussian`, which
            are the same all along the ODE; or `exact`, with C*H*W of them.
        num_probes (`int`): how many random probes are averaged.

    Raises:
        ValueError: for a scheduler without an ODE, no images, images out of range, and bad options.
    """
    if trace not in TRACES:
        raise ValueError(f"trace must be one of {', '.join(TRACES)}, not {trace}.")
    if num_probes < 1:
        raise ValueError(f"num_probes must be at least 1, not {num_probes}.")
    images = as_pixel_values(images)
    generators = _generators("ode", seed, indices, images)
    dequantised = images + LEVEL_WIDTH * (_draw(torch.Tensor.uniform_, generators, images) - 0.5)
    if trace == "exact":
        probes = exact_trace_probes(images)
    else:
        fill = torch.Tensor.normal_ if trace == "gaussian" else _rademacher_
        probes = torch.stack([_draw(fill, generators, images) for _ in range(num_probes)])

    result = ode_log_likelihood(network, scheduler, dequantised, probes, class_labels, num_steps)
    nats_per_bit_per_dim = math.log(2) * images[0].numel()
    return ODELikelihood(
        bits_per_dim=-result.log_likelihood / nats_per_bit_per_dim - math.log2(LEVEL_WIDTH),
        error=result.error / nats_per_bit_per_dim,
        num_function_evaluations=result.num_function_evaluations,
    )


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
        pipeline ([`ClassConditionalPipeline`]): its network, scheduler and labels.
        batches: this process's images, rows r, r + P, r + 2P, ... of the set for process r of P:
            `dataset.reference_batches(...)`, with "pixel_values" and for a class-conditional network "class_labels".
        kinds: any of `LIKELIHOODS`: `vlb` is the variational bound, `ode` the likelihood by the probability-flow ODE.
        seed: of noise, dequantisation and probes.
        num_vlb_steps: the steps of the chain of `vlb`; by default all that the network was trained on.
        num_ode_steps, num_probes: see [`ode_bits_per_dim`].
        process_index, num_processes: r and P.
        gather: puts the tensors of shape (B, ...) that the processes hold together, in the order of the set.

    Returns:
        `list[dict]`: a row for each kind. `bits_per_dim` is the mean over the images and `standard_error` that of this
        mean. `vlb` has its parts: `prior_bits_per_dim` and `decoder_bits_per_dim`; `ode` has the mean `solver_error`.

    Raises:
        ValueError: for an unknown kind, a kind that the pipeline's scheduler does not allow, and labels that the
            network does not know.
    """
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
    """What is measured of each image, and how."""

    of: Callable[[torch.Tensor, torch.Tensor | None, list[int]], torch.Tensor]
    columns: tuple[str, ...]
    provenance: dict

    def row(self, values: torch.Tensor) -> dict:
        """The mean (and its error) of the first column of `values` (N, columns), the means of the others."""
        values, count = values.double(), len(values)
        means = dict(zip(self.columns, values.mean(dim=0).tolist(), strict=True))
        error = values[:, 0].std().item() / math.sqrt(count) if count > 1 else None
        return {**means, "standard_error": error, "provenance": {"num_images": count, **self.provenance}}


def _vlb_measure(pipeline, seed: int, num_steps: int | None) -> _Measure:
    scheduler = discrete_process(pipeline.scheduler)
    if num_steps is not None:
        # Evenly from the noisiest step to the first, whatever the sampler's spacing: all of the process counts.
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
    """The labels that a pipeline's network wants for images with these."""
    if pipeline.unet.config.get("num_class_embeds") is None:
        return None
    if labels is not None:
        return torch.tensor(pipeline.get_label_ids(labels), device=pipeline.device)
    if pipeline.config.null_class_label is None:
        raise ValueError("The network needs class labels, but the images have none.")
    return torch.full((count,), pipeline.config.null_class_label, device=pipeline.device)


def _generators(name: str, seed: int, indices: Sequence[int] | None, images: torch.Tensor) -> list[torch.Generator]:
    """The stream of random numbers of each image."""
    if len(images) == 0:
        raise ValueError(f"There must be at least one image, but images have the shape {tuple(images.shape)}.")
    indices = range(len(images)) if indices is None else indices
    if len(indices) != len(images):
        raise ValueError(f"indices must be one for each of the {len(images)} images, not {len(indices)}.")
    return [torch.Generator().manual_seed(derive_seed(seed, name, int(index))) for index in indices]


def _draw(fill: Callable, generators: list[torch.Generator], images: torch.Tensor) -> torch.Tensor:
    """Numbers in the shape of `images`, drawn on the CPU so that they are the same on every device."""
    drawn = torch.empty(images.shape)
    for row, generator in zip(drawn, generators, strict=True):
        fill(row, generator=generator)
    return drawn.to(images.device)


def _rademacher_(row: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return row.bernoulli_(generator=generator).mul_(2).sub_(1)
