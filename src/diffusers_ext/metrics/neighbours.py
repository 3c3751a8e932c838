"""How two sets of features cover one another: improved precision and recall, density and coverage.

Each sample is the centre of a ball that reaches to its k-th nearest neighbour in the same set (not counting itself).
The two published definitions differ only in one sign and in their usual k:

- `precision_recall`: as in torch-fidelity, after Kynkäänniemi et al. 2019. A ball contains its border (<=), k = 3.
- `prdc`: as in the prdc package, after Naeem et al. 2020. A ball does not contain its border (<), k = 5.
"""

from collections.abc import Callable, Sequence

import torch

from diffusers_ext.metrics.arrays import BLOCK_ELEMENTS, as_feature_pair, row_blocks


PRECISION_RECALL_NEIGHBOURS = 3
DENSITY_COVERAGE_NEIGHBOURS = 5

Contains = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Euclidean distances (N, M) of the rows of `x` and `y`, computed in float64 and rounded to float32.

    Because of the rounding, distances that are equal in exact arithmetic are equal here, whichever block they come
    from. For the same reason, squares within the rounding error of |x|^2 + |y|^2 - 2 x.y count as zero.
    """
    x_norms, y_norms = ((1 - 1e-12) * rows.square().sum(dim=1) for rows in (x, y))
    squares = torch.addmm(y_norms, x, y.T, alpha=-2).add_(x_norms[:, None])
    return squares.clamp_min_(0).float().sqrt_()


def _radii(features: torch.Tensor, neighbours: Sequence[int], block_elements: int) -> torch.Tensor:
    """The distance of each row (N of them) to its k-th nearest other row, for each k in `neighbours`: (len, N)."""
    blocks = []
    for rows in row_blocks(len(features), len(features), block_elements):
        # At index 0, each row is its own nearest neighbour.
        nearest = _distances(features[rows], features).topk(max(neighbours) + 1, largest=False).values
        blocks.append(nearest[:, list(neighbours)].T)
    return torch.cat(blocks, dim=1)


class _Balls:
    """One definition (k, and whether balls contain their border), and the counts by this definition so far."""

    def __init__(self, neighbours: int, contains: Contains, real_radii: torch.Tensor, generated_radii: torch.Tensor):
        self.neighbours, self.contains = neighbours, contains
        self.real_radii, self.generated_radii = real_radii, generated_radii
        self.num_precise = self.num_memberships = 0
        self.covered = torch.zeros(len(real_radii), dtype=torch.bool)
        self.recalled = torch.zeros(len(real_radii), dtype=torch.bool)

    def count(self, distances: torch.Tensor, rows: slice):
        """Counts the generated samples `rows`, given their `distances` (rows, N_real) from the real samples."""
        in_real_ball = self.contains(distances, self.real_radii)
        self.num_precise += in_real_ball.any(dim=1).count_nonzero().item()
        self.num_memberships += in_real_ball.count_nonzero().item()
        self.covered |= in_real_ball.any(dim=0)
        self.recalled |= self.contains(distances, self.generated_radii[rows, None]).any(dim=0)

    def values(self) -> dict[str, float]:
        num_generated = len(self.generated_radii)
        return {
            "precision": self.num_precise / num_generated,
            "recall": self.recalled.double().mean().item(),
            "density": self.num_memberships / (self.neighbours * num_generated),
            "coverage": self.covered.double().mean().item(),
        }


def compare_manifolds(
    real, generated, definitions: Sequence[tuple[int, Contains]], block_elements: int = BLOCK_ELEMENTS
) -> list[dict[str, float]]:
    """Precision, recall, density and coverage by several definitions, from one pass over the pairwise distances.

    Args:
        real: (N_real, D).
        generated: (N_generated, D).
        definitions: pairs (k, contains), where contains is `torch.le` or `torch.lt`.
        block_elements: how many distances are held at once.

    Raises:
        ValueError: for features that are not finite or do not match each other, and for a set without k other samples.
    """
    real, generated = as_feature_pair(real, generated)
    neighbours = [k for k, _ in definitions]
    fewest = min(len(real), len(generated))
    if min(neighbours) < 1 or max(neighbours) >= fewest:
        raise ValueError(
            f"The number of neighbours must be from 1 to {fewest - 1}, one less than the size of the smaller set, not "
            f"{max(neighbours) if min(neighbours) >= 1 else min(neighbours)}."
        )
    # Distances do not depend on the origin, and |x|^2 + |y|^2 - 2 x.y loses the fewest digits if it is near the data.
    origin = real.mean(dim=0)
    real, generated = real - origin, generated - origin
    real_radii = _radii(real, neighbours, block_elements)
    generated_radii = _radii(generated, neighbours, block_elements)
    counters = [
        _Balls(k, contains, *radii)
        for (k, contains), *radii in zip(definitions, real_radii, generated_radii, strict=True)
    ]
    for rows in row_blocks(len(generated), len(real), block_elements):
        distances = _distances(generated[rows], real)
        for counter in counters:
            counter.count(distances, rows)
    return [counter.values() for counter in counters]


def precision_recall(real, generated, neighbours: int = PRECISION_RECALL_NEIGHBOURS) -> dict[str, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019) by torch-fidelity's definition: balls with border.

    Precision is the fraction of generated samples inside a real sample's ball, recall the fraction of real samples
    inside a generated sample's ball.

    Args:
        real: (N_real, D).
        generated: (N_generated, D).
        neighbours: k, below the size of either set.

    Returns:
        `{"precision", "recall", "f_score"}`, each from 0 to 1; the F-score is their harmonic mean.

    Raises:
        ValueError: as `compare_manifolds`.
    """
    (values,) = compare_manifolds(real, generated, [(neighbours, torch.le)])
    precision, recall = values["precision"], values["recall"]
    # As in torch-fidelity: if precision and recall are zero, so is the F-score.
    f_score = 2 * precision * recall / max(1e-5, precision + recall)
    return {"precision": precision, "recall": recall, "f_score": f_score}


def prdc(real, generated, neighbours: int = DENSITY_COVERAGE_NEIGHBOURS) -> dict[str, float]:
    """Precision, recall, density and coverage (Naeem et al. 2020) as in the prdc package: balls without border.

    Density is the mean number of real balls that contain a generated sample, divided by k (it can exceed 1). Coverage
    is the fraction of real samples whose ball contains a generated sample.

    Args:
        real: (N_real, D).
        generated: (N_generated, D).
        neighbours: k, below the size of either set.

    Returns:
        `{"precision", "recall", "density", "coverage"}`.

    Raises:
        ValueError: as `compare_manifolds`.
    """
    return compare_manifolds(real, generated, [(neighbours, torch.lt)])[0]
