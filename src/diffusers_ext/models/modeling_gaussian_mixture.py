"""A Gaussian, or a mixture of Gaussians, as the density of images or latents."""

import math

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from .densities import DensityOutput, MixtureMixin, check_density_inputs
from .gan_checks import check_choice, check_positive


LOG_TWO_PI = math.log(2 * math.pi)


class FullCovariances(nn.Module):
    """Covariances L L^T of any form, by their Cholesky factors L `(J, D, D)`."""

    def __init__(self, num_components: int, num_dimensions: int):
        super().__init__()
        self.scale_tril = nn.Parameter(torch.eye(num_dimensions).repeat(num_components, 1, 1))

    def forward(self, deviations: torch.Tensor) -> torch.Tensor:
        """The log-density `(N, J)` of deviations from the means, `(N, J, D)`."""
        factors = self.scale_tril.float().tril()
        whitened = torch.linalg.solve_triangular(factors, deviations.permute(1, 2, 0), upper=False)  # (J, D, N)
        log_det = factors.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        return -0.5 * (whitened.square().sum(dim=1).T + deviations.shape[2] * LOG_TWO_PI) - log_det

    def scale(self, noise: torch.Tensor, components: torch.Tensor) -> torch.Tensor:
        """Deviations `(N, D)` of the components `(N,)`, of normal noise `(N, D)`."""
        scaled = torch.empty_like(noise)
        for component in components.unique():  # a factor for each sample would be large
            rows = components == component
            scaled[rows] = noise[rows] @ self.scale_tril[component].float().tril().T
        return scaled


class DiagonalCovariances(nn.Module):
    """Covariances of independent values, by their standard deviations `(J, D)`."""

    def __init__(self, num_components: int, num_dimensions: int):
        super().__init__()
        self.stds = nn.Parameter(torch.ones(num_components, num_dimensions))

    def forward(self, deviations: torch.Tensor) -> torch.Tensor:
        """See [`FullCovariances`]."""
        stds = self.stds.float()
        distances = (deviations / stds).square().sum(dim=2)
        return -0.5 * (distances + deviations.shape[2] * LOG_TWO_PI) - stds.log().sum(dim=1)

    def scale(self, noise: torch.Tensor, components: torch.Tensor) -> torch.Tensor:
        """See [`FullCovariances`]."""
        return noise * self.stds.float()[components]


class LowRankCovariances(nn.Module):
    """
    Covariances with a few directions of their own standard deviation, and one for all others: those of probabilistic
    PCA (Tipping & Bishop 1999, eq. 7).
    """

    def __init__(self, num_components: int, num_dimensions: int, rank: int):
        super().__init__()
        self.directions = nn.Parameter(torch.eye(num_dimensions, rank).repeat(num_components, 1, 1))  # orthonormal
        self.stds = nn.Parameter(torch.full((num_components, rank), 2.0))
        self.noise_stds = nn.Parameter(torch.ones(num_components))

    def forward(self, deviations: torch.Tensor) -> torch.Tensor:
        """See [`FullCovariances`]."""
        stds, noise_stds = self.stds.float(), self.noise_stds.float()
        along = torch.einsum("njd,jdr->njr", deviations, self.directions.float())
        rest = deviations.square().sum(dim=2) - along.square().sum(dim=2)
        distances = (along / stds).square().sum(dim=2) + rest / noise_stds.square()
        dimensions, rank = deviations.shape[2], stds.shape[1]
        log_det = stds.log().sum(dim=1) + (dimensions - rank) * noise_stds.log()
        return -0.5 * (distances + dimensions * LOG_TWO_PI) - log_det

    def scale(self, noise: torch.Tensor, components: torch.Tensor) -> torch.Tensor:
        """See [`FullCovariances`]."""
        directions, noise_stds = self.directions.float()[components], self.noise_stds.float()[components, None]
        along = torch.einsum("nd,ndr->nr", noise, directions) * (self.stds.float()[components] - noise_stds)
        return noise * noise_stds + torch.einsum("nr,ndr->nd", along, directions)


class GaussianMixtureModel(MixtureMixin, ModelMixin, ConfigMixin):
    r"""
    A mixture of Gaussians; with one component a Gaussian, and with a low rank probabilistic PCA.

    Args:
        sample_shape (`tuple[int, ...]`, defaults to `(1, 8, 8)`):
            The shape of a sample: `(C, H, W)` of images or maps of latents, `(latent_dim,)` of latent vectors.
        num_components (`int`, defaults to 1):
            The number of Gaussians, of each class.
        covariance (`str`, defaults to `"full"`):
            `"full"`; `"diagonal"`, whose values are independent; or `"low_rank"`, with `rank` directions of their own
            variance, and one variance for all others (Tipping & Bishop 1999).
        rank (`int`, *optional*):
            The number of these directions.
        num_classes (`int`, *optional*):
            The number of classes, each with a mixture of its own.

    Raises:
        ValueError: if the arguments do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        sample_shape: tuple[int, ...] = (1, 8, 8),
        num_components: int = 1,
        covariance: str = "full",
        rank: int | None = None,
        num_classes: int | None = None,
    ):
        super().__init__()
        check_choice("covariance", covariance, ("full", "diagonal", "low_rank"))
        check_positive(sample_shape=min(sample_shape), num_components=num_components, num_classes=num_classes or 1)
        dimensions, total = math.prod(sample_shape), (num_classes or 1) * num_components
        if (covariance == "low_rank") != (rank is not None) or not 0 < (rank or 1) < max(dimensions, 2):
            raise ValueError(
                f"`rank` must be from 1 to {dimensions - 1} for a covariance of low rank, and None for others, but is "
                f"{rank} for {covariance!r}."
            )
        self.weight_logits = nn.Parameter(torch.zeros(num_classes or 1, num_components))
        self.means = nn.Parameter(torch.zeros(total, dimensions))
        if covariance == "full":
            self.covariances = FullCovariances(total, dimensions)
        elif covariance == "diagonal":
            self.covariances = DiagonalCovariances(total, dimensions)
        else:
            self.covariances = LowRankCovariances(total, dimensions, rank)

    def forward(
        self, sample: torch.Tensor, class_labels: torch.Tensor | None = None, return_dict: bool = True
    ) -> DensityOutput | tuple[torch.Tensor, ...]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, *sample_shape)`):
                Images in `[-1, 1]`, or latents.
            class_labels (`torch.Tensor` of shape `(N,)`, *optional*):
                The class of each sample. Without it, all classes are equally probable.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`DensityOutput`] instead of a tuple.

        Returns:
            [`DensityOutput`] or `tuple`: log-densities `(N,)`, and with classes `(N, num_classes)`.

        Raises:
            ValueError: if the samples or the labels do not fit the density.
        """
        check_density_inputs(self, sample, class_labels)
        deviations = sample.flatten(1).float()[:, None] - self.means.float()
        return self._mix(self.covariances(deviations), class_labels, sample.dtype, return_dict)

    @property
    def component_labels(self) -> torch.Tensor:
        """See [`MixtureMixin`]."""
        return torch.arange(len(self.means), device=self.means.device) // self.config.num_components

    def log_weights(self) -> torch.Tensor:
        """See [`MixtureMixin`]."""
        return F.log_softmax(self.weight_logits.float(), dim=1).flatten()

    def place(self, noise: torch.Tensor, components: torch.Tensor) -> torch.Tensor:
        """See [`MixtureMixin`]."""
        return self.means.float()[components] + self.covariances.scale(noise, components)
