"""The likelihood of 8-bit images by the probability-flow ODE, in bits per dimension."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from diffusers_ext.likelihoods.image_noise import draw_like, image_generators, rademacher_
from diffusers_ext.likelihoods.probability_flow import exact_trace_probes, ode_log_likelihood
from diffusers_ext.pixels import as_pixel_values


TRACES = ("rademacher", "gaussian", "exact")

LEVEL_WIDTH = 2 / 255


@dataclass
class ODELikelihood:
    """The likelihood of N images by the probability-flow ODE.

    Attributes:
        bits_per_dim (`torch.Tensor` of shape (N,)): the likelihood.
        error (`torch.Tensor` of shape (N,)): the solver's error in bits/dim, see [`ODELogLikelihood`].
        num_function_evaluations (`int`): how often the network was called for each image.
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
    discrete likelihood: bits/dim = -log2(density) / (C*H*W) + log2(255/2). The offset is 6.994 bits. Song et al.
    (2021) first squeeze images into [-1, 1); their offset is 7, and their cells differ from the ones here by up to
    half a level.

    Args:
        network, class_labels, seed, indices: see [`vlb_bits_per_dim`]; timesteps can be fractional.
        scheduler: any variance-preserving (epsilon, sample, v), flow-matching or EDM scheduler.
        images (`torch.Tensor` of shape (N, C, H, W)): uint8, or 8-bit levels in [-1, 1].
        num_steps (`int`): the number of steps of the solver, an even number.
        trace (`str`): how the divergence is computed: with random probes, `rademacher` or `gaussian` (Hutchinson's
            estimate; the probes stay the same along the whole ODE), or with the C*H*W probes of `exact`.
        num_probes (`int`): how many random probes are averaged.

    Raises:
        ValueError: for a scheduler without an ODE, no images, images out of range, and bad options.
    """
    if trace not in TRACES:
        raise ValueError(f"trace must be one of {', '.join(TRACES)}, not {trace}.")
    if num_probes < 1:
        raise ValueError(f"num_probes must be at least 1, not {num_probes}.")
    images = as_pixel_values(images)
    generators = image_generators("ode", seed, indices, images)
    dequantised = images + LEVEL_WIDTH * (draw_like(images, torch.Tensor.uniform_, generators) - 0.5)
    if trace == "exact":
        probes = exact_trace_probes(images)
    else:
        fill = torch.Tensor.normal_ if trace == "gaussian" else rademacher_
        probes = torch.stack([draw_like(images, fill, generators) for _ in range(num_probes)])

    result = ode_log_likelihood(network, scheduler, dequantised, probes, class_labels, num_steps)
    nats_per_bit_per_dim = math.log(2) * images[0].numel()
    return ODELikelihood(
        bits_per_dim=-result.log_likelihood / nats_per_bit_per_dim - math.log2(LEVEL_WIDTH),
        error=result.error / nats_per_bit_per_dim,
        num_function_evaluations=result.num_function_evaluations,
    )
