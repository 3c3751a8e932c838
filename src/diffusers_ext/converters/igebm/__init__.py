"""https://github.com/rosinality/igebm-pytorch: implicit generation with energy-based models."""

from diffusers_ext.converters.family import Conversion, Family, assumptions
from diffusers_ext.converters.igebm.network import IGEBM_ARGUMENTS, IMAGE_SIZE, convert_igebm
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.pipelines import EnergyPipeline
from diffusers_ext.schedulers import LangevinScheduler


def _igebm(state_dict: StateDict, options: dict) -> Conversion:
    assumed = assumptions(options, {"image_size": IMAGE_SIZE})
    # The original's chains are of images in [0, 1]: 60 steps of 10, noise of 0.005, gradients up to 0.01, and no
    # clipping before the gradient. In [-1, 1] gradients are half as large, and everything else is twice as large.
    scheduler = LangevinScheduler(60, 40.0, 0.01, max_gradient=0.005, clip_noisy_sample=False)
    return Conversion({"": EnergyPipeline(convert_igebm(state_dict, **options), scheduler)}, assumed)


FAMILIES = (
    Family(
        name="igebm",
        description="An energy-based model of rosinality/igebm-pytorch becomes an EnergyPipeline.",
        example="igebm.pt cifar10-igebm",
        convert=_igebm,
        options=IGEBM_ARGUMENTS,
        functions=(convert_igebm,),
    ),
)
