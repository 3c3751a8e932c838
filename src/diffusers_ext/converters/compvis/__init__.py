"""https://github.com/CompVis/latent-diffusion and https://github.com/CompVis/taming-transformers."""

from diffusers_ext.converters.compvis.first_stage import VQGAN_ARGUMENTS, convert_vqgan
from diffusers_ext.converters.compvis.latent_diffusion import PROCESS, latent_diffusion
from diffusers_ext.converters.compvis.latent_unet import LATENT_DIFFUSION, convert_latent_diffusion
from diffusers_ext.converters.compvis.presets import UNETS, VQGANS
from diffusers_ext.converters.family import Conversion, Family, assumptions
from diffusers_ext.converters.state_dicts import StateDict


def _latent_diffusion(state_dict: StateDict, options: dict) -> Conversion:
    assumed = assumptions(options, {"use_new_attention_order": False})
    return Conversion(latent_diffusion(state_dict, options), assumed)


def _vqgan(state_dict: StateDict, options: dict) -> Conversion:
    model = convert_vqgan(state_dict, **options)
    return Conversion({"": model}, assumptions(options, {"resolution": model.config.sample_size}))


FAMILIES = (
    Family(
        name="latent_diffusion",
        description="A whole unconditional checkpoint of CompVis/latent-diffusion becomes diffusers' LDMPipeline, a "
        "U-Net without its first stage the folders unet and scheduler.",
        example="model.ckpt ldm-celeba --preset celeba256",
        convert=_latent_diffusion,
        options={**LATENT_DIFFUSION, **PROCESS},
        functions=(convert_latent_diffusion,),
        presets=UNETS,
    ),
    Family(
        name="vqgan",
        description="The first stage of a VQGAN of CompVis/taming-transformers becomes diffusers' VQModel.",
        example="last.ckpt vqgan --preset vqgan_imagenet_f16_1024",
        convert=_vqgan,
        options=VQGAN_ARGUMENTS,
        functions=(convert_vqgan,),
        presets=VQGANS,
    ),
)
