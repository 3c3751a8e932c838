"""A Gaussian around each image of a set as the density of images."""

import math

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from .densities import DensityOutput, MixtureMixin, check_density_inputs
from .disk_offloading import DiskOffloadMixin
from .gan_checks import check_positive


class KernelDensityModel(MixtureMixin, DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    A kernel density estimate (Parzen 1962): a Gaussian of one width around each stored point.

    The sum over the points is exact. The trees of scikit-learn's `KernelDensity` stop early where densities are tiny,
    as those of images are: -320 nats can come out as -177.

    Args:
        sample_shape (`tuple[int, ...]`, defaults to `(1, 8, 8)`):
            The shape of a sample: `(C, H, W)` of images or maps of latents, `(latent_dim,)` of latent vectors.
        num_points (`int`, defaults to 1):
            The number of stored points.
        num_classes (`int`, *optional*):
            The number of classes, to which the points belong.

    Raises:
        ValueError: if a number is not positive.
    """

    @register_to_config
    def __init__(self, sample_shape: tuple[int, ...] = (1, 8, 8), num_points: int = 1, num_classes: int | None = None):
        super().__init__()
        check_positive(sample_shape=min(sample_shape), num_points=num_points, num_classes=num_classes or 1)
        self.points = nn.Parameter(torch.zeros(num_points, math.prod(sample_shape)))
        self.bandwidth = nn.Parameter(torch.ones(()))
        self.register_buffer("point_labels", torch.arange(num_points) % (num_classes or 1))

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
        samples, points, bandwidth = sample.flatten(1).float(), self.points.float(), self.bandwidth.float()
        # |x|^2 - 2 x.p + |p|^2 needs no tensor of all differences.
        distances = samples.square().sum(dim=1)[:, None] - 2 * samples @ points.T + points.square().sum(dim=1)
        log_probs = -0.5 * distances.clamp(min=0) / bandwidth.square()
        log_probs = log_probs - self.num_dimensions * (bandwidth.log() + 0.5 * math.log(2 * math.pi))
        return self._mix(log_probs, class_labels, sample.dtype, return_dict)

    @property
    def component_labels(self) -> torch.Tensor:
        """See [`MixtureMixin`]."""
        return self.point_labels

    def log_weights(self) -> torch.Tensor:
        """See [`MixtureMixin`]: all points of a class weigh the same."""
        classes = torch.arange(self.config.num_classes or 1, device=self.point_labels.device)
        counts = (self.point_labels[:, None] == classes).sum(dim=0)
        return -counts[self.point_labels].float().log()

    def place(self, noise: torch.Tensor, components: torch.Tensor) -> torch.Tensor:
        """See [`MixtureMixin`]."""
        return self.points.float()[components] + self.bandwidth.float() * noise
