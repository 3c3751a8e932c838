"""Optimisation in the latent space of a generator: the projector of StyleGAN2 (Karras et al. 2020, appendix D)."""

import math
from collections.abc import Callable, Iterable

import torch
from torch.nn import functional as F


SMALLEST_NOISE_MAP = 8  # the regularization stops at maps of this size


def ramped(progress: float, rampup: float = 0.05, rampdown: float = 0.25) -> float:
    """
    What the learning rate is multiplied by: it rises linearly, and falls along a cosine at the end.

    Args:
        progress (`float`): the share of the steps that are done, from 0 to less than 1.
        rampup, rampdown (`float`): over which shares of the steps it rises and falls.
    """
    fall = min(1.0, (1 - progress) / rampdown)
    return (0.5 - 0.5 * math.cos(fall * math.pi)) * min(1.0, progress / rampup)


def perturbation_scale(progress: float, factor: float = 0.05, ramp: float = 0.75) -> float:
    """How strong the noise on latents is, in units of their spread: it falls to 0 over a share `ramp` of the steps."""
    return factor * max(0.0, 1 - progress / ramp) ** 2


def noise_correlation(noise: torch.Tensor) -> torch.Tensor:
    """
    The squared correlations of maps of noise with themselves, moved by a pixel, at all scales (eq. 8 and 9).

    Without this term, the maps would hold the image themselves.

    Args:
        noise (`torch.Tensor` of shape `(N, 1, H, W)`): the maps, whose mean square is 1.

    Returns:
        `torch.Tensor` of shape `(N,)`.
    """
    total = noise.new_zeros(len(noise))
    while True:
        for dim in (3, 2):
            total = total + (noise * noise.roll(1, dims=dim)).mean(dim=(1, 2, 3)).square()
        if noise.shape[2] <= SMALLEST_NOISE_MAP:
            return total
        noise = F.avg_pool2d(noise, kernel_size=2)


def standardized(noise: torch.Tensor) -> torch.Tensor:
    """Maps `(N, 1, H, W)` with the mean 0 and the mean square 1 in each."""
    noise = noise - noise.mean(dim=(1, 2, 3), keepdim=True)
    return noise * noise.square().mean(dim=(1, 2, 3), keepdim=True).rsqrt()


def optimize_latents(
    loss: Callable[[torch.Tensor, list[torch.Tensor]], torch.Tensor],
    latents: torch.Tensor,
    noise: list[torch.Tensor],
    num_steps: int,
    learning_rate: float,
    perturbations: Iterable[torch.Tensor] | None = None,
    spread: float = 1.0,
    noise_factor: float = 0.05,
    noise_weight: float = 1e5,
    others: Iterable[torch.nn.Parameter] = (),
    others_rate: float = 0.1,
    steps: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """
    The latents, and maps of noise, that lower a loss, by Adam. Each image is optimised on its own.

    Args:
        loss (`Callable`): `loss(latents, noise)`, of shape `(N,)`.
        latents (`torch.Tensor` of shape `(N, ...)`): where they start.
        noise (`list[torch.Tensor]`): where the maps start, `(N, 1, H, W)`; an empty list optimises none.
        num_steps (`int`): how many steps.
        learning_rate (`float`): of Adam, at its height.
        perturbations (`Iterable`, *optional*): normal noise for each step, of the shape of `latents` or one that is
            broadcast to it. Less and less of it is added to the latents, so that they leave bad optima.
        spread (`float`): how far random latents are from their average, as the root of the mean squared distance.
        noise_factor (`float`): how much of `perturbations * spread` is added in the first step.
        noise_weight (`float`): the weight of [`noise_correlation`].
        others (`Iterable`): parameters that are optimised, too.
        others_rate (`float`): their learning rate, as a fraction of that of the latents.
        steps (`Callable`): what shows the progress of the steps.

    Returns:
        `tuple`: the latents and the maps, without gradients.
    """
    with torch.enable_grad():
        latents = latents.detach().clone().requires_grad_(True)
        noise = [maps.detach().clone().requires_grad_(True) for maps in noise]
        others = list(others)
        optimised = [latents, *noise, *others]
        groups = [{"params": [latents, *noise], "share": 1.0}]
        if others:
            groups.append({"params": others, "share": others_rate})
        optimizer = torch.optim.Adam(groups, betas=(0.9, 0.999))
        perturbations = None if perturbations is None else iter(perturbations)
        for step in steps(range(num_steps)):
            progress = step / num_steps
            for group in optimizer.param_groups:
                group["lr"] = group["share"] * learning_rate * ramped(progress)
            moved = latents
            if perturbations is not None:
                moved = latents + next(perturbations) * (spread * perturbation_scale(progress, noise_factor))
            total = loss(moved, noise).sum()
            if noise:
                total = total + noise_weight * sum(noise_correlation(maps).sum() for maps in noise)
            for tensor, gradient in zip(optimised, torch.autograd.grad(total, optimised), strict=True):
                tensor.grad = gradient
            optimizer.step()
            with torch.no_grad():
                for maps in noise:
                    maps.copy_(standardized(maps))
    return latents.detach(), [maps.detach() for maps in noise]
