"""https://github.com/phlippe/uvadlc_notebooks: the networks of its tutorials."""

from diffusers_ext.converters.family import Conversion, Family, assumptions
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.converters.uvadlc_notebooks.energy import UVADLC_ENERGY_ARGUMENTS, convert_uvadlc_energy
from diffusers_ext.converters.uvadlc_notebooks.gated_pixelcnn import (
    DILATIONS,
    IMAGE_SIZE,
    UVADLC_PIXELCNN_ARGUMENTS,
    convert_uvadlc_pixelcnn,
)
from diffusers_ext.pipelines import AutoregressivePipeline, EnergyPipeline
from diffusers_ext.schedulers import LangevinScheduler


def _pixelcnn(state_dict: StateDict, options: dict) -> Conversion:
    assumed = assumptions(options, {"image_size": IMAGE_SIZE, "dilations": list(DILATIONS)})
    return Conversion({"": AutoregressivePipeline(convert_uvadlc_pixelcnn(state_dict, **options))}, assumed)


def _energy(state_dict: StateDict, options: dict) -> Conversion:
    scheduler = LangevinScheduler(256)  # the notebook's chains, with the steps that it makes images with
    return Conversion({"": EnergyPipeline(convert_uvadlc_energy(state_dict, **options), scheduler)})


FAMILIES = (
    Family(
        name="uvadlc_energy",
        description="The energy-based model of tutorial 8 (phlippe/saved_models, tutorial8/MNIST.ckpt) becomes an "
        "EnergyPipeline.",
        example="MNIST.ckpt mnist-energy",
        convert=_energy,
        options=UVADLC_ENERGY_ARGUMENTS,
        functions=(convert_uvadlc_energy,),
    ),
    Family(
        name="uvadlc_pixelcnn",
        description="The gated PixelCNN of tutorial 12 (phlippe/saved_models, tutorial12/PixelCNN.ckpt) becomes an "
        "AutoregressivePipeline.",
        example="PixelCNN.ckpt mnist-pixelcnn",
        convert=_pixelcnn,
        options=UVADLC_PIXELCNN_ARGUMENTS,
        functions=(convert_uvadlc_pixelcnn,),
    ),
)
