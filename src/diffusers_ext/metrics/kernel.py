"""The kernel distance between two sets of features (KID)."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from diffusers_ext.metrics.arrays import BLOCK_ELEMENTS, as_feature_pair, row_blocks


MAX_SUBSET_SIZE = 1000

Kernel = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def polynomial_kernel(
    x: torch.Tensor, y: torch.Tensor, degree: int = 3, gamma: float | None = None, coef0: float = 1.0
) -> torch.Tensor:
    """(gamma x.y + coef0)^degree for all pairs of rows of `x` (N, D) and `y` (M, D); gamma defaults to 1 / D."""
    gamma = 1 / x.shape[1] if gamma is None else gamma
    return (x @ y.T).mul_(gamma).add_(coef0).pow_(degree)


def rbf_kernel(x: torch.Tensor, y: torch.Tensor, sigma: float = 10.0) -> torch.Tensor:
    """exp(-|x - y|^2 / (2 sigma^2)) for all pairs of rows of `x` (N, D) and `y` (M, D)."""
    squares = (x @ y.T).mul_(-2).add_(x.square().sum(1)[:, None]).add_(y.square().sum(1))
    return squares.div_(-2 * sigma**2).exp_()


def _weighted_sums(kernel: Kernel, x, y, x_weights, y_weights, block_elements: int) -> torch.Tensor:
    """sum_ij x_weights[s, i] kernel(x_i, y_j) y_weights[s, j] for each s, one block of rows of `x` at a time."""
    sums = torch.zeros(len(x_weights), dtype=x.dtype)
    for rows in row_blocks(len(x), len(y), block_elements):
        sums += ((x_weights[:, rows] @ kernel(x[rows], y)) * y_weights).sum(dim=1)
    return sums


def _subset_sums(kernel: Kernel, x, y, x_subsets, y_subsets, block_elements: int) -> torch.Tensor:
    """The sum of kernel(x_i, y_j) over i in x_subsets[s] and j in y_subsets[s], for each s; subsets are (S, size)."""
    if len(x) * len(y) <= x_subsets.numel() * y_subsets.shape[1]:
        # When subsets overlap this much, it is cheaper to sum them from one matrix of all pairs.
        x_members = torch.zeros(len(x_subsets), len(x), dtype=x.dtype).scatter_(1, x_subsets, 1.0)
        y_members = torch.zeros(len(y_subsets), len(y), dtype=y.dtype).scatter_(1, y_subsets, 1.0)
        return _weighted_sums(kernel, x, y, x_members, y_members, block_elements)
    ones = torch.ones(1, x_subsets.shape[1], dtype=x.dtype)
    return torch.cat(
        [
            _weighted_sums(kernel, x[i], y[j], ones, ones, block_elements)
            for i, j in zip(x_subsets, y_subsets, strict=True)
        ]
    )


def _diagonal(kernel: Kernel, x: torch.Tensor) -> torch.Tensor:
    """kernel(x_i, x_i) for each row, from small blocks along the diagonal."""
    return torch.cat([kernel(block, block).diagonal() for block in x.split(64)])


def _draw_subsets(
    num_real: int, num_generated: int, subsets: int, size: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The real and the generated rows of each subset, (subsets, size) each.

    As in torch-fidelity, one RandomState draws all subsets, and the generated rows of a subset before its real rows.
    """
    random_state = np.random.RandomState(seed)
    draws = [
        (random_state.choice(num_generated, size, replace=False), random_state.choice(num_real, size, replace=False))
        for _ in range(subsets)
    ]
    generated_rows, real_rows = (torch.from_numpy(np.stack(rows)) for rows in zip(*draws, strict=True))
    return real_rows, generated_rows


def kid_subset_size(num_real: int, num_generated: int) -> int:
    """The default subset size: 1000, or the size of the smaller set if that is less (as in clean-fid)."""
    return min(num_real, num_generated, MAX_SUBSET_SIZE)


def kid(
    real,
    generated,
    subsets: int = 100,
    subset_size: int | None = None,
    seed: int = 2020,
    kernel: Kernel = polynomial_kernel,
    block_elements: int = BLOCK_ELEMENTS,
) -> dict[str, float]:
    """Kernel (Inception) distance: the unbiased MMD^2 over random subsets (Binkowski et al. 2018, equation 4).

    The subsets are the same as torch-fidelity's for the same seed: they are drawn without replacement by
    `RandomState(seed)`, the generated rows first. clean-fid draws the real rows first, so `kid(generated, real,
    seed=0)` is its value after `numpy.random.seed(0)`. The kernel is evaluated in float64, which agrees with the
    float32 of these packages to about 1e-6.

    Args:
        real: (N_real, D).
        generated: (N_generated, D).
        subsets: the number of subsets.
        subset_size: the number of rows per subset, at most the size of either set; see [`kid_subset_size`] for the
            default.
        seed: the seed of the subsets.
        kernel: `polynomial_kernel`, `rbf_kernel` or a function such as `partial(rbf_kernel, sigma=2.0)`.
        block_elements: how many kernel values are held at once.

    Returns:
        `{"mean", "std"}` over the subsets; std is the population standard deviation. The mean may be slightly
        negative.

    Raises:
        ValueError: for features that are not finite or do not match each other, and for a subset size below 2 or above
            the size of the smaller set.
    """
    real, generated = as_feature_pair(real, generated)
    size = kid_subset_size(len(real), len(generated)) if subset_size is None else subset_size
    if not 2 <= size <= min(len(real), len(generated)):
        raise ValueError(
            f"The subset size of KID must be from 2 to the size of the smaller set, but is {size} for "
            f"{len(real)} real and {len(generated)} generated samples."
        )
    if subsets < 1:
        raise ValueError(f"KID needs at least 1 subset, not {subsets}.")

    real_rows, generated_rows = _draw_subsets(len(real), len(generated), subsets, size, seed)
    sums = partial(_subset_sums, kernel, block_elements=block_elements)
    within_real = sums(real, real, real_rows, real_rows) - _diagonal(kernel, real)[real_rows].sum(dim=1)
    within_generated = sums(generated, generated, generated_rows, generated_rows)
    within_generated -= _diagonal(kernel, generated)[generated_rows].sum(dim=1)
    across = sums(real, generated, real_rows, generated_rows)
    mmd2 = (within_real + within_generated) / (size * (size - 1)) - 2 * across / size**2
    return {"mean": mmd2.mean().item(), "std": mmd2.std(correction=0).item()}
