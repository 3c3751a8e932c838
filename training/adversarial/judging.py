"""What recipes with a discriminator have in common: how it judges real and generated images, and how well."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def has_batch_norm(network: nn.Module) -> bool:
    """Whether what a network says of an image depends on the others of its batch."""
    return any(isinstance(module, _BatchNorm) for module in network.modules())


def judge_both(discriminator: nn.Module, real: torch.Tensor, fake: torch.Tensor) -> tuple:
    """The logits of real and of generated images: in one pass, unless each has a batch norm of its own.

    Args:
        discriminator (`nn.Module`): a patch discriminator, of one scale or several.
        real, fake (`torch.Tensor` of shape (N, C, H, W)): the images.

    Returns:
        `tuple`: a map (N, 1, h, w) for each, or a sequence of maps, one per scale.
    """
    if has_batch_norm(discriminator):
        return discriminator(real).logits, discriminator(fake).logits
    logits = discriminator(torch.cat([real, fake])).logits
    if torch.is_tensor(logits):
        return logits.chunk(2)
    return tuple(zip(*(scores.chunk(2) for scores in logits), strict=True))


def accuracies(loss: str, real_logits, fake_logits) -> dict[str, torch.Tensor]:
    """Which images, or patches of them, a discriminator takes for what they are, as values to report.

    Args:
        loss (`str`): the adversarial loss; a Wasserstein critic knows no boundary, and has no accuracy.
        real_logits, fake_logits: a tensor, or one for each scale.
    """
    if loss == "wasserstein":
        return {}
    boundary = 0.5 if loss == "least_squares" else 0.0
    return {"real_accuracy": _flat(real_logits) > boundary, "fake_accuracy": _flat(fake_logits) < boundary}


def _flat(logits) -> torch.Tensor:
    return torch.cat([scores.flatten() for scores in ([logits] if torch.is_tensor(logits) else logits)])
