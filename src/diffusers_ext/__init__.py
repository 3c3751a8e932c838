"""Deep generative imaging that Diffusers leaves out: pipelines, models, trainers and measures with its own habits.

Importing the package costs nothing: each public name is imported from its room when it is first used (PEP 562).
"""

import importlib
from typing import TYPE_CHECKING


__version__ = "0.1.0"

_PUBLIC_NAMES = {
    "converters": [
        "convert_checkpoint",
        "convert_guided_diffusion",
        "convert_guided_diffusion_classifier",
        "convert_improved_diffusion",
        "convert_latent_diffusion",
        "convert_palette",
        "convert_sr3",
    ],
    "data": [
        "CORRUPTIONS",
        "Corruption",
        "ImageDataset",
        "UnreadableImagesError",
        "decode_image",
        "derive_seed",
        "describe_corruptions",
        "load_corruptions",
        "load_image_dataset",
    ],
    "guiders": ["ClassifierGuidance"],
    "hub": ["PublishableMixin", "publish_folder", "write_model_card"],
    "losses": [
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
    ],
    "metrics": [
        "LPIPS",
        "METRICS",
        "RESTORATION_METRICS",
        "DeepFeatureDistance",
        "FeatureExtractor",
        "FeatureOutput",
        "FeatureStatistics",
        "ImageDistance",
        "NetworkExtractor",
        "class_accuracy",
        "compute_metrics",
        "extract_features",
        "fid",
        "frechet_distance",
        "inception_score",
        "kid",
        "load_feature_extractor",
        "match_class_ids",
        "pairwise_diversity",
        "perceptual_distance",
        "polynomial_kernel",
        "prdc",
        "precision_recall",
        "psnr",
        "rbf_kernel",
        "restoration_metrics",
        "ssim",
    ],
    "metrics.likelihood": [
        "LIKELIHOODS",
        "ODELikelihood",
        "VariationalBound",
        "discrete_process",
        "likelihood_rows",
        "ode_bits_per_dim",
        "vlb_bits_per_dim",
    ],
    "models": ["ADMUNet2DModel", "NoisyClassifier"],
    "pipelines": ["ClassConditionalPipeline", "PalettePipeline"],
    "schedulers": [
        "EDMHeunScheduler",
        "ExactDDIMInverseScheduler",
        "ExactDDIMScheduler",
        "ExactDDPMScheduler",
        "space_timesteps",
    ],
    "training.configuration": ["TrainingConfig"],
    "training.draws": ["Draw"],
    "training.ema": ["EMA"],
    "training.importance_sampling": ["LossSecondMoment"],
    "training.posthoc_ema": ["PowerEMA", "Snapshots"],
    "training.recipe": ["Recipe"],
    "training.reconstruct_ema": ["reconstruct_ema"],
    "training.train_classifier": ["ClassifierConfig", "ClassifierRecipe"],
    "training.train_diffusion": ["DiffusionConfig", "DiffusionRecipe"],
    "training.train_palette": ["PaletteConfig", "PaletteRecipe"],
    "training.trainer": ["NonFiniteLossError", "Trainer"],
}
_MODULE_OF = {name: module for module, names in _PUBLIC_NAMES.items() for name in names}
_ROOMS = ["converters", "data", "guiders", "hub", "losses", "metrics", "models", "pipelines", "schedulers", "training"]

__all__ = sorted(_MODULE_OF)

