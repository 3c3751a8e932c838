"""https://github.com/facebookresearch/DiT."""

from diffusers_ext.converters.facebook_dit.latent_transformers import latent_transformer
from diffusers_ext.converters.facebook_dit.presets import DITS
from diffusers_ext.converters.facebook_dit.transformer import DIT_ARGUMENTS, convert_dit
from diffusers_ext.converters.family import Conversion, Family
from diffusers_ext.converters.original_arguments import anything, path
from diffusers_ext.converters.state_dicts import StateDict


def _dit(state_dict: StateDict, options: dict) -> Conversion:
    return Conversion(latent_transformer(state_dict, options))


FAMILIES = (
    Family(
        name="dit",
        description="A transformer of facebookresearch/DiT becomes a ClassConditionalPipeline with the AutoencoderKL "
        "that `vae` names, a folder or a repository, whose latents it was trained on; without `vae` the folders unet "
        "and scheduler.",
        example="DiT-XL-2-256x256.pt dit-256 --preset DiT-XL-2-256x256 --option vae=stabilityai/sd-vae-ft-mse",
        convert=_dit,
        options={**DIT_ARGUMENTS, "vae": path, "id2label": anything},
        functions=(convert_dit,),
        presets=DITS,
    ),
)
