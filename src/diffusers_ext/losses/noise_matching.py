"""The loss that keeps the mean of generated noise near to that of real noise."""

import torch

from diffusers_ext.metrics.noise import local_mean


def noise_mean_loss(noisy: torch.Tensor, clean: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
    """The absolute difference between the local means of generated and real noise, of shape (N,).

    Yue et al. 2020, eq. 11 (https://huggingface.co/papers/2007.05946), with a Gaussian window of 5 pixels.

    Args:
        noisy, clean, generated (`torch.Tensor` of shape (N, C, H, W)): as for `average_kl_divergence`.
    """
    real, made = (local_mean(images.float() - clean.float(), 5) for images in (noisy, generated))
    return (made - real).abs().flatten(1).mean(dim=1)
