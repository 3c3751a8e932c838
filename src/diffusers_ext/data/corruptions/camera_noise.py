"""The task "camera_noise": the noise of a sensor, which grows with the light, in linear light."""

import torch

from diffusers_ext.data.corruptions.corruption import Corruption
from diffusers_ext.data.corruptions.levels import from_levels, to_levels
from diffusers_ext.data.corruptions.option_checks import check_number, check_range


def camera_noise(
    images: torch.Tensor,
    draw,
    *,
    shot: float | tuple[float, float] = (0.0001, 0.012),
    read: float | tuple[float, float] = (0.001, 0.03),
    gamma: float = 2.2,
) -> Corruption:
    """Camera noise: in linear light, its variance is shot * light + read^2, as that of photons and electronics.

    Foi et al. 2008 ("Practical Poissonian-Gaussian noise modeling"), with the ranges of Brooks et al. 2019
    ("Unprocessing images"). Values out of range are clipped. Transparency gets no noise.

    Args:
        images: (N, C, H, W) in [-1, 1].
        draw: draws the strengths, uniformly in their logarithms and independently, and the noise.
        shot: the lowest and the highest variance of white light, or one fixed number.
        read: the lowest and the highest standard deviation in the dark, in units of white, or one fixed number.
        gamma: light is the value to this power; 1 if the values are light already.

    Raises:
        ValueError: for a range that is reversed or not positive, or a gamma that is not positive.
    """
    strengths = []
    for name, value in (("shot", shot), ("read", read)):
        low, high = check_range(name, value, 1e-8)
        strengths.append((low * (high / low) ** draw.uniform()).view(-1, 1, 1, 1))
    check_number("gamma", gamma)
    if not gamma > 0:
        raise ValueError(f"gamma must be positive, not {gamma!r}")
    noise = draw.normal_like(images)
    light = (images.float() / 2 + 0.5).clamp(0, 1) ** gamma
    deviation = (strengths[0] * light + strengths[1].square()).sqrt()
    noisy = (light + deviation * noise).clamp(0, 1) ** (1 / gamma)
    if images.shape[1] in (2, 4):
        noisy = torch.cat([noisy[:, :-1], images[:, -1:].float() / 2 + 0.5], dim=1)
    return Corruption(from_levels(to_levels(noisy * 2 - 1)))
