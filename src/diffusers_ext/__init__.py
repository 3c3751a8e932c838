"""Deep generative imaging that Diffusers leaves out: pipelines, models, trainers and measures with its own habits.

Importing the package costs nothing: each public name is imported from its room when it is first used (PEP 562).
"""

import importlib
from typing import TYPE_CHECKING


__version__ = "0.1.0"

_PUBLIC_NAMES = {
    "data": ["ImageDataset", "UnreadableImagesError", "decode_image", "derive_seed", "load_image_dataset"],
    "hub": ["PublishableMixin", "publish_folder", "write_model_card"],
    "losses": [
        "LOSS_WEIGHTINGS",
        "PREDICTION_TYPES",
        "diffusion_loss",
        "loss_weights",
        "noise_levels",
        "prediction_target",
    ],
    "metrics": [
        "METRICS",
        "FeatureExtractor",
        "FeatureOutput",
        "FeatureStatistics",
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
        "polynomial_kernel",
        "prdc",
        "precision_recall",
        "rbf_kernel",
    ],
    "pipelines": ["ClassConditionalPipeline"],
    "training.configuration": ["TrainingConfig"],
    "training.draws": ["Draw"],
    "training.ema": ["EMA"],
    "training.recipe": ["Recipe"],
    "training.train_diffusion": ["DiffusionConfig", "DiffusionRecipe"],
    "training.trainer": ["NonFiniteLossError", "Trainer"],
}
_MODULE_OF = {name: module for module, names in _PUBLIC_NAMES.items() for name in names}
_ROOMS = ["converters", "data", "guiders", "hub", "losses", "metrics", "models", "pipelines", "schedulers", "training"]

__all__ = sorted(_MODULE_OF)

# For type checkers and editors, which run none of the below: the same names once more.
if TYPE_CHECKING:
    from diffusers_ext.data import (
        ImageDataset as ImageDataset,
        UnreadableImagesError as UnreadableImagesError,
        decode_image as decode_image,
        derive_seed as derive_seed,
        load_image_dataset as load_image_dataset,
    )
    from diffusers_ext.hub import (
        PublishableMixin as PublishableMixin,
        publish_folder as publish_folder,
        write_model_card as write_model_card,
    )
    from diffusers_ext.losses import (
        LOSS_WEIGHTINGS as LOSS_WEIGHTINGS,
        PREDICTION_TYPES as PREDICTION_TYPES,
        diffusion_loss as diffusion_loss,
        loss_weights as loss_weights,
        noise_levels as noise_levels,
        prediction_target as prediction_target,
    )
    from diffusers_ext.metrics import (
        METRICS as METRICS,
        FeatureExtractor as FeatureExtractor,
        FeatureOutput as FeatureOutput,
        FeatureStatistics as FeatureStatistics,
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
        polynomial_kernel as polynomial_kernel,
        prdc as prdc,
        precision_recall as precision_recall,
        rbf_kernel as rbf_kernel,
    )
    from diffusers_ext.pipelines import ClassConditionalPipeline as ClassConditionalPipeline
    from diffusers_ext.training.configuration import TrainingConfig as TrainingConfig
    from diffusers_ext.training.draws import Draw as Draw
    from diffusers_ext.training.ema import EMA as EMA
    from diffusers_ext.training.recipe import Recipe as Recipe
    from diffusers_ext.training.train_diffusion import (
        DiffusionConfig as DiffusionConfig,
        DiffusionRecipe as DiffusionRecipe,
    )
    from diffusers_ext.training.trainer import NonFiniteLossError as NonFiniteLossError, Trainer as Trainer


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
