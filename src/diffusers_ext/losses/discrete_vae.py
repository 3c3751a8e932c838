"""The evidence lower bound of discrete VAEs: Ramesh et al. 2021, appendix A."""

import math

import torch
import torch.nn.functional as F


def uniform_kl(logits: torch.Tensor) -> torch.Tensor:
    """The divergence of distributions of codes from the uniform one (Ramesh et al. 2021, eq. 1).

    Args:
        logits (`torch.Tensor` of shape (N, K, ...)): unnormalised log-probabilities of K codes at each position.

    Returns:
        `torch.Tensor` of shape (N,): in nats, the sum over the positions.
    """
    log_probs = logits.float().log_softmax(dim=1)
    return (log_probs.exp() * (log_probs + math.log(logits.shape[1]))).flatten(1).sum(dim=1)


def logit_laplace_log_prob(
    squeezed: torch.Tensor, statistics: torch.Tensor, min_log_scale: float | None = None
) -> torch.Tensor:
    """The logarithm of the density of squeezed pixels, whose logits have a Laplace distribution (appendix A.3).

    Args:
        squeezed (`torch.Tensor` of shape (N, C, H, W)): images in (0, 1), as `squeeze_pixels` gives them.
        statistics (`torch.Tensor` of shape (N, 2C, H, W)): the means of the logits, then the logarithms of the scales.
        min_log_scale (`float`, *optional*): the least logarithm of a scale. Without, a flat background, of which each
            pixel has one value, makes scales ever smaller, and the codes unlearn the rest of the image.

    Returns:
        `torch.Tensor` of shape (N,): in nats, the sum over the values.
    """
    mean, log_scale = statistics.float().chunk(2, dim=1)
    if min_log_scale is not None:
        log_scale = log_scale.clamp(min=min_log_scale)
    pixels = squeezed.float()
    logits = torch.logit(pixels)
    log_prob = -(logits - mean).abs() * torch.exp(-log_scale) - log_scale - math.log(2)
    # the change of variables from logits to pixels
    log_prob = log_prob - F.logsigmoid(logits) - F.logsigmoid(-logits)
    return log_prob.flatten(1).sum(dim=1)
