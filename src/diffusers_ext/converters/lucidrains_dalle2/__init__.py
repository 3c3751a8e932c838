"""https://github.com/lucidrains/DALLE2-pytorch: the diffusion prior, which LAION trained."""

from functools import partial

from diffusers_ext.converters.checkpoint_files import read_state_dict
from diffusers_ext.converters.family import Conversion, Family
from diffusers_ext.converters.lucidrains_dalle2.prior import (
    DALLE2_PRIOR_ARGUMENTS,
    PRIOR,
    convert_dalle2_prior,
    dalle2_prior_scheduler,
)
from diffusers_ext.converters.state_dicts import StateDict


def _prior(state_dict: StateDict, options: dict) -> Conversion:
    prior = convert_dalle2_prior(state_dict, **options)
    return Conversion({"prior": prior, "scheduler": dalle2_prior_scheduler(prior.config.num_timesteps)})


FAMILIES = (
    Family(
        name="dalle2_prior",
        description="A DiffusionPrior of DALLE2-pytorch becomes the folders prior and scheduler, of which an "
        "UnCLIPPriorPipeline is made with the text tower of its CLIP.",
        example="prior.pth dalle2-prior --preset laion",
        convert=_prior,
        options=DALLE2_PRIOR_ARGUMENTS,
        functions=(convert_dalle2_prior,),
        presets={"laion": PRIOR},
        read=partial(read_state_dict, nested=("ema_model", "model")),
    ),
)
