"""Densities that fit points best: the weights of [`GaussianMixtureModel`] and [`KernelDensityModel`]."""

import math
from collections.abc import Callable

import torch
from scipy.optimize import minimize_scalar
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture


MAX_ITERATIONS = 500
# The bandwidth is chosen by the density at so many points, each without its own kernel.
MEASURED_POINTS = 500


def fit_classes(
    fit: Callable[..., dict[str, torch.Tensor]],
    points: torch.Tensor,
    labels: torch.Tensor | None,
    num_classes: int | None,
    **options,
) -> dict[str, torch.Tensor]:
    """The weights of a [`GaussianMixtureModel`] whose classes are fitted one after the other.

    Args:
        fit (`Callable`): [`fit_mixture`] or [`fit_pca`].
        points (`torch.Tensor` of shape (N, D)): what is fitted.
        labels (`torch.Tensor` of shape (N,), *optional*): the class of each point.
        num_classes (`int`, *optional*): the number of classes, for `labels`.
        options: keywords of `fit`.

    Raises:
        ValueError: if a class has too few points.
    """
    classes = [points] if labels is None else [points[labels == label] for label in range(num_classes)]
    fits = [fit(of_class.double(), **options) for of_class in classes]
    state = {name: torch.cat([one[name] for one in fits]).float() for name in fits[0]}
    return {**state, "weight_logits": state["weight_logits"].view(len(classes), -1)}


def fit_mixture(
    points: torch.Tensor, *, num_components: int, covariance: str, regularisation: float, seed: int
) -> dict[str, torch.Tensor]:
    """A mixture of Gaussians by expectation maximisation from k-means; of one component, in closed form.

    Args:
        points (`torch.Tensor` of shape (N, D)): float64.
        num_components (`int`): the number of Gaussians.
        covariance (`str`): "full" or "diagonal".
        regularisation (`float`): a variance that is added to each value.
        seed (`int`): the seed of k-means.

    Raises:
        ValueError: if there are fewer points than components, or a covariance is not positive definite.
    """
    _check_count(points, num_components)
    kind = {"full": "full", "diagonal": "diag"}[covariance]
    mixture = GaussianMixture(
        num_components, covariance_type=kind, reg_covar=regularisation, max_iter=MAX_ITERATIONS, random_state=seed
    )
    try:
        mixture.fit(points.numpy())
    except ValueError as error:
        if "ill-defined empirical covariance" not in str(error):
            raise
        raise ValueError("A covariance is not positive definite: raise --regularisation.") from error
    covariances = torch.from_numpy(mixture.covariances_)
    if covariance == "full":
        shape = {"covariances.scale_tril": torch.linalg.cholesky(covariances)}
    else:
        shape = {"covariances.stds": covariances.sqrt()}
    weights, means = torch.from_numpy(mixture.weights_), torch.from_numpy(mixture.means_)
    return {"weight_logits": weights.log(), "means": means, **shape}


def fit_pca(points: torch.Tensor, *, rank: int, regularisation: float, seed: int) -> dict[str, torch.Tensor]:
    """Probabilistic PCA by maximum likelihood (Tipping and Bishop 1999, eqs. 8 and 15).

    Args:
        points (`torch.Tensor` of shape (N, D)): float64.
        rank (`int`): the number of principal components, below D.
        regularisation (`float`): a variance that is added to each value.
        seed (`int`): the seed of randomised solvers, which scikit-learn uses for large tables.

    Raises:
        ValueError: if there are no more points than principal components.
    """
    _check_count(points, rank + 1)
    pca = PCA(rank, random_state=seed).fit(points.numpy())
    directions, variances = torch.from_numpy(pca.components_).T, torch.from_numpy(pca.explained_variance_)
    noise_variance = torch.tensor([float(pca.noise_variance_)], dtype=torch.float64)
    return {
        "weight_logits": torch.zeros(1, dtype=torch.float64),
        "means": torch.from_numpy(pca.mean_)[None],
        "covariances.directions": directions[None],
        "covariances.stds": (variances + regularisation).sqrt()[None],
        "covariances.noise_stds": (noise_variance + regularisation).sqrt(),
    }


def fit_kernels(
    points: torch.Tensor, labels: torch.Tensor | None, *, bandwidth: float | None, seed: int
) -> dict[str, torch.Tensor]:
    """The weights of a [`KernelDensityModel`]: the points, and their bandwidth.

    Args:
        points (`torch.Tensor` of shape (N, D)): what is fitted.
        labels (`torch.Tensor` of shape (N,), *optional*): the class of each point.
        bandwidth (`float`, *optional*): the standard deviation of a kernel; by default the one with which points are
            most likely under the kernels of the others of their class.
        seed (`int`): the seed of the choice of [`MEASURED_POINTS`] such points.
    """
    labels = torch.zeros(len(points), dtype=torch.int64) if labels is None else labels
    if bandwidth is None:
        bandwidth = leave_one_out_bandwidth(points, labels, seed)
    return {"points": points.float(), "bandwidth": torch.tensor(bandwidth), "point_labels": labels}


def leave_one_out_bandwidth(points: torch.Tensor, labels: torch.Tensor, seed: int) -> float:
    """The bandwidth with the largest leave-one-out likelihood (Habbema et al. 1974, Duin 1976).

    Raises:
        ValueError: if no class has two different points.
    """
    chosen = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:MEASURED_POINTS]
    distances = torch.cdist(points[chosen].double(), points.double()).square()
    is_other = labels[chosen, None] == labels
    is_other[torch.arange(len(chosen)), chosen] = False
    distances = distances.masked_fill(~is_other, math.inf)[is_other.any(dim=1)]
    nearest = distances.min(dim=1).values if len(distances) else torch.zeros(1)
    if not nearest.any():
        raise ValueError("No class has two different images, from which a width could be chosen: give --bandwidth.")
    dimensions = points.shape[1]
    scale = (nearest[nearest > 0].median() / dimensions).sqrt().item()

    def negative_log_likelihood(log_bandwidth: float) -> float:
        log_kernels = -0.5 * distances / math.exp(2 * log_bandwidth)
        return dimensions * log_bandwidth - log_kernels.logsumexp(dim=1).mean().item()

    bounds = (math.log(scale / 10), math.log(scale * 10))
    return math.exp(minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded").x)


def _check_count(points: torch.Tensor, fewest: int) -> None:
    if len(points) < fewest:
        raise ValueError(
            f"--num_components needs at least {fewest} images of each class, but a class has {len(points)}."
        )
