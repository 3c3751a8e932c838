"""Latents between two latents: on a straight line or on an arc."""

import torch


PARALLEL = 1e-4  # the sine of an angle below which two latents count as parallel


def lerp(start: torch.Tensor, end: torch.Tensor, fraction: torch.Tensor) -> torch.Tensor:
    """A point on the straight line from `start` (fraction 0) to `end` (fraction 1)."""
    return (1 - fraction) * start + fraction * end


def slerp(start: torch.Tensor, end: torch.Tensor, fraction: torch.Tensor) -> torch.Tensor:
    r"""
    A point on the arc from `start` (fraction 0) to `end` (fraction 1), which keeps the length of latents.

    Normal latents of many dimensions have nearly the same length, and the middle of a straight line between two of
    them is too short to be a likely latent (White 2016, section 2.1, https://huggingface.co/papers/1609.04468). If the
    two directions are equal or opposite, or one latent is zero, the point is on the straight line.

    Args:
        start, end (`torch.Tensor` of shape `(..., D)`): the two ends.
        fraction (`torch.Tensor`, which broadcasts to `(..., 1)`): from 0 to 1.
    """
    norms = start.norm(dim=-1, keepdim=True) * end.norm(dim=-1, keepdim=True)
    cosine = (start * end).sum(dim=-1, keepdim=True) / norms.clamp(min=1e-12)
    angle = cosine.clamp(-1, 1).acos()
    is_arc = (angle.sin() > PARALLEL) & (norms > 0)
    angle = torch.where(is_arc, angle, 1.0)
    arc = (((1 - fraction) * angle).sin() * start + (fraction * angle).sin() * end) / angle.sin()
    return torch.where(is_arc, arc, lerp(start, end, fraction))


def slerp_samples(start: torch.Tensor, end: torch.Tensor, fraction: torch.Tensor) -> torch.Tensor:
    """
    As [`slerp`] for latents of any shape, each sample of which is one vector.

    Args:
        start, end (`torch.Tensor` of shape `(N, ...)`): the two ends.
        fraction (`torch.Tensor`): a single number from 0 to 1.
    """
    one, other = start.flatten(1), end.flatten(1)
    angle = torch.nn.functional.cosine_similarity(one, other, dim=1).clamp(-1, 1).acos()[:, None]
    is_arc = angle.sin() > PARALLEL
    angle = torch.where(is_arc, angle, 1.0)
    arc = (torch.sin((1 - fraction) * angle) * one + torch.sin(fraction * angle) * other) / torch.sin(angle)
    return torch.where(is_arc, arc, torch.lerp(one, other, fraction)).view_as(start)
