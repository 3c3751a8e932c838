"""https://github.com/openai/DALL-E: the discrete VAE; its transformer was never published."""

from diffusers_ext.converters.family import Conversion, Family
from diffusers_ext.converters.openai_dalle.discrete_vae import convert_dalle_vae
from diffusers_ext.converters.openai_dalle.module_pickle import read_dalle_pair
from diffusers_ext.converters.state_dicts import StateDict


def _dalle_vae(state_dict: StateDict, options: dict) -> Conversion:
    return Conversion({"": convert_dalle_vae(state_dict, **options)})


FAMILIES = (
    Family(
        name="dalle_vae",
        description="The encoder.pkl of openai/DALL-E, with the decoder.pkl beside it, becomes a DiscreteVAE.",
        example="encoder.pkl dalle-vae",
        convert=_dalle_vae,
        options={},
        functions=(convert_dalle_vae,),
        read=read_dalle_pair,
    ),
)
