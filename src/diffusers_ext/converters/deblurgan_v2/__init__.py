"""https://github.com/VITA-Group/DeblurGANv2: its feature pyramid over MobileNetV2, and the generator of DeblurGAN."""

from functools import partial

from diffusers_ext.converters.checkpoint_files import NESTED, read_state_dict
from diffusers_ext.converters.deblurgan_v2.fpn_mobilenet import convert_fpn_mobilenet
from diffusers_ext.converters.deblurgan_v2.residual_generator import convert_deblurgan
from diffusers_ext.converters.deblurgan_v2.statistics import STATISTICS
from diffusers_ext.converters.family import Conversion, Family, assumptions
from diffusers_ext.converters.state_dicts import StateDict, has
from diffusers_ext.pipelines import RestorationPipeline


def _deblurgan(state_dict: StateDict, options: dict) -> Conversion:
    convert = convert_fpn_mobilenet if has(state_dict, "fpn") else convert_deblurgan
    pipeline = RestorationPipeline(convert(state_dict, **options), black=-1.0)
    return Conversion({"": pipeline}, assumptions(options, {"statistics": "image"}))


FAMILIES = (
    Family(
        name="deblurgan_v2",
        description="The FPNMobileNet of DeblurGAN-v2, or the residual generator of DeblurGAN in the layout of "
        "DeblurGAN-v2, becomes a RestorationPipeline. Each image is normalized by its own statistics, as the "
        "original's predict.py does; statistics=stored uses those of the training.",
        example="fpn_mobilenet.h5 deblurgan_v2",
        convert=_deblurgan,
        options={"statistics": STATISTICS},
        functions=(convert_fpn_mobilenet, convert_deblurgan),
        read=partial(read_state_dict, nested=("model", *NESTED)),
    ),
)
