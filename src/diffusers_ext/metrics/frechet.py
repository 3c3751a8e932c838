"""The Fréchet distance between two sets of features (FID)."""

import torch

from diffusers_ext.metrics.arrays import as_feature_pair, as_matrix


class FeatureStatistics:
    """Running mean and covariance of features that arrive in batches, in float64.

    Batches are merged by Chan, Golub and LeVeque's pairwise update, which does not lose digits where the mean is large
    against the spread. Memory is O(D^2), whatever the number of samples.

        statistics = FeatureStatistics()
        for batch in batches:
            statistics.update(extractor(batch).features)
        frechet_distance(statistics.mean, statistics.covariance, other.mean, other.covariance)
    """

    def __init__(self):
        self.count = 0

    def update(self, features) -> "FeatureStatistics":
        """Adds `features` (N, D) and returns the accumulator."""
        features = as_matrix(features, "The features")
        mean = features.mean(dim=0)
        centred = features - mean
        return self._add(len(features), mean, centred.T @ centred)

    def merge(self, other: "FeatureStatistics") -> "FeatureStatistics":
        """Adds the samples that `other` has seen (in another process, say) and returns the accumulator."""
        return self._add(other.count, other.mean, other._scatter) if other.count else self

    def _add(self, count: int, mean: torch.Tensor, scatter: torch.Tensor) -> "FeatureStatistics":
        if self.count == 0:
            self.count, self.mean, self._scatter = count, mean.clone(), scatter.clone()
            return self
        if mean.shape != self.mean.shape:
            raise ValueError(f"Features of {len(mean)} columns can't join statistics of {len(self.mean)} columns.")
        total = self.count + count
        delta = mean - self.mean
        self._scatter += scatter + torch.outer(delta, delta) * (self.count * count / total)
        self.mean += delta * (count / total)
        self.count = total
        return self

    @property
    def covariance(self) -> torch.Tensor:
        """The unbiased covariance (D, D), divided by count - 1."""
        if self.count < 2:
            raise ValueError(f"A covariance needs at least 2 samples, not {self.count}.")
        return self._scatter / (self.count - 1)


def _root_factor(covariance: torch.Tensor) -> torch.Tensor:
    """A (D, rank) with A A^T = `covariance`; directions without variance, to float64 precision, are left out."""
    variances, directions = torch.linalg.eigh(covariance)
    kept = variances > variances[-1] * len(variances) * torch.finfo(variances.dtype).eps
    return directions[:, kept] * variances[kept].sqrt()


def frechet_distance(mean_1, covariance_1, mean_2, covariance_2) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of two Gaussians (Heusel et al. 2017, equation 6).

    With C1 = A A^T and C2 = B B^T the trace of (C1 C2)^(1/2) is the sum of the singular values of A^T B. That needs no
    square root of a non-symmetric product, so singular covariances (fewer samples than features) need no special care.
    Equal to torch-fidelity's and clean-fid's value to about 1e-7 relative, the precision of their float32 means.

    Args:
        mean_1, mean_2: (D,).
        covariance_1, covariance_2: (D, D), symmetric.

    Raises:
        ValueError: if the shapes don't fit or a value isn't finite.
    """
    means = as_matrix(torch.stack([torch.as_tensor(mean_1), torch.as_tensor(mean_2)]), "The means")
    covariances = [as_matrix(covariance, "A covariance's entries") for covariance in (covariance_1, covariance_2)]
    size = means.shape[1]
    if any(covariance.shape != (size, size) for covariance in covariances):
        shapes = " and ".join(str(tuple(covariance.shape)) for covariance in covariances)
        raise ValueError(f"Means of {size} features need covariances of shape ({size}, {size}), not {shapes}.")
    roots = [_root_factor(covariance) for covariance in covariances]
    overlap = torch.linalg.svdvals(roots[0].T @ roots[1]).sum()
    distance = (means[0] - means[1]).square().sum() + covariances[0].trace() + covariances[1].trace() - 2 * overlap
    # Rounding can take the distance of equal Gaussians below zero, which no distance is.
    return max(0.0, distance.item())


def fid(real, generated) -> float:
    """Fréchet (Inception) distance of two feature sets (Heusel et al. 2017), as torch-fidelity and clean-fid.

    Args:
        real: (N_real, D), N_real >= 2.
        generated: (N_generated, D), N_generated >= 2.

    Raises:
        ValueError: for features that are not finite, don't fit each other, or a set of one sample.
    """
    real, generated = (FeatureStatistics().update(features) for features in as_feature_pair(real, generated))
    return frechet_distance(real.mean, real.covariance, generated.mean, generated.covariance)
