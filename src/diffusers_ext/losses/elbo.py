"""The evidence lower bound (ELBO) of variational autoencoders, and the terms of related objectives.

log p(x) >= E_q(z|x)[log p(x|z)] - KL(q(z|x) || p(z)) (Kingma and Welling 2014, eq. 3), with a diagonal normal
posterior q(z|x) and a standard normal prior p(z). Terms are sums over the dimensions of a sample, in nats: float32 of
shape (N,).
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F


ReconstructionLoss = Literal["bernoulli", "mse", "l1"]
TotalCorrelationEstimator = Literal["stratified", "weighted"]
RECONSTRUCTION_LOSSES = get_args(ReconstructionLoss)
TOTAL_CORRELATION_ESTIMATORS = get_args(TotalCorrelationEstimator)


def reconstruction_error(loss_type: str, reconstruction: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """-log p(x|z), without constants that do not depend on the decoder.

    Args:
        loss_type (`str`): the interpretation of the decoder's output:
            - `bernoulli`: probabilities in [0, 1], for images in [0, 1];
            - `mse`: means of normal distributions with variance 1, so the loss is half the squared error. Another
              variance s^2 is equivalent to a weight s^2 of the KL divergence, which `beta` can set;
            - `l1`: means of Laplace distributions with scale 1, so the loss is the absolute error.
        reconstruction, images (`torch.Tensor` of shape (N, ...)): in the network's own range of values.

    Returns:
        `torch.Tensor` of shape (N,).

    Raises:
        ValueError: for another `loss_type`, and tensors of different shapes.
    """
    if reconstruction.shape != images.shape:
        raise ValueError(
            f"A reconstruction must have the shape of its image, {tuple(images.shape)}, not "
            f"{tuple(reconstruction.shape)}."
        )
    reconstruction, images = reconstruction.float(), images.float()
    if loss_type == "bernoulli":
        errors = F.binary_cross_entropy(reconstruction, images, reduction="none")
    elif loss_type == "mse":
        errors = 0.5 * (reconstruction - images).square()
    elif loss_type == "l1":
        errors = (reconstruction - images).abs()
    else:
        raise ValueError(f"loss_type must be one of {', '.join(RECONSTRUCTION_LOSSES)}, not {loss_type}.")
    return errors.flatten(1).sum(dim=1)


def standard_normal_kl(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)) of each latent dimension (Kingma and Welling 2014, appendix B).

    Args:
        mean, logvar (`torch.Tensor` of shape (N, ...)): the mean and log variance of the posterior.

    Returns:
        `torch.Tensor` of the same shape: float32, in nats. The divergence of a sample is the sum over its dimensions.
    """
    mean, logvar = mean.float(), logvar.float()
    # With expm1, because the rounding error of exp() - 1 can be larger than a small divergence.
    return 0.5 * (logvar.expm1() - logvar + mean.square())


def weighted_kl(kl: torch.Tensor, beta: float = 1.0, capacity: float | None = None) -> torch.Tensor:
    """The regularization term of beta-VAE. With `beta=1`, its sum with the reconstruction error is the negative ELBO.

    Args:
        kl (`torch.Tensor` of shape (N,)): the divergence of each sample.
        beta (`float`): its weight (Higgins et al. 2017, eq. 4).
        capacity (`float`, *optional*): C, in nats, the target of the divergence instead of zero: beta |KL - C|
            (Burgess et al. 2018, eq. 8, where beta is called gamma).
    """
    return beta * (kl if capacity is None else (kl - capacity).abs())


@dataclass
class KLDecomposition:
    """The three parts of the mean divergence from the prior (Chen et al. 2018, eq. 2), estimated for each sample.

    Attributes:
        mutual_information (`torch.Tensor` of shape (N,)): log q(z|x) - log q(z), between the latents and the index of
            the image.
        total_correlation (`torch.Tensor` of shape (N,)): log q(z) - sum_d log q(z_d), zero for independent latents.
        dimension_wise_kl (`torch.Tensor` of shape (N,)): sum_d log q(z_d) - log p(z_d).
    """

    mutual_information: torch.Tensor
    total_correlation: torch.Tensor
    dimension_wise_kl: torch.Tensor


