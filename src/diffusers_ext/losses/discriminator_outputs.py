"""The outputs of a discriminator for real and for generated images, and how many of them are right."""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from diffusers.utils import BaseOutput
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from diffusers_ext.losses.adversarial import Logits


# A tensor, or a sequence of such, and so on: the logits of one scale or several, the features of each scale.
Nested: TypeAlias = "torch.Tensor | Sequence[Nested]"


def has_batch_norm(network: nn.Module) -> bool:
    """Whether a network's output for an image depends on the other images of the batch."""
    return any(isinstance(module, _BatchNorm) for module in network.modules())


def judge_both(
    discriminator: nn.Module, real: torch.Tensor, fake: torch.Tensor, class_labels: torch.Tensor | None = None
) -> tuple[BaseOutput, BaseOutput]:
    """Run a discriminator on real and on generated images.

    Both go through it in one pass. Only a discriminator with batch norm gets them one after the other, so that each
    kind of image is normalized by its own statistics.

    Args:
        discriminator (`nn.Module`): returns an output whose entries are tensors, or tuples of them (one per scale or
            layer), which may be nested.
        real, fake (`torch.Tensor` of shape (N, C, H, W)): the images.
        class_labels (`torch.Tensor` of shape (N,), *optional*): the classes of both, for a conditional discriminator.

    Returns:
        `tuple`: the output for the real images, and the output for the generated images.
    """
    labels = () if class_labels is None else (class_labels,)
    if has_batch_norm(discriminator):
        return discriminator(real, *labels), discriminator(fake, *labels)
    output = discriminator(torch.cat([real, fake]), *(values.repeat(2) for values in labels))
    halves = {name: _halves(values) for name, values in output.items()}
    return tuple(type(output)(**{name: both[half] for name, both in halves.items()}) for half in (0, 1))


def _halves(values: Nested) -> tuple[Nested, Nested]:
    if torch.is_tensor(values):
        return values.chunk(2)
    return tuple(zip(*map(_halves, values), strict=True))


def accuracies(kind: str, real_logits: Logits, fake_logits: Logits) -> dict[str, torch.Tensor]:
    """Which real images, and which generated ones, a discriminator recognises: values to report.

    Args:
        kind (`str`): the adversarial loss, one of `ADVERSARIAL_LOSSES`. A Wasserstein critic has no decision boundary,
            and therefore no accuracy.
        real_logits, fake_logits (`torch.Tensor` of shape (N, ...), or a sequence of such): its outputs, for images or
            for patches.

    Returns:
        `dict`: `real_accuracy` and `fake_accuracy`, bool of shape (M,), one value per logit; or nothing.
    """
    if kind == "wasserstein":
        return {}
    boundary = 0.5 if kind == "least_squares" else 0.0
    return {"real_accuracy": _flat(real_logits) > boundary, "fake_accuracy": _flat(fake_logits) < boundary}


def pair_accuracy(relative_logits: Logits) -> dict[str, torch.Tensor]:
    """For which pairs a relativistic discriminator finds the real image more real: a value to report.

    Its logits of single images mean nothing, so that it has no [`accuracies`].

    Args:
        relative_logits (`torch.Tensor` of shape (N, ...), or a sequence of such): those of real images, relative to
            generated ones, by [`relative_logits`].

    Returns:
        `dict`: `pair_accuracy`, bool of shape (M,), one value per logit.
    """
    return {"pair_accuracy": _flat(relative_logits) > 0}


def _flat(logits: Logits) -> torch.Tensor:
    return torch.cat([scores.flatten() for scores in ([logits] if torch.is_tensor(logits) else logits)])
