"""Regularizers that keep a discriminator smooth, and the weights of a generator orthogonal.

The gradient penalties depend on the gradient of the discriminator with respect to images, and have gradients with
respect to its weights. The score of an image is the sum of its map of logits (as in the code of pix2pix), or of all
its maps. Scores and norms are computed in float32, whatever the precision of the network.

With batch norm, the score of an image also depends on the other images of the batch (Gulrajani et al. 2017, section
4). Then the gradient of the sum over the batch is used.
"""

from collections.abc import Callable, Iterable, Sequence

import torch


def gradient_penalty(
    discriminator: Callable[[torch.Tensor], torch.Tensor | Sequence[torch.Tensor]],
    real: torch.Tensor,
    fake: torch.Tensor,
    weights: torch.Tensor,
    center: float = 1.0,
) -> torch.Tensor:
    """(|gradient| - center)^2 between real and generated images (Gulrajani et al. 2017, eq. 3), of shape (N,).

    Args:
        discriminator: a function from images (N, C, H, W) to logits (N, ...), or a sequence of such tensors.
        real, fake (`torch.Tensor` of shape (N, C, H, W)): images; gradients do not reach the networks that made them.
        weights (`torch.Tensor` of shape (N,)): the fraction of the real image in each mixture, uniform in [0, 1].
        center (`float`): the target of the norm; 0 is the penalty of Thanh-Tung et al. (2019).
    """
    mixed = _mixture(real, fake, weights)
    # An offset, as in the code of pix2pix, because the norm has no derivative at zero.
    gradients = _gradients(discriminator(mixed), mixed) + 1e-16
    return (gradients.norm(dim=1) - center).square()


def pixel_gradient_penalty(
    discriminator: Callable[[torch.Tensor], torch.Tensor],
    real: torch.Tensor,
    fake: torch.Tensor,
    weights: torch.Tensor,
) -> torch.Tensor:
    """The same penalty of the gradient at each pixel, averaged over the pixels, of shape (N,).

    For a critic of patches: a pixel affects the scores of a few, whatever the size of the image. As in
    https://github.com/tamarott/SinGAN.

    Args:
        discriminator, real, fake, weights: see [`gradient_penalty`].
    """
    mixed = _mixture(real, fake, weights)
    gradients = _gradients(discriminator(mixed), mixed).view_as(mixed) + 1e-16
    return (gradients.norm(dim=1) - 1).square().flatten(1).mean(dim=1)


def r1_penalty(real_logits: torch.Tensor | Sequence[torch.Tensor], real: torch.Tensor) -> torch.Tensor:
    """|gradient|^2 / 2 at real images (Mescheder et al. 2018, eq. 9, for gamma = 1), of shape (N,).

    Args:
        real_logits (`torch.Tensor` of shape (N, ...), or a sequence of such tensors): computed from `real`.
        real (`torch.Tensor` of shape (N, C, H, W)): must require gradients.
    """
    return 0.5 * _gradients(real_logits, real).square().sum(dim=1)


def r2_penalty(fake_logits: torch.Tensor | Sequence[torch.Tensor], fake: torch.Tensor) -> torch.Tensor:
    """|gradient|^2 / 2 at generated images (Mescheder et al. 2018, eq. 10): see [`r1_penalty`]."""
    return r1_penalty(fake_logits, fake)


def orthogonal_penalty(weights: Iterable[torch.Tensor]) -> torch.Tensor:
    """How far the filters of layers are from orthogonal, whatever their lengths: the sum of squares of all products
    of two filters of a layer (Brock et al. 2019, eq. 3, https://huggingface.co/papers/1809.11096), a single number.

    Args:
        weights (iterable of `torch.Tensor` of shape (out, in, ...)): the weights of layers.
    """
    penalties = []
    for weight in weights:
        filters = weight.flatten(1).float()
        products = filters @ filters.T
        penalties.append(products.square().sum() - products.diagonal().square().sum())
    return torch.stack(penalties).sum()


@torch.no_grad()
def clip_weights(network: torch.nn.Module, bound: float) -> None:
    """Clamps all weights to [-bound, bound], in place (Arjovsky et al. 2017, algorithm 1, line 7)."""
    for weight in network.parameters():
        weight.clamp_(-bound, bound)


def _mixture(real: torch.Tensor, fake: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Images between real and generated ones, which gradients are computed at."""
    weights = weights.view(-1, *[1] * (real.ndim - 1))
    return torch.lerp(fake.detach(), real.detach(), weights.to(real.dtype)).requires_grad_()


def _gradients(logits: torch.Tensor | Sequence[torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """The gradient of each image's score, float32 of shape (N, C*H*W)."""
    maps = [logits] if torch.is_tensor(logits) else logits
    score = torch.stack([scores.float().sum() for scores in maps]).sum()
    (gradients,) = torch.autograd.grad(score, images, create_graph=True)
    return gradients.flatten(1).float()
