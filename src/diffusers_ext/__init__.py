"""Deep generative imaging that Diffusers leaves out: pipelines, models, trainers and measures with its own habits.

Importing the package costs nothing: each public name is imported from its room when it is first used (PEP 562).
"""

import importlib
from typing import TYPE_CHECKING


__version__ = "0.1.0"

_PUBLIC_NAMES = {
    "converters": [
        "convert_checkpoint",
        "convert_dcgan",
        "convert_disentangling_vae",
        "convert_guided_diffusion",
        "convert_guided_diffusion_classifier",
        "convert_improved_diffusion",
        "convert_latent_diffusion",
        "convert_mlp_gan",
        "convert_mnist_lenet",
        "convert_mnist_mlp_vae",
        "convert_palette",
        "convert_patch_discriminator",
        "convert_pythae",
        "convert_pytorch_vae",
        "convert_resnet_generator",
        "convert_sr3",
        "convert_translation_network",
        "convert_unet_generator",
        "convert_vqgan",
    ],
    "data": [
        "CONDITIONS",
        "CORRUPTIONS",
        "Corruption",
        "ImageDataset",
        "UnreadableImagesError",
        "decode_image",
        "derive_seed",
        "describe_conditions",
        "describe_corruptions",
        "load_condition",
        "load_corruptions",
        "load_image_dataset",
    ],
    "guiders": ["ClassifierGuidance"],
    "hub": ["PublishableMixin", "publish_folder", "write_model_card"],
    "losses": [
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
        "class_coverage",
        "compute_metrics",
        "edge_f1",
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
    "models": [
        "ADMUNet2DModel",
        "AutoencoderBurgess",
        "AutoencoderConv",
        "AutoencoderMLP",
        "DCGANDiscriminator",
        "DCGANGenerator",
        "LatentDiscriminator",
        "LeNet",
        "MLPDiscriminator",
        "MLPGenerator",
        "MultiScalePatchDiscriminator",
        "NoisyClassifier",
        "PatchDiscriminator",
        "ResnetGenerator",
        "UNetGenerator",
        "VQVAE2Model",
        "VQVAEModel",
    ],
    "pipelines": [
        "AutoencoderPipeline",
        "CascadePipeline",
        "ClassConditionalPipeline",
        "GANPipeline",
        "ImageTranslationPipeline",
        "PalettePipeline",
    ],
    "schedulers": [
        "EDMHeunScheduler",
        "ExactDDIMInverseScheduler",
        "ExactDDIMScheduler",
        "ExactDDPMScheduler",
        "space_timesteps",
    ],
    "training.base_models": ["load_base_model"],
    "training.configuration": ["TrainingConfig"],
    "training.draws": ["Draw"],
    "training.ema": ["EMA"],
    "training.importance_sampling": ["LossSecondMoment"],
    "training.posthoc_ema": ["PowerEMA", "Snapshots"],
    "training.recipe": ["Recipe"],
    "training.reconstruct_ema": ["reconstruct_ema"],
    "training.text_to_image": ["TextToImageConfig", "TextToImageRecipe"],
    "training.train_autoencoder": ["AutoencoderConfig", "AutoencoderRecipe"],
    "training.train_classifier": ["ClassifierConfig", "ClassifierRecipe"],
    "training.train_controlnet": ["ControlNetConfig", "ControlNetRecipe"],
    "training.train_diffusion": ["DiffusionConfig", "DiffusionRecipe"],
    "training.train_dreambooth": ["DreamBoothConfig", "DreamBoothRecipe"],
    "training.train_gan": ["GANConfig", "GANRecipe"],
    "training.train_palette": ["PaletteConfig", "PaletteRecipe"],
    "training.train_text_to_image": ["FineTuningConfig", "FineTuningRecipe"],
    "training.train_textual_inversion": ["TextualInversionConfig", "TextualInversionRecipe"],
    "training.train_translation": ["TranslationConfig", "TranslationRecipe"],
    "training.trainer": ["NonFiniteLossError", "Trainer"],
}
_MODULE_OF = {name: module for module, names in _PUBLIC_NAMES.items() for name in names}
_ROOMS = ["converters", "data", "guiders", "hub", "losses", "metrics", "models", "pipelines", "schedulers", "training"]

__all__ = sorted(_MODULE_OF)

# For type checkers and editors, which run none of the below: the same names once more.
if TYPE_CHECKING:
    from diffusers_ext.converters import (
        convert_checkpoint as convert_checkpoint,
        convert_dcgan as convert_dcgan,
        convert_disentangling_vae as convert_disentangling_vae,
        convert_guided_diffusion as convert_guided_diffusion,
        convert_guided_diffusion_classifier as convert_guided_diffusion_classifier,
        convert_improved_diffusion as convert_improved_diffusion,
        convert_latent_diffusion as convert_latent_diffusion,
        convert_mlp_gan as convert_mlp_gan,
        convert_mnist_lenet as convert_mnist_lenet,
        convert_mnist_mlp_vae as convert_mnist_mlp_vae,
        convert_palette as convert_palette,
        convert_patch_discriminator as convert_patch_discriminator,
        convert_pythae as convert_pythae,
        convert_pytorch_vae as convert_pytorch_vae,
        convert_resnet_generator as convert_resnet_generator,
        convert_sr3 as convert_sr3,
        convert_translation_network as convert_translation_network,
        convert_unet_generator as convert_unet_generator,
        convert_vqgan as convert_vqgan,
    )
    from diffusers_ext.data import (
        CONDITIONS as CONDITIONS,
        CORRUPTIONS as CORRUPTIONS,
        Corruption as Corruption,
        ImageDataset as ImageDataset,
        UnreadableImagesError as UnreadableImagesError,
        decode_image as decode_image,
        derive_seed as derive_seed,
        describe_conditions as describe_conditions,
        describe_corruptions as describe_corruptions,
        load_condition as load_condition,
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
        ADVERSARIAL_LOSSES as ADVERSARIAL_LOSSES,
        LEARNED_VARIANCES as LEARNED_VARIANCES,
        LOSS_TYPES as LOSS_TYPES,
        LOSS_WEIGHTINGS as LOSS_WEIGHTINGS,
        PREDICTION_TYPES as PREDICTION_TYPES,
        RECONSTRUCTION_LOSSES as RECONSTRUCTION_LOSSES,
        TOTAL_CORRELATION_ESTIMATORS as TOTAL_CORRELATION_ESTIMATORS,
        GaussianDiffusionLoss as GaussianDiffusionLoss,
        KLDecomposition as KLDecomposition,
        VariationalBoundTerm as VariationalBoundTerm,
        adaptive_weight as adaptive_weight,
        clip_weights as clip_weights,
        codebook_loss as codebook_loss,
        commitment_loss as commitment_loss,
        cycle_loss as cycle_loss,
        decompose_kl as decompose_kl,
        diff_augment as diff_augment,
        diffusion_loss as diffusion_loss,
        discretized_gaussian_log_likelihood as discretized_gaussian_log_likelihood,
        discriminator_loss as discriminator_loss,
        fake_loss as fake_loss,
        gaussian_diffusion_loss as gaussian_diffusion_loss,
        generator_loss as generator_loss,
        gradient_penalty as gradient_penalty,
        identity_loss as identity_loss,
        l1_loss as l1_loss,
        last_layer_gradient as last_layer_gradient,
        latent_discriminator_loss as latent_discriminator_loss,
        loss_weights as loss_weights,
        mode_seeking_loss as mode_seeking_loss,
        mutual_information_loss as mutual_information_loss,
        noise_levels as noise_levels,
        normal_kl as normal_kl,
        prediction_target as prediction_target,
        prior_bits_per_dim as prior_bits_per_dim,
        r1_penalty as r1_penalty,
        r2_penalty as r2_penalty,
        real_loss as real_loss,
        reconstruction_error as reconstruction_error,
        shuffle_dimensions as shuffle_dimensions,
        standard_normal_kl as standard_normal_kl,
        variational_bound_term as variational_bound_term,
        weighted_kl as weighted_kl,
        weighted_kl_parts as weighted_kl_parts,
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
        class_coverage as class_coverage,
        compute_metrics as compute_metrics,
        edge_f1 as edge_f1,
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
        AutoencoderBurgess as AutoencoderBurgess,
        AutoencoderConv as AutoencoderConv,
        AutoencoderMLP as AutoencoderMLP,
        DCGANDiscriminator as DCGANDiscriminator,
        DCGANGenerator as DCGANGenerator,
        LatentDiscriminator as LatentDiscriminator,
        LeNet as LeNet,
        MLPDiscriminator as MLPDiscriminator,
        MLPGenerator as MLPGenerator,
        MultiScalePatchDiscriminator as MultiScalePatchDiscriminator,
        NoisyClassifier as NoisyClassifier,
        PatchDiscriminator as PatchDiscriminator,
        ResnetGenerator as ResnetGenerator,
        UNetGenerator as UNetGenerator,
        VQVAE2Model as VQVAE2Model,
        VQVAEModel as VQVAEModel,
    )
    from diffusers_ext.pipelines import (
        AutoencoderPipeline as AutoencoderPipeline,
        CascadePipeline as CascadePipeline,
        ClassConditionalPipeline as ClassConditionalPipeline,
        GANPipeline as GANPipeline,
        ImageTranslationPipeline as ImageTranslationPipeline,
        PalettePipeline as PalettePipeline,
    )
    from diffusers_ext.schedulers import (
        EDMHeunScheduler as EDMHeunScheduler,
        ExactDDIMInverseScheduler as ExactDDIMInverseScheduler,
        ExactDDIMScheduler as ExactDDIMScheduler,
        ExactDDPMScheduler as ExactDDPMScheduler,
        space_timesteps as space_timesteps,
    )
    from diffusers_ext.training.diffusion.timestep_sampling import (
        LossSecondMoment as LossSecondMoment,
    )
    from diffusers_ext.training.loop.configuration import (
        TrainingConfig as TrainingConfig,
    )
    from diffusers_ext.training.loop.draws import (
        Draw as Draw,
    )
    from diffusers_ext.training.loop.ema import (
        EMA as EMA,
    )
    from diffusers_ext.training.loop.posthoc_ema import (
        PowerEMA as PowerEMA,
        Snapshots as Snapshots,
    )
    from diffusers_ext.training.loop.recipe import (
        Recipe as Recipe,
    )
    from diffusers_ext.training.loop.trainer import (
        NonFiniteLossError as NonFiniteLossError,
        Trainer as Trainer,
    )
    from diffusers_ext.training.reconstruct_ema import (
        reconstruct_ema as reconstruct_ema,
    )
    from diffusers_ext.training.text_to_image.base_models import (
        load_base_model as load_base_model,
    )
    from diffusers_ext.training.text_to_image.recipe import (
        TextToImageConfig as TextToImageConfig,
        TextToImageRecipe as TextToImageRecipe,
    )
    from diffusers_ext.training.train_autoencoder import (
        AutoencoderConfig as AutoencoderConfig,
        AutoencoderRecipe as AutoencoderRecipe,
    )
    from diffusers_ext.training.train_classifier import (
        ClassifierConfig as ClassifierConfig,
        ClassifierRecipe as ClassifierRecipe,
    )
    from diffusers_ext.training.train_controlnet import (
        ControlNetConfig as ControlNetConfig,
        ControlNetRecipe as ControlNetRecipe,
    )
    from diffusers_ext.training.train_diffusion import (
        DiffusionConfig as DiffusionConfig,
        DiffusionRecipe as DiffusionRecipe,
    )
    from diffusers_ext.training.train_dreambooth import (
        DreamBoothConfig as DreamBoothConfig,
        DreamBoothRecipe as DreamBoothRecipe,
    )
    from diffusers_ext.training.train_gan import (
        GANConfig as GANConfig,
        GANRecipe as GANRecipe,
    )
    from diffusers_ext.training.train_palette import (
        PaletteConfig as PaletteConfig,
        PaletteRecipe as PaletteRecipe,
    )
    from diffusers_ext.training.train_text_to_image import (
        FineTuningConfig as FineTuningConfig,
        FineTuningRecipe as FineTuningRecipe,
    )
    from diffusers_ext.training.train_textual_inversion import (
        TextualInversionConfig as TextualInversionConfig,
        TextualInversionRecipe as TextualInversionRecipe,
    )
    from diffusers_ext.training.train_translation import (
        TranslationConfig as TranslationConfig,
        TranslationRecipe as TranslationRecipe,
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
