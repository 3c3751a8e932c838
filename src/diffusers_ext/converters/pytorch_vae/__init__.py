"""https://github.com/AntixK/PyTorch-VAE: its VanillaVAE, and other models with the same network."""

from diffusers_ext.converters.family import Conversion, Family
from diffusers_ext.converters.pytorch_vae.network import PYTORCH_VAE_ARGUMENTS, convert_pytorch_vae
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.pipelines import AutoencoderPipeline


def _pytorch_vae(state_dict: StateDict, options: dict) -> Conversion:
    return Conversion({"": AutoencoderPipeline(convert_pytorch_vae(state_dict, **options))})


FAMILIES = (
    Family(
        name="pytorch_vae",
        description="A VanillaVAE of AntixK/PyTorch-VAE becomes an AutoencoderPipeline.",
        example="last.ckpt vae",
        convert=_pytorch_vae,
        options=PYTORCH_VAE_ARGUMENTS,
        functions=(convert_pytorch_vae,),
    ),
)
