"""The distributions of a pixel's values: one softmax for each colour, or a mixture of logistics for all of them."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.utils import BaseOutput

from .causal_convolution import PixelCache
from .gan_checks import check_labels


@dataclass
class PixelModelOutput(BaseOutput):
    """
    The output of a network that predicts pixels from earlier ones.

    Args:
        parameters (`torch.Tensor` of shape `(N, P, H, W)`):
            The distribution of each pixel given those before it in raster order. Of one softmax per colour these are
            the unnormalised log-probabilities of the first colour's levels, then of the second's; a mixture of
            logistics is described in [`LogisticMixturePixelsMixin`].
    """

    parameters: torch.Tensor


def check_pixel_arguments(in_channels: int, num_levels: int, num_classes: int | None) -> None:
    if min(in_channels, num_levels - 1, 1 if num_classes is None else num_classes) < 1:
        raise ValueError(
            "`in_channels` and `num_classes` must be at least 1 and `num_levels` at least 2, but are "
            f"{in_channels}, {num_classes} and {num_levels}."
        )


def check_pixel_inputs(network, sample: torch.Tensor, class_labels: torch.Tensor | None) -> None:
    channels, num_classes = network.config.in_channels, network.config.num_classes
    if sample.ndim != 4 or sample.shape[1] != channels:
        raise ValueError(f"`sample` must be (N, {channels}, H, W), but is {tuple(sample.shape)}.")
    check_labels(class_labels, len(sample), None if num_classes is None else "embedding", num_classes)


def to_levels(sample: torch.Tensor, num_levels: int) -> torch.Tensor:
    """The nearest levels, integers from 0 to `num_levels - 1`, of values in `[-1, 1]`."""
    return ((sample.float() + 1) * ((num_levels - 1) / 2)).round().long().clamp(0, num_levels - 1)


def from_levels(levels: torch.Tensor, num_levels: int) -> torch.Tensor:
    """The values in `[-1, 1]` of levels from 0 to `num_levels - 1`."""
    return levels.float() * (2 / (num_levels - 1)) - 1


class PixelModelMixin:
    """What a network that predicts pixels from earlier ones offers to those who draw with it."""

    def new_cache(self, height: int, width: int) -> PixelCache:
        """What makes `parameters_at` fast for images of this size that are drawn pixel by pixel."""
        return PixelCache(height, width)


class CategoricalPixelsMixin(PixelModelMixin):
    r"""
    Each colour of a pixel is one of `num_levels` levels, with any probabilities (van den Oord et al. 2016, section
    3.1). The colours of a pixel are drawn one after the other.
    """

    @property
    def draws_per_pixel(self) -> int:
        """How many times a pixel is predicted and drawn until it is complete."""
        return self.config.in_channels

    uniforms_per_draw = 1

    def log_prob(self, parameters: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        r"""
        The log-probability of each pixel, all its colours together.

        Args:
            parameters (`torch.Tensor` of shape `(N, in_channels * num_levels, H, W)`): the network's output.
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`): the image in `[-1, 1]`; values between two
                levels count as the nearer one.

        Returns:
            `torch.Tensor` of shape `(N, H, W)`: in nats, float32.
        """
        logits = parameters.float().unflatten(1, (self.config.in_channels, self.config.num_levels))
        levels = to_levels(sample, self.config.num_levels)
        return logits.log_softmax(dim=2).gather(2, levels[:, :, None]).squeeze(2).sum(dim=1)

    def draw_values(self, parameters: torch.Tensor, uniforms: torch.Tensor, temperature: float) -> torch.Tensor:
        r"""
        Draws one colour of a pixel, by the inverse of its cumulative distribution.

        Args:
            parameters (`torch.Tensor` of shape `(N, num_levels)`): of this colour.
            uniforms (`torch.Tensor` of shape `(N, 1)`): uniform numbers in `[0, 1)`.
            temperature (`float`): divides the log-probabilities.

        Returns:
            `torch.Tensor` of shape `(N, 1)`: in `[-1, 1]`.
        """
        cumulative = (parameters.float() / temperature).softmax(dim=1).cumsum(dim=1)
        levels = (uniforms >= cumulative[:, :-1]).sum(dim=1, keepdim=True)
        return from_levels(levels, self.config.num_levels)


class LogisticMixturePixelsMixin(PixelModelMixin):
    r"""
    The colours of a pixel are a mixture of `num_mixtures` discretised logistics (Salimans et al. 2017, sections 2.1
    and 2.2, https://huggingface.co/papers/1701.05517), as in https://github.com/openai/pixel-cnn. Green depends on
    red, and blue on both, by linear terms in the means.

    The `P` parameters are the logits of the components; then for each colour the means and the logarithms of the
    scales, and for three colours `num_mixtures` coefficients: tanh of those beside red is that of red in the mean of
    green, of those beside green that of red in blue, and of those beside blue that of green in blue.
    """

    draws_per_pixel = 1

    @property
    def uniforms_per_draw(self) -> int:
        """How many random numbers a draw takes."""
        return self.config.num_mixtures + self.config.in_channels

    def mixture(self, parameters: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits `(N, M, ...)`, means, logarithms of scales and coefficients `(N, C, M, ...)` of `(N, P, ...)`."""
        number, colors = self.config.num_mixtures, self.config.in_channels
        logits, others = parameters.float().split([number, parameters.shape[1] - number], dim=1)
        means, log_scales, *coefficients = others.unflatten(1, (colors, -1)).split(number, dim=2)
        return logits, means, log_scales.clamp(min=MIN_LOG_SCALE), *(terms.tanh() for terms in coefficients)

    def log_prob(self, parameters: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        r"""
        The log-probability of each pixel, all its colours together.

        A bin that has less than 1e-5 of a component is approximated by the density in its middle.

        Args:
            parameters (`torch.Tensor` of shape `(N, P, H, W)`): the network's output.
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`): the image of `num_levels` levels in `[-1, 1]`.

        Returns:
            `torch.Tensor` of shape `(N, H, W)`: in nats, float32.
        """
        logits, means, log_scales, *coefficients = self.mixture(parameters)
        values = sample.float()[:, :, None]
        if coefficients:
            (terms,), (red, green, _) = coefficients, values.unbind(dim=1)
            blue_shift = terms[:, 1] * red + terms[:, 2] * green
            means = means + torch.stack([torch.zeros_like(blue_shift), terms[:, 0] * red, blue_shift], dim=1)
        half_bin = 1 / (self.config.num_levels - 1)
        centred, precision = values - means, (-log_scales).exp()
        upper, lower = precision * (centred + half_bin), precision * (centred - half_bin)
        mass = upper.sigmoid() - lower.sigmoid()
        middle = precision * centred
        density = middle - log_scales - 2 * F.softplus(middle) + math.log(2 * half_bin)
        inside = torch.where(mass > SMALLEST_MASS, mass.clamp(min=1e-12).log(), density)
        log_probs = torch.where(values > EDGE, -F.softplus(lower), inside)
        log_probs = torch.where(values < -EDGE, upper - F.softplus(upper), log_probs)
        return (log_probs.sum(dim=1) + logits.log_softmax(dim=1)).logsumexp(dim=1)

    def draw_values(self, parameters: torch.Tensor, uniforms: torch.Tensor, temperature: float) -> torch.Tensor:
        r"""
        Draws a pixel: a component by Gumbel noise, then its colours, each clipped before the next depends on it.

        Args:
            parameters (`torch.Tensor` of shape `(N, P)`): of this pixel.
            uniforms (`torch.Tensor` of shape `(N, num_mixtures + in_channels)`): uniform numbers in `[0, 1)`.
            temperature (`float`): divides the logits of the components, and multiplies their scales.

        Returns:
            `torch.Tensor` of shape `(N, in_channels)`: in `[-1, 1]`, between the levels.
        """
        logits, means, log_scales, *coefficients = self.mixture(parameters)
        uniforms = uniforms.clamp(1e-5, 1 - 1e-5)
        gumbel = -(-uniforms[:, : logits.shape[1]].log()).log()
        component = (logits / temperature + gumbel).argmax(dim=1)[:, None, None].expand(-1, means.shape[1], 1)
        noise = uniforms[:, logits.shape[1] :].logit() * temperature
        means, scales, *terms = (
            each.gather(2, component).squeeze(2) for each in (means, log_scales.exp(), *coefficients)
        )
        values = means + scales * noise
        if not terms:
            return values.clamp(-1, 1)
        (terms,) = terms
        red = values[:, 0].clamp(-1, 1)
        green = (values[:, 1] + terms[:, 0] * red).clamp(-1, 1)
        blue = (values[:, 2] + terms[:, 1] * red + terms[:, 2] * green).clamp(-1, 1)
        return torch.stack([red, green, blue], dim=1)


MIN_LOG_SCALE = -7.0
SMALLEST_MASS = 1e-5  # of a bin, below which a difference of two sigmoids has no digits left
EDGE = 0.999  # beyond it are the bins of the first and the last level, which have no end
