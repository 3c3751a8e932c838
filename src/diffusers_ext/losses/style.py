"""Losses of style transfer, on the maps `(N, C, H, W)` that layers of a network give: float32 of shape (N,)."""

import torch


def gram_matrix(features: torch.Tensor) -> torch.Tensor:
    """The products of each two channels, divided by C * H * W: `(N, C, C)` (Johnson et al. 2016, eq. 3)."""
    rows = features.flatten(2)
    return rows @ rows.transpose(1, 2) / rows[0].numel()


def map_loss(features: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The mean squared difference of two maps (Johnson et al. 2016, eq. 2)."""
    return (features.float() - target.float()).square().flatten(1).mean(dim=1)


def gram_loss(features: list[torch.Tensor], grams: list[torch.Tensor]) -> torch.Tensor:
    """The mean squared difference of Gram matrices, added over layers.

    Johnson et al. (2016, eq. 4), as in https://github.com/pytorch/examples: a mean, where the paper has a sum.

    Args:
        features (`list[torch.Tensor]`): the maps of each layer, `(N, C, H, W)`.
        grams (`list[torch.Tensor]`): the wanted matrices of each layer, `(N, C, C)` or `(1, C, C)`.
    """
    pairs = zip(features, grams, strict=True)
    return sum(map_loss(gram_matrix(layer), gram.expand(len(layer), -1, -1)) for layer, gram in pairs)


def statistics_loss(features: list[torch.Tensor], style: list[torch.Tensor], epsilon: float = 1e-5) -> torch.Tensor:
    """The squared differences of means, and of deviations, of channels: a mean over channels, added over layers.

    Huang and Belongie (2017, eq. 13), as in https://github.com/naoto0804/pytorch-AdaIN.

    Args:
        features, style (`list[torch.Tensor]`): the maps of each layer, `(N, C, H, W)`, whose sizes may differ.
        epsilon (`float`): added to the unbiased variances.
    """
    losses = 0.0
    for layer, other in zip(features, style, strict=True):
        means = [maps.float().mean(dim=(2, 3)) for maps in (layer, other)]
        deviations = [(maps.float().var(dim=(2, 3)) + epsilon).sqrt() for maps in (layer, other)]
        losses = losses + (means[0] - means[1]).square().mean(1) + (deviations[0] - deviations[1]).square().mean(1)
    return losses


def total_variation(images: torch.Tensor) -> torch.Tensor:
    """How much neighbouring pixels differ: the mean of absolute differences, down and to the right."""
    images = images.float()
    below, right = images.diff(dim=2).abs(), images.diff(dim=3).abs()
    return below.flatten(1).mean(dim=1) + right.flatten(1).mean(dim=1)
