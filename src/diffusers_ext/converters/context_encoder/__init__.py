"""https://github.com/BoyuanJiang/context_encoder_pytorch: its generator, which fills in the centre of images."""

from diffusers_ext.converters.context_encoder.generator import CONTEXT_ENCODER_ARGUMENTS, convert_context_encoder
from diffusers_ext.converters.family import Conversion, Family, assumptions
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.pipelines import RestorationPipeline


def _context_encoder(state_dict: StateDict, options: dict) -> Conversion:
    pipeline = RestorationPipeline(convert_context_encoder(state_dict, **options), black=-1.0)
    return Conversion({"": pipeline}, assumptions(options, {"overlapPred": 4}))


FAMILIES = (
    Family(
        name="context_encoder",
        description="A generator of context_encoder_pytorch becomes a RestorationPipeline. It was trained on images "
        "of 128 pixels whose centre has the colour (117, 104, 123).",
        example="netG_streetview.pth context_encoder",
        convert=_context_encoder,
        options=CONTEXT_ENCODER_ARGUMENTS,
        functions=(convert_context_encoder,),
    ),
)
