"""https://github.com/clementchadebec/benchmark_VAE, the library pythae."""

from diffusers_ext.converters.family import Conversion, Family, RunFiles
from diffusers_ext.converters.pythae.network import MODEL_CONFIG, convert_pythae
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.pipelines import AutoencoderPipeline


def _pythae(state_dict: StateDict, options: dict) -> Conversion:
    return Conversion({"": AutoencoderPipeline(convert_pythae(state_dict, **options))})


FAMILIES = (
    Family(
        name="pythae",
        description="An autoencoder of pythae (AE, VAE, BetaVAE, VQVAE and others) becomes an AutoencoderPipeline. "
        "Give the folder of a run, or its `model.pt`.",
        example="my_run/final_model vae",
        convert=_pythae,
        options=MODEL_CONFIG,
        functions=(convert_pythae,),
        run_files=RunFiles("model.pt", "model_config.json"),
    ),
)
