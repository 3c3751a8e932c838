"""What recipes minimise, as plain functions that return one value per sample."""

from diffusers_ext.losses.diffusion import (
    LOSS_WEIGHTINGS,
    PREDICTION_TYPES,
    diffusion_loss,
    loss_weights,
    noise_levels,
    prediction_target,
)
from diffusers_ext.losses.variational import (
    LEARNED_VARIANCES,
    LOSS_TYPES,
    GaussianDiffusionLoss,
    VariationalBoundTerm,
    discretized_gaussian_log_likelihood,
    gaussian_diffusion_loss,
    normal_kl,
    prior_bits_per_dim,
    variational_bound_term,
)


__all__ = [
    "LEARNED_VARIANCES",
    "LOSS_TYPES",
    "LOSS_WEIGHTINGS",
    "PREDICTION_TYPES",
    "GaussianDiffusionLoss",
    "VariationalBoundTerm",
    "diffusion_loss",
    "discretized_gaussian_log_likelihood",
    "gaussian_diffusion_loss",
    "loss_weights",
    "noise_levels",
    "normal_kl",
    "prediction_target",
    "prior_bits_per_dim",
    "variational_bound_term",
]