# For type checkers and editors, which run none of the below: the same names once more.
if TYPE_CHECKING:
    from diffusers_ext.converters import (
        convert_checkpoint as convert_checkpoint,
        convert_guided_diffusion as convert_guided_diffusion,
        convert_guided_diffusion_classifier as convert_guided_diffusion_classifier,
        convert_improved_diffusion as convert_improved_diffusion,
        convert_latent_diffusion as convert_latent_diffusion,
        convert_palette as convert_palette,
        convert_sr3 as convert_sr3,
    )
    from diffusers_ext.data import (
        CORRUPTIONS as CORRUPTIONS,
        Corruption as Corruption,
        ImageDataset as ImageDataset,
        UnreadableImagesError as UnreadableImagesError,
        decode_image as decode_image,
        derive_seed as derive_seed,
        describe_corruptions as describe_corruptions,
        load_corruptions as load_corruptions,
        load_image_dataset as load_image_dataset,
    )
    from diffusers_ext.guiders import (
        ClassifierGuidance as ClassifierGuidance,
    )
    from diffusers_ext.hub import (
        PublishableMixin as PublishableMixin,
        publish_folder as publish_folder,
        write_model_card as write_model_card,
    )
    from diffusers_ext.losses import (
        LEARNED_VARIANCES as LEARNED_VARIANCES,
        LOSS_TYPES as LOSS_TYPES,
        LOSS_WEIGHTINGS as LOSS_WEIGHTINGS,
        PREDICTION_TYPES as PREDICTION_TYPES,
        GaussianDiffusionLoss as GaussianDiffusionLoss,
        VariationalBoundTerm as VariationalBoundTerm,
        diffusion_loss as diffusion_loss,
        discretized_gaussian_log_likelihood as discretized_gaussian_log_likelihood,
        gaussian_diffusion_loss as gaussian_diffusion_loss,
        loss_weights as loss_weights,
        noise_levels as noise_levels,
        normal_kl as normal_kl,
        prediction_target as prediction_target,
        prior_bits_per_dim as prior_bits_per_dim,
        variational_bound_term as variational_bound_term,
    )
    from diffusers_ext.metrics import (
        LPIPS as LPIPS,
        METRICS as METRICS,
        RESTORATION_METRICS as RESTORATION_METRICS,
        DeepFeatureDistance as DeepFeatureDistance,
        FeatureExtractor as FeatureExtractor,
        FeatureOutput as FeatureOutput,
        FeatureStatistics as FeatureStatistics,
        ImageDistance as ImageDistance,
        NetworkExtractor as NetworkExtractor,
        class_accuracy as class_accuracy,
        compute_metrics as compute_metrics,
        extract_features as extract_features,
        fid as fid,
        frechet_distance as frechet_distance,
        inception_score as inception_score,
        kid as kid,
        load_feature_extractor as load_feature_extractor,
        match_class_ids as match_class_ids,
        pairwise_diversity as pairwise_diversity,
        perceptual_distance as perceptual_distance,
        polynomial_kernel as polynomial_kernel,
        prdc as prdc,
        precision_recall as precision_recall,
        psnr as psnr,
        rbf_kernel as rbf_kernel,
        restoration_metrics as restoration_metrics,
        ssim as ssim,
    )
    from diffusers_ext.metrics.likelihood import (
        LIKELIHOODS as LIKELIHOODS,
        ODELikelihood as ODELikelihood,
        VariationalBound as VariationalBound,
        discrete_process as discrete_process,
        likelihood_rows as likelihood_rows,
        ode_bits_per_dim as ode_bits_per_dim,
        vlb_bits_per_dim as vlb_bits_per_dim,
    )
    from diffusers_ext.models import (
        ADMUNet2DModel as ADMUNet2DModel,
        NoisyClassifier as NoisyClassifier,
    )
    from diffusers_ext.pipelines import (
        ClassConditionalPipeline as ClassConditionalPipeline,
        PalettePipeline as PalettePipeline,
    )
    from diffusers_ext.schedulers import (
        EDMHeunScheduler as EDMHeunScheduler,
        ExactDDIMInverseScheduler as ExactDDIMInverseScheduler,
        ExactDDIMScheduler as ExactDDIMScheduler,
        ExactDDPMScheduler as ExactDDPMScheduler,
        space_timesteps as space_timesteps,
    )
    from diffusers_ext.training.configuration import (
        TrainingConfig as TrainingConfig,
    )
    from diffusers_ext.training.draws import (
        Draw as Draw,
    )
    from diffusers_ext.training.ema import (
        EMA as EMA,
    )
    from diffusers_ext.training.importance_sampling import (
        LossSecondMoment as LossSecondMoment,
    )
    from diffusers_ext.training.posthoc_ema import (
        PowerEMA as PowerEMA,
        Snapshots as Snapshots,
    )
    from diffusers_ext.training.recipe import (
        Recipe as Recipe,
    )
    from diffusers_ext.training.reconstruct_ema import (
        reconstruct_ema as reconstruct_ema,
    )
    from diffusers_ext.training.train_classifier import (
        ClassifierConfig as ClassifierConfig,
        ClassifierRecipe as ClassifierRecipe,
    )
    from diffusers_ext.training.train_diffusion import (
        DiffusionConfig as DiffusionConfig,
        DiffusionRecipe as DiffusionRecipe,
    )
    from diffusers_ext.training.train_palette import (
        PaletteConfig as PaletteConfig,
        PaletteRecipe as PaletteRecipe,
    )
    from diffusers_ext.training.trainer import (
        NonFiniteLossError as NonFiniteLossError,
        Trainer as Trainer,
    )


def __getattr__(name: str):
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__, *_ROOMS})
