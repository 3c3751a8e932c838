"""The losses of denoisers: noise levels, prediction targets and loss weights of the usual parametrisations.

A noisy sample is `alpha * clean + sigma * noise`. In a variance-preserving process (Ho et al. 2020, eq. 4) `alpha` is
sqrt(alphas_cumprod) and `alpha**2 + sigma**2 = 1`; in a rectified flow (Liu et al. 2022, Lipman et al. 2022) `sigma`
is the time in [0, 1] and `alpha = 1 - sigma`. The signal-to-noise ratio is `alpha**2 / sigma**2` in both.
"""

from typing import Literal, get_args

import torch


PredictionType = Literal["epsilon", "sample", "v_prediction", "flow_prediction"]
LossWeighting = Literal["none", "min_snr", "p2"]
PREDICTION_TYPES = get_args(PredictionType)
LOSS_WEIGHTINGS = get_args(LossWeighting)


def noise_levels(scheduler, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The signal and noise levels of a network's input at some timesteps.

    Args:
        scheduler: a scheduler of diffusers or diffusers_ext, with the config that the network was trained with.
        timesteps (`torch.Tensor` of shape (N,)): the timesteps in the network's input: indices below
            `num_train_timesteps`; for flow matching, any numbers in [0, num_train_timesteps]; for EDM (Karras et al.
            2022), where samples are scaled by `1 / sqrt(sigma**2 + sigma_data**2)`, log(sigma) / 4.

    Returns:
        `alpha`, `sigma`: float32 of shape (N, 1, 1, 1).
    """
    config = scheduler.config
    if "sigma_data" in config:
        noise_to_signal = (4 * timesteps.float()).exp()
        alpha = (noise_to_signal**2 + config.sigma_data**2).rsqrt()
        sigma = alpha * noise_to_signal
    elif config.get("prediction_type", "flow_prediction") == "flow_prediction":
        sigma = timesteps.float() / config.num_train_timesteps
        alpha = 1 - sigma
    else:
        signal_variance = scheduler.alphas_cumprod.to(timesteps.device)[timesteps].float()
        alpha, sigma = signal_variance.sqrt(), (1 - signal_variance).sqrt()
    return alpha[:, None, None, None], sigma[:, None, None, None]


def prediction_target(
    prediction_type: str, clean: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """The target of a network with this prediction type for the input `alpha * clean + sigma * noise`.

    Args:
        prediction_type (`str`): `epsilon` (Ho et al. 2020), `sample`, `v_prediction` (Salimans and Ho 2022, app. D) or
            `flow_prediction` (the velocity of the rectified flow).
        clean, noise (`torch.Tensor` of shape (N, C, H, W)): the image in [-1, 1], and the standard normal noise.
        alpha, sigma (`torch.Tensor` of shape (N, 1, 1, 1)): from [`noise_levels`].

    Raises:
        ValueError: for another prediction type.
    """
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "sample":
        return clean
    if prediction_type == "v_prediction":
        return alpha * noise - sigma * clean
    if prediction_type == "flow_prediction":
        return noise - clean
    raise ValueError(f"prediction_type must be one of {', '.join(PREDICTION_TYPES)}, not {prediction_type}.")


def pred_original_sample(
    prediction_type: str, prediction: torch.Tensor, noisy: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """The clean image that a network's prediction for `noisy` stands for: [`prediction_target`], solved for `clean`.

    Args:
        prediction_type (`str`): see [`prediction_target`]; or `edm`, for the network of Karras et al. (2022, eq. 7).
        prediction, noisy (`torch.Tensor` of shape (N, C, H, W)): the network's output and its input.
        alpha, sigma (`torch.Tensor` of shape (N, 1, 1, 1)): from [`noise_levels`].

    Raises:
        ValueError: for another prediction type.
    """
    if prediction_type == "epsilon":
        return (noisy - sigma * prediction) / alpha
    if prediction_type == "sample":
        return prediction
    if prediction_type == "v_prediction":
        return alpha * noisy - sigma * prediction
    if prediction_type == "flow_prediction":
        return noisy - sigma * prediction
    if prediction_type == "edm":
        # The input is scaled to the variance 1, so that alpha**2 * sigma_data**2 + sigma**2 = 1.
        sigma_data = (1 - sigma**2).sqrt() / alpha
        return sigma_data * (alpha * sigma_data * noisy + sigma * prediction)
    raise ValueError(f"prediction_type must be edm or one of {', '.join(PREDICTION_TYPES)}, not {prediction_type}.")


def loss_weights(
    weighting: str,
    prediction_type: str,
    alpha: torch.Tensor,
    sigma: torch.Tensor,
    *,
    snr_gamma: float = 5.0,
    p2_gamma: float = 1.0,
    p2_k: float = 1.0,
) -> torch.Tensor:
    """The weight of each sample's squared error.

    Both published weightings are defined for one parametrisation: min-SNR is min(SNR, gamma) for the error of the
    clean image (Hang et al. 2023, eq. 7), P2 is 1 / (k + SNR)**gamma for the error of the noise (Choi et al. 2022, eq.
    8). For other parametrisations, the weight is converted so that the objective is the same: the error of the clean
    image is the error of the prediction times sigma/alpha (epsilon) or sigma (v, flow).

    Args:
        weighting (`str`): `none` (1 for each sample), `min_snr` or `p2`.
        prediction_type (`str`): see [`prediction_target`].
        alpha, sigma (`torch.Tensor` of shape (N, 1, 1, 1)): from [`noise_levels`].

    Returns:
        `torch.Tensor` of shape (N, 1, 1, 1): finite at every noise level, including zero terminal SNR.
    """
    if weighting == "none":
        return torch.ones_like(sigma)
    # Written without the quotients SNR and 1 / SNR, which are 0/0 at the two ends of the process.
    signal, noise = alpha.square(), sigma.square().clamp(min=1e-12)
    if weighting == "min_snr":
        if prediction_type == "epsilon":
            return torch.clamp(snr_gamma * noise / signal, max=1.0)
        clean_weight = torch.clamp(signal / noise, max=snr_gamma)
        return clean_weight if prediction_type == "sample" else clean_weight * noise
    if weighting == "p2":
        noise_weight = (noise / (p2_k * noise + signal)) ** p2_gamma
        if prediction_type == "epsilon":
            return noise_weight
        return noise_weight * signal / noise if prediction_type == "sample" else noise_weight * signal
    raise ValueError(f"loss_weighting must be one of {', '.join(LOSS_WEIGHTINGS)}, not {weighting}.")


def diffusion_loss(prediction: torch.Tensor, target: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The weighted mean squared error of each sample, in float32 and of shape (N,)."""
    errors = (prediction.float() - target.float()).square()
    return (weights * errors).mean(dim=(1, 2, 3))
