"""The variational bound of a Gaussian diffusion process: its terms in bits per dimension, and the losses based on it.

The negative log-likelihood of an image is at most the sum of three kinds of terms (Ho et al. 2020, eq. 5; Nichol and
Dhariwal 2021, eq. 4-7): the prior term, a KL divergence for each step except the first, and the negative
log-likelihood of the decoder at the first step. All terms are averages over the C*H*W dimensions, in bits.

The process is defined by a scheduler with the methods of [`ExactDDPMScheduler`]. Its chain is the one of the last
`set_timesteps`, or the full one, and timesteps are values of this chain. Everything is computed in float32.
"""

import math
from dataclasses import dataclass

import torch

from diffusers_ext.losses.diffusion import noise_levels, prediction_target


LOSS_TYPES = ("mse", "rescaled_mse", "kl", "rescaled_kl")
# The variance types whose networks have 2C output channels (Nichol and Dhariwal 2021, section 3.1).
LEARNED_VARIANCES = ("learned", "learned_range")

# Half the distance between two 8-bit levels in [-1, 1].
HALF_LEVEL = 1 / 255


def normal_kl(
    mean1: torch.Tensor, log_variance1: torch.Tensor, mean2: torch.Tensor, log_variance2: torch.Tensor
) -> torch.Tensor:
    """KL(N(mean1, variance1) || N(mean2, variance2)) of each entry, in nats; the arguments broadcast."""
    log_ratio = log_variance1 - log_variance2
    squared_distance = (mean1 - mean2).square() * torch.exp(-log_variance2)
    # With expm1, because the rounding error of exp() - 1 can be larger than a small divergence.
    return 0.5 * (torch.expm1(log_ratio) - log_ratio + squared_distance)


def discretized_gaussian_log_likelihood(
    images: torch.Tensor, means: torch.Tensor, log_scales: torch.Tensor
) -> torch.Tensor:
    """The log-probability of each 8-bit level under a discretised Gaussian (Ho et al. 2020, eq. 13).

    The probability of a level is the probability of the cell around it; the cells of the first and the last level
    extend to infinity. As in the reference implementation, the normal distribution function is approximated (Page
    1977), and probabilities below 1e-12 are replaced by 1e-12.

    Args:
        images (`torch.Tensor`): 8-bit levels k as 2k/255 - 1, in [-1, 1].
        means, log_scales (`torch.Tensor`): mean and log of the standard deviation, which broadcast to `images`.

    Returns:
        `torch.Tensor` of the shape of `images`: in nats, never positive.
    """
    precisions = torch.exp(-log_scales)
    below_upper = _normal_cdf(precisions * (images + HALF_LEVEL - means))
    below_lower = _normal_cdf(precisions * (images - HALF_LEVEL - means))
    probabilities = torch.where(images > 0.999, 1 - below_lower, below_upper - below_lower)
    probabilities = torch.where(images < -0.999, below_upper, probabilities)
    return probabilities.clamp(min=1e-12).log()


def _normal_cdf(x: torch.Tensor) -> torch.Tensor:
    # Beyond 10 the tanh is 1 in float32, but the gradient of a cube that overflows would be NaN.
    x = x.clamp(-10, 10)
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


@dataclass
class VariationalBoundTerm:
    """The term of the bound for one step of each of N samples, and the predictions behind it.

    Attributes:
        bits_per_dim (`torch.Tensor` of shape (N,)): the decoder term at the first step, a KL divergence at other
            steps.
        pred_original_sample, pred_epsilon (`torch.Tensor` of shape (N, C, H, W)): the clean image that the network
            predicts, after clipping, and the corresponding noise.
    """

    bits_per_dim: torch.Tensor
    pred_original_sample: torch.Tensor
    pred_epsilon: torch.Tensor


def check_output_channels(model_output: torch.Tensor, images: torch.Tensor, scheduler) -> None:
    """Raises a `ValueError` if the channels of an output do not match the images and the variance type."""
    expected = images.shape[1] * (2 if scheduler.config.variance_type in LEARNED_VARIANCES else 1)
    if model_output.shape[1] != expected:
        raise ValueError(
            f"For images with {images.shape[1]} channels and variance_type={scheduler.config.variance_type!r}, the "
            f"output of the network must have {expected} channels, not {model_output.shape[1]}."
        )


def variational_bound_term(
    model_output: torch.Tensor,
    clean: torch.Tensor,
    noisy: torch.Tensor,
    timesteps: torch.Tensor,
    scheduler,
    clip_sample: bool | None = None,
) -> VariationalBoundTerm:
    """L_0 at the first step of the chain, L_{t-1} at other steps (Nichol and Dhariwal 2021, eq. 5-6).

    Args:
        model_output (`torch.Tensor` of shape (N, C, H, W), or (N, 2C, H, W) for a learned variance):
            The network's output for `noisy`.
        clean (`torch.Tensor` of shape (N, C, H, W)): 8-bit images in [-1, 1].
        noisy (`torch.Tensor` of shape (N, C, H, W)): the noisy images at `timesteps`, see `scheduler.q_sample`.
        timesteps (`torch.Tensor` of shape (N,)): steps of the scheduler's chain.
        scheduler ([`ExactDDPMScheduler`]): the process.
        clip_sample (`bool`, *optional*): whether the predicted image is clipped; by default, the scheduler decides.

    Raises:
        ValueError: if the channels of `model_output` do not match the variance type.
    """
    check_output_channels(model_output, clean, scheduler)
    clean, noisy = clean.float(), noisy.float()
    true_mean, _, true_log_variance = scheduler.q_posterior(clean, noisy, timesteps)
    predicted = scheduler.p_mean_variance(model_output.float(), timesteps, noisy, clip_sample=clip_sample)

    divergence = normal_kl(true_mean, true_log_variance, predicted.mean, predicted.log_variance)
    log_likelihood = discretized_gaussian_log_likelihood(clean, predicted.mean, 0.5 * predicted.log_variance)
    is_first = (timesteps == scheduler.timesteps.min()).to(clean.device)[:, None, None, None]
    return VariationalBoundTerm(
        bits_per_dim=_bits(torch.where(is_first, -log_likelihood, divergence)),
        pred_original_sample=predicted.pred_original_sample,
        pred_epsilon=predicted.pred_epsilon,
    )


