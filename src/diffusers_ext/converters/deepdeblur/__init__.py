"""https://github.com/SeungjunNah/DeepDeblur-PyTorch: its multi-scale network."""

from functools import partial

from diffusers_ext.converters.checkpoint_files import NESTED, read_state_dict
from diffusers_ext.converters.deepdeblur.msresnet import DEEPDEBLUR_ARGUMENTS, convert_deepdeblur
from diffusers_ext.converters.family import Conversion, Family, assumptions
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.pipelines import RestorationPipeline


def _deepdeblur(state_dict: StateDict, options: dict) -> Conversion:
    pipeline = RestorationPipeline(convert_deepdeblur(state_dict, **options))
    return Conversion({"": pipeline}, assumptions(options, {"rgb_range": 255}))


FAMILIES = (
    Family(
        name="deepdeblur",
        description="An MSResNet of DeepDeblur-PyTorch becomes a RestorationPipeline.",
        example="model-1000.pt deepdeblur",
        convert=_deepdeblur,
        options=DEEPDEBLUR_ARGUMENTS,
        functions=(convert_deepdeblur,),
        read=partial(read_state_dict, nested=("G", *NESTED)),
    ),
)
