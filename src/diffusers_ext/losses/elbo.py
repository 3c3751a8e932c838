"""The evidence lower bound of variational autoencoders, and the terms that objectives are made of.

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
    """-log p(x|z), without the constants that no decoder can change.

    Args:
        loss_type (`str`): what the decoder's output is taken for:
            - `bernoulli`: probabilities in [0, 1], for images in [0, 1];
            - `mse`: means of normal distributions of variance 1, half the squared error. A variance of s^2 weighs the
              KL divergence by s^2 instead, as `beta` does;
            - `l1`: means of Laplace distributions of scale 1, the absolute error.
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
        mean, logvar (`torch.Tensor` of shape (N, ...)): of the posterior.

    Returns:
        `torch.Tensor` of the same shape, float32 nats. The divergence of a sample is the sum over its dimensions.
    """
    mean, logvar = mean.float(), logvar.float()
    # Nothing is added to a 1, in whose rounding a small divergence is lost.
    return 0.5 * (logvar.expm1() - logvar + mean.square())


def weighted_kl(kl: torch.Tensor, beta: float = 1.0, capacity: float | None = None) -> torch.Tensor:
    """What the beta-VAE adds to the reconstruction's error; with `beta=1` both are the negative lower bound.

    Args:
        kl (`torch.Tensor` of shape (N,)): the divergence of each sample.
        beta (`float`): its weight (Higgins et al. 2017, eq. 4).
        capacity (`float`, *optional*): C, in nats, which the divergence of each sample is drawn to instead of to zero:
            beta |KL - C| (Burgess et al. 2018, eq. 8, where beta is called gamma).
    """
    return beta * (kl if capacity is None else (kl - capacity).abs())


@dataclass
class KLDecomposition:
    """The three parts of the mean divergence from the prior (Chen et al. 2018, eq. 2), an estimate for each sample.

    Attributes:
        mutual_information (`torch.Tensor` of shape (N,)): log q(z|x) - log q(z), of the latents and the image's index.
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
    """Estimate mutual information, total correlation and dimension-wise divergence from a batch (Chen et al. 2018).

    The aggregate posterior q(z), a mixture over all images, is estimated from the posteriors of the batch:

    - `weighted`: minibatch-weighted sampling (eq. 5), a lower bound of E[log q(z)] in expectation;
    - `stratified`: minibatch-stratified sampling (appendix C.2): an unbiased estimate of q(z), for the image that the
      latents come from counts as one of `dataset_size`, not of the batch. The one other image whose weight differs is
      the next of the batch.

    Args:
        latents (`torch.Tensor` of shape (N, D)): a draw of the posterior of each of N images of the batch.
        mean, logvar (`torch.Tensor` of shape (B, D)): the posteriors of all B images of the batch.
        dataset_size (`int`): how many images there are to train on.
        estimator (`str`): one of `TOTAL_CORRELATION_ESTIMATORS`.
        rows (`torch.Tensor` of shape (N,), *optional*): which of the B images each of `latents` comes from; by default
            the first N.

    Raises:
        ValueError: for another estimator, a batch of one, and one larger than the data set.
    """
    batch_size = len(mean)
    if not 2 <= batch_size <= dataset_size:
        raise ValueError(
            f"The total correlation is estimated from batches of 2 images up to all {dataset_size}, not of "
            f"{batch_size}."
        )
    latents, mean, logvar = latents.float(), mean.float(), logvar.float()
    rows = torch.arange(len(latents), device=latents.device) if rows is None else rows
    # (N, B, D): log q(z_d | x) of each draw under the posterior of each image.
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
    """How much each image of the batch counts for each of `rows` (N,): the logarithms, (N, B)."""
    others = batch_size - 1
    if estimator == "weighted":
        return torch.full((len(rows), batch_size), -math.log(batch_size * dataset_size), device=rows.device)
    if estimator != "stratified":
        raise ValueError(f"estimator must be one of {', '.join(TOTAL_CORRELATION_ESTIMATORS)}, not {estimator}.")
    weights = torch.full((len(rows), batch_size), 1 / others, device=rows.device)
    # What is left for the last one, so that all add up to 1: (dataset_size - others) / (dataset_size * others).
    weights.scatter_(1, ((rows + 1) % batch_size)[:, None], 1 / others - 1 / dataset_size)
    weights.scatter_(1, rows[:, None], 1 / dataset_size)
    return weights.log()


def weighted_kl_parts(parts: KLDecomposition, beta: float, alpha: float = 1.0, gamma: float = 1.0) -> torch.Tensor:
    """What the beta-TCVAE adds to the reconstruction's error, of shape (N,) (Chen et al. 2018, eq. 4).

    Args:
        parts ([`KLDecomposition`]): from [`decompose_kl`].
        beta (`float`): the weight of the total correlation.
        alpha, gamma (`float`): those of the mutual information and of the dimension-wise divergence, 1 in the paper.
    """
    regularisation = alpha * parts.mutual_information + beta * parts.total_correlation
    return regularisation + gamma * parts.dimension_wise_kl


def shuffle_dimensions(latents: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Draws of the product of the marginals: each dimension of a batch in an order of its own.

    Kim and Mnih (2018, algorithm 1).

    Args:
        latents (`torch.Tensor` of shape (B, D)): draws of q(z).
        keys (`torch.Tensor` of shape (B, D)): random numbers; the orders are those of their columns.
    """
    return latents.gather(0, keys.argsort(dim=0))


def latent_discriminator_loss(logits: torch.Tensor, shuffled_logits: torch.Tensor) -> torch.Tensor:
    """What FactorVAE's discriminator minimises: -log D(z) and -log(1 - D(shuffled)), averaged, of shape (N,).

    Its logits are log D(z) / (1 - D(z)), which estimates the total correlation (Kim and Mnih 2018, eq. 3).

    Args:
        logits, shuffled_logits (`torch.Tensor` of shape (N,)): for draws of q(z), and for [`shuffle_dimensions`].
    """
    return 0.5 * (F.softplus(-logits.float()) + F.softplus(shuffled_logits.float()))


def commitment_loss(latents: torch.Tensor, quantized: torch.Tensor, beta: float = 0.25) -> torch.Tensor:
    """beta ||z - sg[e]||^2 (van den Oord et al. 2017, eq. 3, third term), averaged over the elements of each sample.

    Args:
        latents, quantized (`torch.Tensor` of shape (N, ...)): the encoder's output, and its nearest codes.
        beta (`float`): the weight; 0.25 in the paper.

    Returns:
        `torch.Tensor` of shape (N,), float32. Its gradient reaches `latents` only.
    """
    return beta * (latents.float() - quantized.detach().float()).square().flatten(1).mean(dim=1)


def codebook_loss(latents: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
    """||sg[z] - e||^2, the second term there, which moves codes that no moving average does; (N,), float32."""
    return commitment_loss(quantized, latents, beta=1.0)
