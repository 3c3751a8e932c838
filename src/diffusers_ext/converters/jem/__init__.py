"""https://github.com/wgrathwohl/JEM: classifiers that are energy-based models."""

from diffusers_ext.converters.family import Conversion, Family, assumptions
from diffusers_ext.converters.jem.network import IMAGE_SIZE, JEM_ARGUMENTS, convert_jem
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.pipelines import EnergyPipeline
from diffusers_ext.schedulers import LangevinScheduler


def _jem(state_dict: StateDict, options: dict) -> Conversion:
    assumed = assumptions(options, {"image_size": IMAGE_SIZE, "uncond": False, "norm": "that of the tensors' names"})
    # The chains of the original's training: 20 steps of 1 with noise of 0.01 after the gradient, and no limits.
    scheduler = LangevinScheduler(20, 1.0, 0.01, max_gradient=None, noise_order="after", clip_sample=False)
    return Conversion({"": EnergyPipeline(convert_jem(state_dict, **options), scheduler)}, assumed)


FAMILIES = (
    Family(
        name="jem",
        description="A classifier of wgrathwohl/JEM becomes an EnergyPipeline.",
        example="CIFAR10_MODEL.pt cifar10-jem",
        convert=_jem,
        options=JEM_ARGUMENTS,
        functions=(convert_jem,),
    ),
)
