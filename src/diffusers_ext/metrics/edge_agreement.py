"""The agreement of two edge maps, as the F1 score of their pixels."""

import math

import torch
import torch.nn.functional as F


def edge_f1(edges: torch.Tensor, reference: torch.Tensor, tolerance: int | None = None) -> torch.Tensor:
    """The harmonic mean of the precision and the recall of edges.

    As in Martin et al. 2004 ("Learning to detect natural image boundaries"), an edge pixel matches if the other map
    has one within `tolerance` pixels.

    Args:
        edges: bool (N, H, W).
        reference: the correct edges, bool (N, H, W).
        tolerance: in pixels, along rows, columns and diagonals; by default 0.75% of the diagonal of the image, rounded
            down (1 from 95 pixels on), as in the Berkeley benchmark.

    Returns:
        float32 (N,), from 0 to 1: 1 if neither map has edges, 0 if only one has edges.

    Raises:
        ValueError: for different shapes.
    """
    if edges.shape != reference.shape or edges.ndim != 3:
        raise ValueError(
            f"edges and their reference must have the same shape (N, H, W), not {tuple(edges.shape)} and "
            f"{tuple(reference.shape)}"
        )
    if tolerance is None:
        tolerance = int(0.0075 * math.hypot(*edges.shape[1:]))
    precision, recall = _found(edges, reference, tolerance), _found(reference, edges, tolerance)
    f1 = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
    return torch.where(edges.flatten(1).any(1) | reference.flatten(1).any(1), f1, 1.0)


def _found(edges: torch.Tensor, others: torch.Tensor, tolerance: int) -> torch.Tensor:
    """The fraction of edge pixels with a pixel of `others` nearby: (N,), 0 for an image without edges."""
    near = F.max_pool2d(others[:, None].float(), 2 * tolerance + 1, stride=1, padding=tolerance)[:, 0] > 0
    counts = edges.flatten(1).sum(1)
    return (edges & near).flatten(1).sum(1) / counts.clamp(min=1)
