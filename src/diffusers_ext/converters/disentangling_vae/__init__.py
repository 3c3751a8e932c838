"""https://github.com/YannDubs/disentangling-vae: its VAE of Burgess et al."""

from diffusers_ext.converters.disentangling_vae.network import SPECS, convert_disentangling_vae
from diffusers_ext.converters.family import Conversion, Family, RunFiles
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.pipelines import AutoencoderPipeline


def _disentangling_vae(state_dict: StateDict, options: dict) -> Conversion:
    return Conversion({"": AutoencoderPipeline(convert_disentangling_vae(state_dict, **options))})


FAMILIES = (
    Family(
        name="disentangling_vae",
        description="A VAE of YannDubs/disentangling-vae becomes an AutoencoderPipeline. Give the folder of a run, or "
        "its `model.pt`.",
        example="results/VAE_mnist vae",
        convert=_disentangling_vae,
        options=SPECS,
        functions=(convert_disentangling_vae,),
        run_files=RunFiles("model.pt", "specs.json"),
    ),
)
