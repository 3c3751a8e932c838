"""What densities that are sums of Gaussians have in common: their output, the choice of a component, and checks."""

import math
from dataclasses import dataclass

import torch
from diffusers import ModelMixin
from diffusers.utils import BaseOutput


@dataclass
class DensityOutput(BaseOutput):
    """
    The output of densities.

    Args:
        log_prob (`torch.Tensor` of shape `(N,)`):
            The logarithm of the density at each sample, in nats.
        class_log_probs (`torch.Tensor` of shape `(N, num_classes)`, *optional*):
            The same with each class, for a density with classes.
    """

    log_prob: torch.Tensor
    class_log_probs: torch.Tensor | None = None


class MixtureMixin:
    """A density that is a sum of weighted components, each of which belongs to a class if there are classes."""

    needs_class_labels = False

    @property
    def num_dimensions(self) -> int:
        """How many values a sample has."""
        return math.prod(self.config.sample_shape)

    @property
    def component_labels(self) -> torch.Tensor:
        """The class of each component, `(J,)`; 0 without classes."""
        raise NotImplementedError

    def log_weights(self) -> torch.Tensor:
        """The logarithm of the weight of each component within its class, `(J,)`."""
        raise NotImplementedError

    def place(self, noise: torch.Tensor, components: torch.Tensor) -> torch.Tensor:
        """Samples `(N, D)` of the components `(N,)`, of normal `noise` `(N, D)`."""
        raise NotImplementedError

    def sample(self, latents: torch.Tensor, class_labels: torch.Tensor | None = None) -> torch.Tensor:
        r"""
        Samples from normal numbers.

        Args:
            latents (`torch.Tensor` of shape `(N, 1 + num_dimensions)`):
                Standard normal numbers. The first one chooses the component, by its cumulative probability.
            class_labels (`torch.Tensor` of shape `(N,)`, *optional*):
                The class of each sample; without it all classes are equally frequent.

        Returns:
            `torch.Tensor` of shape `(N, *sample_shape)`: float32.
        """
        weights = self._class_weights(class_labels).double().exp().expand(len(latents), -1)
        cumulative = weights.cumsum(dim=1)
        uniform = torch.special.ndtr(latents[:, :1].double()).clamp(max=1 - 2**-40)
        components = (cumulative <= uniform * cumulative[:, -1:]).sum(dim=1)
        return self.place(latents[:, 1:].float(), components).unflatten(1, tuple(self.config.sample_shape))

    def _class_weights(self, class_labels: torch.Tensor | None) -> torch.Tensor:
        """The logarithms of the weights, `(1, J)` without labels, and `(N, J)` with them."""
        log_weights = self.log_weights().float()[None]
        if class_labels is None:
            return log_weights - math.log(self.config.num_classes or 1)
        is_of_class = self.component_labels == class_labels[:, None]
        return torch.where(is_of_class, log_weights, -math.inf)

    def _mix(
        self, log_probs: torch.Tensor, class_labels: torch.Tensor | None, dtype: torch.dtype, return_dict: bool
    ) -> DensityOutput | tuple[torch.Tensor, ...]:
        """The density of the mixture from those of its components, `(N, J)`."""
        log_prob = (self._class_weights(class_labels) + log_probs).logsumexp(dim=1).to(dtype)
        class_log_probs = None
        if self.config.num_classes is not None:
            labels = torch.arange(self.config.num_classes, device=log_probs.device)
            weights = self._class_weights(labels)
            of_classes = [(log_probs + of_class).logsumexp(dim=1) for of_class in weights]
            class_log_probs = torch.stack(of_classes, dim=1).to(dtype)
        if not return_dict:
            return (log_prob,) if class_log_probs is None else (log_prob, class_log_probs)
        return DensityOutput(log_prob=log_prob, class_log_probs=class_log_probs)


def check_density_inputs(model: ModelMixin, sample: torch.Tensor, class_labels: torch.Tensor | None) -> None:
    """Refuses samples of another shape, and labels that do not fit the density."""
    shape = tuple(model.config.sample_shape)
    if tuple(sample.shape[1:]) != shape:
        raise ValueError(f"`sample` must be (N, {', '.join(map(str, shape))}), but is {tuple(sample.shape)}.")
    if class_labels is None:
        return
    if model.config.num_classes is None:
        raise ValueError("`class_labels` must be left out, because the density has no classes.")
    if class_labels.shape != sample.shape[:1]:
        raise ValueError(f"`class_labels` must be ({len(sample)},), one per sample, not {tuple(class_labels.shape)}.")
