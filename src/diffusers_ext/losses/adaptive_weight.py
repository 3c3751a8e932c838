"""The adaptive weight of an adversarial loss (Esser et al. 2021, "Taming transformers")."""

import torch


# As in https://github.com/CompVis/taming-transformers; in the paper, delta is 1e-6.
DELTA = 1e-4
MAX_WEIGHT = 1e4


def last_layer_gradient(loss: torch.Tensor, last_layer: torch.Tensor) -> torch.Tensor:
    """The gradient of a loss with respect to the weight of the decoder's last layer; the graph is kept."""
    return torch.autograd.grad(loss, last_layer, retain_graph=True)[0].detach().float()


def adaptive_weight(reconstruction_gradient: torch.Tensor, adversarial_gradient: torch.Tensor) -> torch.Tensor:
    """Lambda of equation 7, with which both losses have gradients of the same norm at the last layer of the decoder.

    Args:
        reconstruction_gradient, adversarial_gradient (`torch.Tensor`): see [`last_layer_gradient`].

    Returns:
        `torch.Tensor`: a single number from 0 to 10,000.
    """
    return (reconstruction_gradient.norm() / (adversarial_gradient.norm() + DELTA)).clamp(0, MAX_WEIGHT)
