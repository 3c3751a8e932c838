"""The task "motion_blur": the blur of a camera that shakes while it takes a photograph."""

import math

import torch

from diffusers_ext.data.corruptions.blur import blur, trace_kernel
from diffusers_ext.data.corruptions.corruption import Corruption
from diffusers_ext.data.corruptions.levels import from_levels, to_levels
from diffusers_ext.data.corruptions.option_checks import check_range


NUM_POSITIONS = 256  # of the camera, at equal times


def motion_blur(
    images: torch.Tensor,
    draw,
    *,
    length: float | tuple[float, float] = (5.0, 20.0),
    shake: float | tuple[float, float] = (0.0, 2.0),
) -> Corruption:
    """Blur by a shaking camera: each point moves along a random curve, at a constant speed.

    Simpler than the trajectories of Boracchi and Foi 2012 ("Modeling the performance of image restoration from motion
    blur"), on which DeblurGAN was trained (Kupyn et al. 2018, section 4.1): the direction is a random walk. Beyond the
    borders, the outermost pixels are repeated. Colours are weighted by the alpha channel if there is one.

    Args:
        images: (N, C, H, W) in [-1, 1].
        draw: draws lengths and shakes, uniformly, and the curves.
        length: the shortest and the longest way that a point moves, in pixels, or one fixed number.
        shake: by how much the direction changes along this way: the smallest and the largest standard deviation, in
            radians, or one fixed number; 0 is a straight line.

    Raises:
        ValueError: for a range that is negative or reversed.
    """
    kernels = draw_kernels(draw, check_range("length", length, 0), check_range("shake", shake, 0))
    blurred = [blur(image, kernel.to(image)) for image, kernel in zip(images.float(), kernels, strict=True)]
    return Corruption(from_levels(to_levels(torch.stack(blurred))))


def draw_kernels(draw, length: tuple[float, float], shake: tuple[float, float]) -> list[torch.Tensor]:
    """A kernel (K, K) for each sample, with odd K and sum 1; see [`motion_blur`]."""
    lengths, shakes = (
        (low + (high - low) * draws).tolist()
        for (low, high), draws in zip((length, shake), draw.host.uniform(2).unbind(1), strict=True)
    )
    angles, steps = (2 * math.pi * draw.host.uniform()).tolist(), draw.host.normal(NUM_POSITIONS - 1)
    return [shaken_kernel(*values) for values in zip(lengths, shakes, angles, steps, strict=True)]


def shaken_kernel(length: float, shake: float, angle: float, steps: torch.Tensor) -> torch.Tensor:
    """The trace of a point along a curve, with its mean in the centre: (K, K) with odd K and sum 1.

    Args:
        length: of the curve, in pixels.
        shake: the standard deviation of its last direction from its first, in radians.
        angle: its first direction, in radians.
        steps: standard normal numbers (T,), the random walk of the direction.
    """
    directions = angle + shake * (steps / math.sqrt(len(steps))).cumsum(0)
    moves = torch.stack([directions.cos(), directions.sin()]) * (length / len(steps))
    positions = torch.cat([torch.zeros(2, 1), moves.cumsum(1)], dim=1)
    positions = positions - positions.mean(1, keepdim=True)
    return trace_kernel(*positions, math.ceil(positions.abs().max()))
