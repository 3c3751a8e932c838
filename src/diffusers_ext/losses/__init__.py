"""What recipes minimise, as plain functions that return one value per sample."""

from diffusers_ext.losses.adaptive_weight import adaptive_weight, last_layer_gradient
from diffusers_ext.losses.adversarial import (
    ADVERSARIAL_LOSSES,
    discriminator_loss,
    fake_loss,
    generator_loss,
    real_loss,
)
from diffusers_ext.losses.diffaugment import diff_augment
from diffusers_ext.losses.diffusion import (
    LOSS_WEIGHTINGS,
    PREDICTION_TYPES,
    diffusion_loss,
    loss_weights,
    noise_levels,
    prediction_target,
)
from diffusers_ext.losses.discriminator_regularizers import clip_weights, gradient_penalty, r1_penalty, r2_penalty
from diffusers_ext.losses.elbo import (
    RECONSTRUCTION_LOSSES,
    TOTAL_CORRELATION_ESTIMATORS,
    KLDecomposition,
    codebook_loss,
    commitment_loss,
    decompose_kl,
    latent_discriminator_loss,
    reconstruction_error,
    shuffle_dimensions,
    standard_normal_kl,
    weighted_kl,
    weighted_kl_parts,
)
from diffusers_ext.losses.mode_seeking import mode_seeking_loss
from diffusers_ext.losses.mutual_information import mutual_information_loss
from diffusers_ext.losses.translation import cycle_loss, identity_loss, l1_loss
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
    "ADVERSARIAL_LOSSES",
    "LEARNED_VARIANCES",
    "LOSS_TYPES",
    "LOSS_WEIGHTINGS",
    "PREDICTION_TYPES",
    "RECONSTRUCTION_LOSSES",
    "TOTAL_CORRELATION_ESTIMATORS",
    "GaussianDiffusionLoss",
    "KLDecomposition",
    "VariationalBoundTerm",
    "adaptive_weight",
    "clip_weights",
    "codebook_loss",
    "commitment_loss",
    "cycle_loss",
    "decompose_kl",
    "diff_augment",
    "diffusion_loss",
    "discretized_gaussian_log_likelihood",
    "discriminator_loss",
    "fake_loss",
    "gaussian_diffusion_loss",
    "generator_loss",
    "gradient_penalty",
    "identity_loss",
    "l1_loss",
    "last_layer_gradient",
    "latent_discriminator_loss",
    "loss_weights",
    "mode_seeking_loss",
    "mutual_information_loss",
    "noise_levels",
    "normal_kl",
    "prediction_target",
    "prior_bits_per_dim",
    "r1_penalty",
    "r2_penalty",
    "real_loss",
    "reconstruction_error",
    "shuffle_dimensions",
    "standard_normal_kl",
    "variational_bound_term",
    "weighted_kl",
    "weighted_kl_parts",
]
