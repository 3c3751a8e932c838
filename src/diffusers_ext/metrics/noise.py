"""How near generated noise is to real noise: the average KL divergence (AKLD) of Yue et al. 2020 (DANet)."""

import torch
import torch.nn.functional as F


# One axis of small Gaussian windows, by their width: OpenCV's tables for an unspecified deviation
GAUSSIAN_WINDOWS = {
    5: (0.0625, 0.25, 0.375, 0.25, 0.0625),
    7: (0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125),
}
SMALLEST_VARIANCE = 1e-10


def local_mean(images: torch.Tensor, width: int) -> torch.Tensor:
    """The mean of (N, C, H, W) around each pixel, with the weights of a Gaussian window of 5 or 7 pixels.

    Images are reflected at their borders.
    """
    weights = torch.tensor(GAUSSIAN_WINDOWS[width], dtype=images.dtype, device=images.device)
    kernel = torch.outer(weights, weights).expand(images.shape[1], 1, -1, -1)
    padded = F.pad(images, [width // 2] * 4, mode="reflect")
    return F.conv2d(padded, kernel, groups=images.shape[1])


def noise_variance(noisy: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """The variance of the noise around each pixel of (N, C, H, W), over a window of 7 pixels, at least 1e-10."""
    return local_mean((noisy.float() - clean.float()).square(), 7).clamp(min=SMALLEST_VARIANCE)


def average_kl_divergence(noisy: torch.Tensor, clean: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
    """The KL divergence between generated and real noise, as Gaussians with a variance for each pixel: AKLD.

    Yue et al. 2020, eq. 15 (https://huggingface.co/papers/2007.05946), with ratios of variances cut to [0.1, 10] as in
    https://github.com/zsyOAOA/DANet. The paper averages it over 50 generated images for each clean one.

    Args:
        noisy, clean, generated (`torch.Tensor` of shape (N, C, H, W)): real noisy images, the same without noise, and
            the latter with generated noise, all in [0, 1].

    Returns:
        `torch.Tensor` of shape (N,): 0 where the variances are equal.
    """
    ratio = (noise_variance(generated, clean) / noise_variance(noisy, clean)).clamp(0.1, 10)
    return (ratio - ratio.log() - 1).flatten(1).mean(dim=1) / 2
