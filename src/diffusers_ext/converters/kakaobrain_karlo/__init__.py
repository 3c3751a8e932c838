"""https://github.com/kakaobrain/karlo."""

from diffusers_ext.converters.family import Conversion, Family
from diffusers_ext.converters.kakaobrain_karlo.decoder import (
    KARLO_DECODER_ARGUMENTS,
    convert_karlo_decoder,
    karlo_decoder_scheduler,
)
from diffusers_ext.converters.kakaobrain_karlo.presets import DECODER, PRIOR, SUPER_RESOLUTION
from diffusers_ext.converters.kakaobrain_karlo.prior import (
    KARLO_PRIOR_ARGUMENTS,
    convert_karlo_prior,
    karlo_prior_scheduler,
    read_statistics,
)
from diffusers_ext.converters.kakaobrain_karlo.super_resolution import (
    KARLO_SUPER_RESOLUTION_ARGUMENTS,
    convert_karlo_super_resolution,
    karlo_super_resolution_scheduler,
)
from diffusers_ext.converters.original_arguments import path
from diffusers_ext.converters.state_dicts import StateDict


def _prior(state_dict: StateDict, options: dict) -> Conversion:
    if "statistics_file" not in options:
        raise ValueError("A prior needs the statistics of CLIP's embeddings: name their file by `statistics_file`.")
    statistics = read_statistics(options.pop("statistics_file"))
    prior = convert_karlo_prior({**state_dict, **statistics}, **options)
    return Conversion({"prior": prior, "scheduler": karlo_prior_scheduler()})


def _decoder(state_dict: StateDict, options: dict) -> Conversion:
    decoder, conditioner = convert_karlo_decoder(state_dict, **options)
    return Conversion({"decoder": decoder, "conditioner": conditioner, "scheduler": karlo_decoder_scheduler()})


def _super_resolution(state_dict: StateDict, options: dict) -> Conversion:
    first, last = convert_karlo_super_resolution(state_dict, **options)
    scheduler = karlo_super_resolution_scheduler()
    return Conversion({"super_res_first": first, "super_res_last": last, "scheduler": scheduler})


FAMILIES = (
    Family(
        name="karlo_prior",
        description="A prior of karlo, with the statistics of CLIP's embeddings in `statistics_file`, becomes the "
        "folders prior and scheduler, of which an UnCLIPPriorPipeline is made with the text tower of its CLIP.",
        example="prior-ckpt.ckpt karlo-prior --preset karlo --option statistics_file=ViT-L-14_stats.th",
        convert=_prior,
        options={**KARLO_PRIOR_ARGUMENTS, "statistics_file": path},
        functions=(convert_karlo_prior,),
        presets={"karlo": PRIOR},
    ),
    Family(
        name="karlo_decoder",
        description="A decoder of karlo becomes the folders decoder, conditioner and scheduler, of which an "
        "UnCLIPPixelPipeline is made with its CLIP.",
        example="decoder-ckpt.ckpt karlo-decoder --preset karlo",
        convert=_decoder,
        options=KARLO_DECODER_ARGUMENTS,
        functions=(convert_karlo_decoder,),
        presets={"karlo": DECODER},
    ),
    Family(
        name="karlo_super_resolution",
        description="The improved super-resolution of karlo becomes the folders super_res_first, of all steps but the "
        "last, super_res_last and scheduler. Its sampler makes 7 steps.",
        example="improved-sr-ckpt.ckpt karlo-super-resolution --preset karlo",
        convert=_super_resolution,
        options=KARLO_SUPER_RESOLUTION_ARGUMENTS,
        functions=(convert_karlo_super_resolution,),
        presets={"karlo": SUPER_RESOLUTION},
    ),
)
