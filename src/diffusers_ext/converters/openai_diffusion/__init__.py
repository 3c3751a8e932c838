"""https://github.com/openai/guided-diffusion and its predecessor https://github.com/openai/improved-diffusion."""

from diffusers_ext.converters.family import Conversion, Family, assumptions
from diffusers_ext.converters.openai_diffusion.noisy_classifier import (
    CLASSIFIER_ARGUMENTS,
    convert_guided_diffusion_classifier,
)
from diffusers_ext.converters.openai_diffusion.pixel_diffusion import PROCESS, pixel_diffusion
from diffusers_ext.converters.openai_diffusion.pixel_unets import (
    GUIDED_DIFFUSION,
    IMPROVED_DIFFUSION,
    convert_guided_diffusion,
    convert_improved_diffusion,
)
from diffusers_ext.converters.openai_diffusion.presets import CLASSIFIERS, GUIDED_UNETS, IMPROVED_UNETS
from diffusers_ext.converters.original_arguments import anything, require
from diffusers_ext.converters.state_dicts import StateDict


# What no tensor shows and hardly any network has: the originals' defaults.
ATTENTION_ORDER = {"use_new_attention_order": False}
PROCESS_DEFAULTS = {"sigma_small": False, "predict_xstart": False}


def _guided_diffusion(state_dict: StateDict, options: dict) -> Conversion:
    assumed = assumptions(options, ATTENTION_ORDER | PROCESS_DEFAULTS)
    return Conversion(pixel_diffusion(convert_guided_diffusion, state_dict, options), assumed)


def _improved_diffusion(state_dict: StateDict, options: dict) -> Conversion:
    assumed = assumptions(options, PROCESS_DEFAULTS)
    return Conversion(pixel_diffusion(convert_improved_diffusion, state_dict, options), assumed)


def _classifier(state_dict: StateDict, options: dict) -> Conversion:
    classifier = convert_guided_diffusion_classifier(state_dict, **options)
    require(options, "image_size")
    return Conversion({"": classifier}, assumptions(options, ATTENTION_ORDER))


FAMILIES = (
    Family(
        name="guided_diffusion",
        description="A U-Net of openai/guided-diffusion becomes a ClassConditionalPipeline, or for super-resolution "
        "the folders unet and scheduler.",
        example="256x256_diffusion.pt adm-256 --preset 256x256_diffusion",
        convert=_guided_diffusion,
        options={**GUIDED_DIFFUSION, **PROCESS, "id2label": anything},
        functions=(convert_guided_diffusion,),
        presets=GUIDED_UNETS,
    ),
    Family(
        name="guided_diffusion_classifier",
        description="A noisy classifier of openai/guided-diffusion becomes a NoisyClassifier.",
        example="256x256_classifier.pt classifier-256 --preset 256x256_classifier",
        convert=_classifier,
        options=CLASSIFIER_ARGUMENTS,
        functions=(convert_guided_diffusion_classifier,),
        presets=CLASSIFIERS,
    ),
    Family(
        name="improved_diffusion",
        description="A U-Net of openai/improved-diffusion becomes a ClassConditionalPipeline, or for super-resolution "
        "the folders unet and scheduler.",
        example="ema_0.9999_200000.pt my-model --option image_size=64 num_heads=4 diffusion_steps=4000 "
        "noise_schedule=cosine rescale_timesteps=true",
        convert=_improved_diffusion,
        options={**IMPROVED_DIFFUSION, **PROCESS, "id2label": anything},
        functions=(convert_improved_diffusion,),
        presets=IMPROVED_UNETS,
    ),
)
