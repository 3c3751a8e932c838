"""What keeps a discriminator smooth.

The penalties are functions of its gradient with respect to images, and have gradients in turn with respect to its
weights. A map of logits counts as its sum (as in pix2pix's code), several maps as the sum of their sums. Scores and
norms are in float32, whatever the precision of the network.

A discriminator with batch norm has no gradient of one image's own score (Gulrajani et al. 2017, section 4): what is
computed there is the gradient of the sum of the batch.
"""

from collections.abc import Callable, Sequence

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
        discriminator: from images (N, C, H, W) to logits (N, ...), or a sequence of such.
        real, fake (`torch.Tensor` of shape (N, C, H, W)): no gradient reaches where they come from.
        weights (`torch.Tensor` of shape (N,)): the part of the real image in each mixture, drawn uniformly in [0, 1].
        center (`float`): the norm that is asked for; 0 is Thanh-Tung et al. (2019).
    """
    weights = weights.view(-1, *[1] * (real.ndim - 1))
    mixed = torch.lerp(fake.detach(), real.detach(), weights.to(real.dtype)).requires_grad_()
    # An offset, as in pix2pix's code: the root has no derivative at zero.
    gradients = _gradients(discriminator(mixed), mixed) + 1e-16
    return (gradients.norm(dim=1) - center).square()


def r1_penalty(real_logits: torch.Tensor | Sequence[torch.Tensor], real: torch.Tensor) -> torch.Tensor:
    """|gradient|^2 / 2 at real images (Mescheder et al. 2018, eq. 9, for gamma = 1), of shape (N,).

    Args:
        real_logits (`torch.Tensor` of shape (N, ...), or a sequence of such): computed from `real`.
        real (`torch.Tensor` of shape (N, C, H, W)): must require gradients.
    """
    return 0.5 * _gradients(real_logits, real).square().sum(dim=1)


def r2_penalty(fake_logits: torch.Tensor | Sequence[torch.Tensor], fake: torch.Tensor) -> torch.Tensor:
    """The same at generated images (eq. 10 there): see [`r1_penalty`]."""
    return r1_penalty(fake_logits, fake)


@torch.no_grad()
def clip_weights(network: torch.nn.Module, bound: float) -> None:
    """Clamp all weights to [-bound, bound], in place (Arjovsky et al. 2017, algorithm 1, line 7)."""
    for weight in network.parameters():
        weight.clamp_(-bound, bound)


def _gradients(logits: torch.Tensor | Sequence[torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """The gradient of each image's score, float32 of shape (N, C*H*W)."""
    maps = [logits] if torch.is_tensor(logits) else logits
    score = torch.stack([scores.float().sum() for scores in maps]).sum()
    (gradients,) = torch.autograd.grad(score, images, create_graph=True)
    return gradients.flatten(1).float()
