"""What recipes minimise, as plain functions that return one value per sample."""

from diffusers_ext.losses.diffusion import (
    LOSS_WEIGHTINGS,
    PREDICTION_TYPES,
    diffusion_loss,
    loss_weights,
    noise_levels,
    prediction_target,
)


__all__ = [
    "LOSS_WEIGHTINGS",
    "PREDICTION_TYPES",
    "diffusion_loss",
    "loss_weights",
    "noise_levels",
    "prediction_target",
]