def prior_bits_per_dim(clean: torch.Tensor, scheduler) -> torch.Tensor:
    """L_T, the information about the image in the noisiest step (Nichol and Dhariwal 2021, eq. 7): bits/dim, (N,)."""
    noisiest = scheduler.timesteps.max().expand(len(clean)).to(clean.device)
    mean, _, log_variance = scheduler.q_mean_variance(clean.float(), noisiest)
    standard = torch.zeros_like(mean)
    return _bits(normal_kl(mean, log_variance, standard, standard))


@dataclass
class GaussianDiffusionLoss:
    """A loss and its parts for each of N samples.

    Attributes:
        loss (`torch.Tensor` of shape (N,)): the loss.
        mse (`torch.Tensor` of shape (N,), *optional*): the squared error that is part of the loss.
        vb (`torch.Tensor` of shape (N,), *optional*): the variational term that is part of the loss, with its scale.
    """

    loss: torch.Tensor
    mse: torch.Tensor | None = None
    vb: torch.Tensor | None = None


def gaussian_diffusion_loss(
    loss_type: str,
    model_output: torch.Tensor,
    clean: torch.Tensor,
    noisy: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    scheduler,
) -> GaussianDiffusionLoss:
    """The training losses of improved diffusion and guided diffusion, with the names of these repositories.

    - `mse`: the squared error of the prediction (L_simple). With a learned variance, plus the variational term;
    - `rescaled_mse`: the same, with T/1000 times the variational term. With a learned variance, this is L_hybrid =
      L_simple + 0.001 L_vlb of Nichol and Dhariwal (2021, eq. 16), because L_vlb is T times the mean of its terms;
    - `kl`: the variational term. T times its mean over all steps, plus the prior term, is the bound;
    - `rescaled_kl`: T times the variational term, an unbiased estimate of the bound (L_vlb) except for the prior term.

    T is the number of steps of the chain. With a squared error, the variational term only trains the variance: its
    gradient does not reach the first C channels. The predicted image is never clipped here.

    Args:
        loss_type (`str`): one of `LOSS_TYPES`.
        model_output (`torch.Tensor` of shape (N, C, H, W), or (N, 2C, H, W) for a learned variance):
            The network's output for `noisy`, of any floating-point type.
        clean (`torch.Tensor` of shape (N, C, H, W)): 8-bit images in [-1, 1].
        noisy (`torch.Tensor` of shape (N, C, H, W)): `scheduler.q_sample(clean, timesteps, noise)`.
        noise (`torch.Tensor` of shape (N, C, H, W)): standard normal.
        timesteps (`torch.Tensor` of shape (N,)): steps of the scheduler's chain.
        scheduler ([`ExactDDPMScheduler`]): the process, the prediction type and the variance type.

    Raises:
        ValueError: for another loss type, and if the channels of `model_output` do not match the variance type.
    """
    if loss_type not in LOSS_TYPES:
        raise ValueError(f"loss_type must be one of {', '.join(LOSS_TYPES)}, not {loss_type}.")
    check_output_channels(model_output, clean, scheduler)
    num_steps = len(scheduler.timesteps)

    if loss_type in ("kl", "rescaled_kl"):
        vb = variational_bound_term(model_output, clean, noisy, timesteps, scheduler, clip_sample=False).bits_per_dim
        vb = vb * num_steps if loss_type == "rescaled_kl" else vb
        return GaussianDiffusionLoss(loss=vb, vb=vb)

    prediction = model_output[:, : clean.shape[1]].float()
    alpha, sigma = noise_levels(scheduler, timesteps)
    target = prediction_target(scheduler.config.prediction_type, clean.float(), noise.float(), alpha, sigma)
    mse = (prediction - target).square().mean(dim=(1, 2, 3))
    if scheduler.config.variance_type not in LEARNED_VARIANCES:
        return GaussianDiffusionLoss(loss=mse, mse=mse)
    frozen = torch.cat([prediction.detach(), model_output[:, clean.shape[1] :].float()], dim=1)
    vb = variational_bound_term(frozen, clean, noisy, timesteps, scheduler, clip_sample=False).bits_per_dim
    vb = vb * (num_steps / 1000) if loss_type == "rescaled_mse" else vb
    return GaussianDiffusionLoss(loss=mse + vb, mse=mse, vb=vb)


def _bits(nats: torch.Tensor) -> torch.Tensor:
    """The mean over each sample (N, C, H, W), converted to bits: shape (N,)."""
    return nats.mean(dim=(1, 2, 3)) / math.log(2)