def decompose_kl(
    latents: torch.Tensor,
    mean: torch.Tensor,
    logvar: torch.Tensor,
    dataset_size: int,
    estimator: str = "stratified",
    rows: torch.Tensor | None = None,
) -> KLDecomposition:
    """Estimates mutual information, total correlation and dimension-wise divergence from a batch (Chen et al. 2018).

    The aggregate posterior q(z), a mixture over all images, is estimated from the posteriors of the batch:

    - `weighted`: minibatch-weighted sampling (eq. 5), a lower bound of E[log q(z)] in expectation;
    - `stratified`: minibatch-stratified sampling (appendix C.2), an unbiased estimate of q(z): the image that the
      latents come from has the weight of one in `dataset_size` images, not of one in the batch. The next image of the
      batch has another weight, so that all weights add up to 1.

    Args:
        latents (`torch.Tensor` of shape (N, D)): a sample of the posterior of each of N images of the batch.
        mean, logvar (`torch.Tensor` of shape (B, D)): the posteriors of all B images of the batch.
        dataset_size (`int`): the number of training images.
        estimator (`str`): one of `TOTAL_CORRELATION_ESTIMATORS`.
        rows (`torch.Tensor` of shape (N,), *optional*): which of the B images each row of `latents` comes from; by
            default the first N.

    Raises:
        ValueError: for another estimator, a batch of one image, and a batch larger than the data set.
    """
    batch_size = len(mean)
    if not 2 <= batch_size <= dataset_size:
        raise ValueError(
            f"The total correlation is estimated from batches of 2 to {dataset_size} images (the whole data set), not "
            f"of {batch_size}."
        )
    latents, mean, logvar = latents.float(), mean.float(), logvar.float()
    rows = torch.arange(len(latents), device=latents.device) if rows is None else rows
    # (N, B, D): log q(z_d | x) of each sample under the posterior of each image.
    log_densities = _normal_log_density(latents[:, None], mean, logvar)
    log_weights = _log_weights(estimator, rows, batch_size, dataset_size)[:, :, None]

    log_conditional = log_densities[torch.arange(len(latents), device=latents.device), rows].sum(dim=1)
    log_joint = (log_densities.sum(dim=2) + log_weights[:, :, 0]).logsumexp(dim=1)
    log_marginals = (log_densities + log_weights).logsumexp(dim=1).sum(dim=1)
    log_prior = _normal_log_density(latents, torch.zeros_like(latents), torch.zeros_like(latents)).sum(dim=1)
    return KLDecomposition(
        mutual_information=log_conditional - log_joint,
        total_correlation=log_joint - log_marginals,
        dimension_wise_kl=log_marginals - log_prior,
    )


def _normal_log_density(values: torch.Tensor, mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    return -0.5 * ((values - mean).square() * torch.exp(-logvar) + logvar + math.log(2 * math.pi))


def _log_weights(estimator: str, rows: torch.Tensor, batch_size: int, dataset_size: int) -> torch.Tensor:
    """The logarithm of the weight of each image of the batch for each of `rows` (N,): (N, B)."""
    others = batch_size - 1
    if estimator == "weighted":
        return torch.full((len(rows), batch_size), -math.log(batch_size * dataset_size), device=rows.device)
    if estimator != "stratified":
        raise ValueError(f"estimator must be one of {', '.join(TOTAL_CORRELATION_ESTIMATORS)}, not {estimator}.")
    weights = torch.full((len(rows), batch_size), 1 / others, device=rows.device)
    # The remaining weight, so that all add up to 1: (dataset_size - others) / (dataset_size * others).
    weights.scatter_(1, ((rows + 1) % batch_size)[:, None], 1 / others - 1 / dataset_size)
    weights.scatter_(1, rows[:, None], 1 / dataset_size)
    return weights.log()


def weighted_kl_parts(parts: KLDecomposition, beta: float, alpha: float = 1.0, gamma: float = 1.0) -> torch.Tensor:
    """The regularization term of beta-TCVAE, of shape (N,) (Chen et al. 2018, eq. 4).

    Args:
        parts ([`KLDecomposition`]): from [`decompose_kl`].
        beta (`float`): the weight of the total correlation.
        alpha, gamma (`float`): the weights of the mutual information and the dimension-wise divergence, both 1 in the
            paper.
    """
    regularisation = alpha * parts.mutual_information + beta * parts.total_correlation
    return regularisation + gamma * parts.dimension_wise_kl


def shuffle_dimensions(latents: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Samples of the product of the marginals: each dimension is shuffled separately over the batch.

    Kim and Mnih (2018, algorithm 1).

    Args:
        latents (`torch.Tensor` of shape (B, D)): samples of q(z).
        keys (`torch.Tensor` of shape (B, D)): random numbers; sorting their columns gives the orders.
    """
    return latents.gather(0, keys.argsort(dim=0))


def latent_discriminator_loss(logits: torch.Tensor, shuffled_logits: torch.Tensor) -> torch.Tensor:
    """The loss of FactorVAE's discriminator, the average of -log D(z) and -log(1 - D(shuffled)), of shape (N,).

    Its logits are log D(z) / (1 - D(z)), which estimate the total correlation (Kim and Mnih 2018, eq. 3).

    Args:
        logits, shuffled_logits (`torch.Tensor` of shape (N,)): the logits of samples of q(z), and of
            [`shuffle_dimensions`].
    """
    return 0.5 * (F.softplus(-logits.float()) + F.softplus(shuffled_logits.float()))


def commitment_loss(latents: torch.Tensor, quantized: torch.Tensor, beta: float = 0.25) -> torch.Tensor:
    """beta ||z - sg[e]||^2 (van den Oord et al. 2017, eq. 3, third term), averaged over the elements of each sample.

    Args:
        latents, quantized (`torch.Tensor` of shape (N, ...)): the encoder's output, and the nearest entries.
        beta (`float`): the weight; 0.25 in the paper.

    Returns:
        `torch.Tensor` of shape (N,), float32. Its gradient only reaches `latents`.
    """
    return beta * (latents.float() - quantized.detach().float()).square().flatten(1).mean(dim=1)


def codebook_loss(latents: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
    """||sg[z] - e||^2 (van den Oord et al. 2017, eq. 3, second term), for entries trained by gradients: (N,)."""
    return commitment_loss(quantized, latents, beta=1.0)
