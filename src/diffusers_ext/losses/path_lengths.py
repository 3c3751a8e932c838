"""How far an image moves when its styles do: the path length regularization of StyleGAN2."""

import math

import torch


def path_lengths(images: torch.Tensor, styles: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    r"""
    The lengths |J^T y| for the Jacobian J of images with respect to styles (Karras et al. 2020, eq. 4,
    https://huggingface.co/papers/1912.04958), float32 of shape (N,), which can be differentiated.

    Args:
        images (`torch.Tensor` of shape (N, C, H, W)): made from `styles`, with their graph.
        styles (`torch.Tensor` of shape (N, num_styles, style_dim)): a style for each layer. The length is the mean
            over layers, of squares.
        noise (`torch.Tensor` of shape (N, C, H, W)): y, standard normal numbers.
    """
    directions = noise / math.sqrt(images.shape[2] * images.shape[3])
    (gradients,) = torch.autograd.grad((images.float() * directions).sum(), styles, create_graph=True)
    return gradients.float().square().sum(dim=2).mean(dim=1).sqrt()
