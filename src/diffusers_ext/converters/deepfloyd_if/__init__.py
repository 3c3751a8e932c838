"""https://github.com/deep-floyd/IF."""

from diffusers_ext.converters.deepfloyd_if.presets import STAGE_I
from diffusers_ext.converters.deepfloyd_if.stages import DEEPFLOYD_IF_ARGUMENTS, convert_deepfloyd_if, if_scheduler
from diffusers_ext.converters.family import Conversion, Family, assumptions
from diffusers_ext.converters.state_dicts import StateDict


def _stage(state_dict: StateDict, options: dict) -> Conversion:
    assumed = assumptions(options, {"efficient_activation": False, "scale_skip_connection": False})
    unet = convert_deepfloyd_if(state_dict, **options)
    return Conversion({"unet": unet, "scheduler": if_scheduler(unet)}, assumed)


FAMILIES = (
    Family(
        name="deepfloyd_if",
        description="Stage I or II of DeepFloyd IF becomes the folders unet and scheduler, of which diffusers' "
        "IFPipeline and IFSuperResolutionPipeline are made, and of stage I a TextToImagePixelPipeline, with T5's "
        "encoder. The options are the `params` of its config.yml.",
        example="pytorch_model.bin if-1-m --preset IF-I-M-v1.0",
        convert=_stage,
        options=DEEPFLOYD_IF_ARGUMENTS,
        functions=(convert_deepfloyd_if,),
        presets=STAGE_I,
    ),
)
