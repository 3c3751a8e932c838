"""https://github.com/lucidrains/imagen-pytorch: the U-Nets of an Imagen."""

import re
from functools import partial

from diffusers_ext.converters.checkpoint_files import read_state_dict
from diffusers_ext.converters.family import Conversion, Family, Saveable, assumptions
from diffusers_ext.converters.lucidrains_imagen.presets import PRESETS
from diffusers_ext.converters.lucidrains_imagen.unet import (
    IMAGEN_UNET_ARGUMENTS,
    PREDICTION_TYPES,
    convert_imagen_unet,
    imagen_scheduler,
)
from diffusers_ext.converters.lucidrains_imagen.video import IMAGEN_VIDEO_ARGUMENTS, convert_imagen_video_unet
from diffusers_ext.converters.original_arguments import one_of, positive_integer, probability
from diffusers_ext.converters.state_dicts import StateDict, has, part


# Of the original's `Imagen`; its default schedule is "cosine", and "linear" from the third network on.
PROCESS_DEFAULTS = {"timesteps": 1000, "pred_objective": "noise", "dynamic_thresholding_percentile": 0.95}
PROCESS_ARGUMENTS = {
    "noise_schedule": one_of("cosine", "linear"),
    "timesteps": positive_integer,
    "pred_objective": one_of(*PREDICTION_TYPES),
    "dynamic_thresholding_percentile": probability,
}
PLACEHOLDER = {"dummy_parameter"}  # the tensors of a network that was not trained


def _cascade(state_dict: StateDict, options: dict) -> Conversion:
    stages, chosen = _stages(state_dict), options.pop("unet_number", None)
    if chosen is not None:
        if chosen not in stages:
            raise ValueError(f"`unet_number` must be one of {', '.join(map(str, stages))}, but is {chosen}.")
        stages = {chosen: stages[chosen]}
    given = {name: options.pop(name) for name in PROCESS_ARGUMENTS if name in options}
    components: dict[str, Saveable] = {}
    assumed: dict[str, None] = {}  # in order, each once
    for number, tensors in stages.items():
        usual = {"noise_schedule": "cosine" if number < 3 else "linear", **PROCESS_DEFAULTS}
        assumed |= dict.fromkeys(assumptions(given, usual))
        process = {**usual, **given}
        folder = "" if len(stages) == 1 else f"stage_{number}/"
        convert = convert_imagen_video_unet if has(tensors, "init_temporal_peg") else convert_imagen_unet
        unet = convert(tensors, process["noise_schedule"], process["timesteps"], **options)
        components |= {f"{folder}unet": unet, f"{folder}scheduler": imagen_scheduler(**process)}
    return Conversion(components, assumed)


def _stages(state_dict: StateDict) -> dict[int, StateDict]:
    """The trained networks by their number: those of an `Imagen`, the averages of its trainer, or one alone."""
    for pattern in (r"unets\.(\d+)\.", r"(\d+)\.ema_model\."):
        found = {int(match[1]): match[0] for match in map(re.compile(pattern).match, state_dict) if match}
        if found:
            stages = {index + 1: part(state_dict, prefix) for index, prefix in sorted(found.items())}
            return {number: tensors for number, tensors in stages.items() if set(tensors) != PLACEHOLDER}
    return {1: state_dict}


FAMILIES = (
    Family(
        name="imagen",
        description="An Imagen of imagen-pytorch, its trainer's file or one of its Unets becomes the folders unet and "
        "scheduler, in stage_1 and so on if there are several, of which TextToImagePixelPipelines are made with the "
        "text encoder.",
        example="imagen.pt imagen-base --preset BaseUnet64 --option unet_number=1",
        convert=_cascade,
        options={
            **IMAGEN_VIDEO_ARGUMENTS,
            **IMAGEN_UNET_ARGUMENTS,
            **PROCESS_ARGUMENTS,
            "unet_number": positive_integer,
        },
        functions=(convert_imagen_unet, convert_imagen_video_unet),
        presets=PRESETS,
        read=partial(read_state_dict, nested=("ema", "model", "state_dict")),
    ),
)
