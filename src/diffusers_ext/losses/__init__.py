"""Losses: plain functions that return one value per sample, with their weights, regularizers and augmentations."""

from diffusers_ext.losses.adaptive_weight import (
    adaptive_weight as adaptive_weight,
    last_layer_gradient as last_layer_gradient,
)
from diffusers_ext.losses.adversarial import (
    ADVERSARIAL_LOSSES as ADVERSARIAL_LOSSES,
    discriminator_loss as discriminator_loss,
    fake_loss as fake_loss,
    generator_loss as generator_loss,
    real_loss as real_loss,
)
from diffusers_ext.losses.consistency import pseudo_huber_loss as pseudo_huber_loss
from diffusers_ext.losses.contrastive import (
    contrastive_loss as contrastive_loss,
    sigmoid_contrastive_loss as sigmoid_contrastive_loss,
)
from diffusers_ext.losses.diffaugment import diff_augment as diff_augment
from diffusers_ext.losses.diffusion import (
    LOSS_WEIGHTINGS as LOSS_WEIGHTINGS,
    PREDICTION_TYPES as PREDICTION_TYPES,
    diffusion_loss as diffusion_loss,
    loss_weights as loss_weights,
    noise_levels as noise_levels,
    pred_original_sample as pred_original_sample,
    prediction_target as prediction_target,
)
from diffusers_ext.losses.discrete_vae import (
    logit_laplace_log_prob as logit_laplace_log_prob,
    uniform_kl as uniform_kl,
)
from diffusers_ext.losses.discriminator_regularizers import (
    clip_weights as clip_weights,
    gradient_penalty as gradient_penalty,
    orthogonal_penalty as orthogonal_penalty,
    pixel_gradient_penalty as pixel_gradient_penalty,
    r1_penalty as r1_penalty,
    r2_penalty as r2_penalty,
)
from diffusers_ext.losses.elbo import (
    RECONSTRUCTION_LOSSES as RECONSTRUCTION_LOSSES,
    TOTAL_CORRELATION_ESTIMATORS as TOTAL_CORRELATION_ESTIMATORS,
    KLDecomposition as KLDecomposition,
    codebook_loss as codebook_loss,
    commitment_loss as commitment_loss,
    decompose_kl as decompose_kl,
    latent_discriminator_loss as latent_discriminator_loss,
    reconstruction_error as reconstruction_error,
    shuffle_dimensions as shuffle_dimensions,
    standard_normal_kl as standard_normal_kl,
    weighted_kl as weighted_kl,
    weighted_kl_parts as weighted_kl_parts,
)
from diffusers_ext.losses.energies import (
    contrastive_divergence_loss as contrastive_divergence_loss,
    denoising_score_matching_loss as denoising_score_matching_loss,
)
from diffusers_ext.losses.feature_matching import feature_matching_loss as feature_matching_loss
from diffusers_ext.losses.mode_seeking import mode_seeking_loss as mode_seeking_loss
from diffusers_ext.losses.mutual_information import mutual_information_loss as mutual_information_loss
from diffusers_ext.losses.noise_matching import noise_mean_loss as noise_mean_loss
from diffusers_ext.losses.path_lengths import path_lengths as path_lengths
from diffusers_ext.losses.pulling_away import pulling_away_loss as pulling_away_loss
from diffusers_ext.losses.relativistic import relative_logits as relative_logits
from diffusers_ext.losses.restoration import charbonnier_loss as charbonnier_loss, l2_loss as l2_loss
from diffusers_ext.losses.sketches import (
    pen_state_loss as pen_state_loss,
    stroke_offset_loss as stroke_offset_loss,
)
from diffusers_ext.losses.style import (
    gram_loss as gram_loss,
    gram_matrix as gram_matrix,
    map_loss as map_loss,
    statistics_loss as statistics_loss,
    total_variation as total_variation,
)
from diffusers_ext.losses.translation import (
    cycle_loss as cycle_loss,
    identity_loss as identity_loss,
    l1_loss as l1_loss,
)
from diffusers_ext.losses.variational import (
    LEARNED_VARIANCES as LEARNED_VARIANCES,
    LOSS_TYPES as LOSS_TYPES,
    GaussianDiffusionLoss as GaussianDiffusionLoss,
    VariationalBoundTerm as VariationalBoundTerm,
    discretized_gaussian_log_likelihood as discretized_gaussian_log_likelihood,
    gaussian_diffusion_loss as gaussian_diffusion_loss,
    normal_kl as normal_kl,
    prior_bits_per_dim as prior_bits_per_dim,
    variational_bound_term as variational_bound_term,
)
