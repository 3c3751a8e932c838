"""https://github.com/CompVis/latent-diffusion and https://github.com/CompVis/taming-transformers."""

from diffusers_ext.converters.class_names import class_names
from diffusers_ext.converters.compvis.attended_unet import has_cross_attention
from diffusers_ext.converters.compvis.first_stage import (
    FIRST_STAGE_ARGUMENTS,
    VQGAN_ARGUMENTS,
    convert_latent_diffusion_first_stage,
    convert_vqgan,
)
from diffusers_ext.converters.compvis.latent_diffusion import CLASSES, PROCESS, STAGES, latent_diffusion
from diffusers_ext.converters.compvis.latent_unet import LATENT_DIFFUSION, UNET, convert_latent_diffusion
from diffusers_ext.converters.compvis.net2net import (
    N_CLASSES,
    N_HEAD,
    NET2NET_ARGUMENTS,
    RESOLUTION,
    convert_net2net,
    convert_taming_transformer,
)
from diffusers_ext.converters.compvis.presets import FIRST_STAGES, NET2NETS, UNETS, VQGANS
from diffusers_ext.converters.family import Conversion, Family, assumptions
from diffusers_ext.converters.original_arguments import anything
from diffusers_ext.converters.state_dicts import StateDict


def _latent_diffusion(state_dict: StateDict, options: dict) -> Conversion:
    defaults = {} if has_cross_attention(state_dict, UNET) else {"use_new_attention_order": False}
    assumed = assumptions(options, defaults)
    return Conversion(latent_diffusion(state_dict, options), assumed)


def _first_stage(state_dict: StateDict, options: dict) -> Conversion:
    model = convert_latent_diffusion_first_stage(state_dict, **options)
    defaults = {"resolution": model.config.sample_size, "scale_factor": model.config.scaling_factor}
    return Conversion({"": model}, assumptions(options, defaults))


def _vqgan(state_dict: StateDict, options: dict) -> Conversion:
    model = convert_vqgan(state_dict, **options)
    return Conversion({"": model}, assumptions(options, {"resolution": model.config.sample_size}))


def _net2net(state_dict: StateDict, options: dict) -> Conversion:
    names = options.pop("id2label", None)
    assumed = assumptions(options, {"n_head": N_HEAD, "n_classes": N_CLASSES, "resolution": RESOLUTION})
    pipeline = convert_net2net(state_dict, **options)
    num_classes = pipeline.num_labels if pipeline.num_labels > 1 else None
    pipeline.register_to_config(id2label=class_names(names, num_classes))
    return Conversion({"": pipeline}, assumed)


FAMILIES = (
    Family(
        name="latent_diffusion",
        description="A whole unconditional checkpoint of CompVis/latent-diffusion becomes diffusers' LDMPipeline, a "
        "class-conditional one a ClassConditionalPipeline, one with the `cond_stage_key` masked_image (inpainting) or "
        "LR_image (super-resolution) or with a SpatialRescaler (semantic synthesis) a PalettePipeline, any other one, "
        "or one without its first stage, its components in folders: unet and scheduler, and where it has them vae, "
        "conditioner (of label maps) and bert (of text). `n_stages` is how often the "
        "conditioner halves maps, `null_class_label` the class that stands for no class.",
        example="model.ckpt imagenet --preset cin256-v2",
        convert=_latent_diffusion,
        options={**LATENT_DIFFUSION, **PROCESS, **STAGES, **CLASSES},
        functions=(convert_latent_diffusion,),
        presets=UNETS,
    ),
    Family(
        name="latent_diffusion_first_stage",
        description="A first stage of CompVis/latent-diffusion becomes diffusers' VQModel or AutoencoderKL. The "
        "latents are multiplied by `scale_factor`.",
        example="model.ckpt kl-f8 --preset kl-f8",
        convert=_first_stage,
        options=FIRST_STAGE_ARGUMENTS,
        functions=(convert_latent_diffusion_first_stage,),
        presets=FIRST_STAGES,
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
    Family(
        name="taming_transformer",
        description="A Net2NetTransformer of CompVis/taming-transformers with class labels or nothing before the "
        "codes becomes a TokensToImagePipeline. `n_classes` is 1 for one without classes; `resolution` is that of the "
        "images it draws.",
        example="cin_transformer.ckpt imagenet-tokens --preset cin_transformer",
        convert=_net2net,
        options={**NET2NET_ARGUMENTS, "id2label": anything},
        functions=(convert_net2net, convert_taming_transformer),
        presets=NET2NETS,
    ),
)
