"""https://github.com/XPixelGroup/BasicSR: MSRResNet, and the RRDB networks of ESRGAN and Real-ESRGAN."""

from functools import partial

from diffusers_ext.converters.basicsr.msrresnet import MSRRESNET_ARGUMENTS, convert_msrresnet
from diffusers_ext.converters.basicsr.rrdb import RRDB_ARGUMENTS, convert_rrdb
from diffusers_ext.converters.checkpoint_files import NESTED, read_state_dict
from diffusers_ext.converters.family import Conversion, Family
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.pipelines import RestorationPipeline


# Where files have both, the averaged weights are meant for use.
read_basicsr = partial(read_state_dict, nested=("params_ema", "params", *NESTED))


def _msrresnet(state_dict: StateDict, options: dict) -> Conversion:
    return Conversion({"": RestorationPipeline(convert_msrresnet(state_dict, **options))})


def _rrdb(state_dict: StateDict, options: dict) -> Conversion:
    return Conversion({"": RestorationPipeline(convert_rrdb(state_dict, **options))})


FAMILIES = (
    Family(
        name="msrresnet",
        description="An MSRResNet of BasicSR becomes a RestorationPipeline, by the averaged "
        "weights if the file has them.",
        example="MSRResNet_x4_f64b16_DIV2K_1000k_B16G1_wandb.pth msrresnet",
        convert=_msrresnet,
        options=MSRRESNET_ARGUMENTS,
        functions=(convert_msrresnet,),
        read=read_basicsr,
    ),
    Family(
        name="rrdb",
        description="An RRDB network of ESRGAN, Real-ESRGAN or BasicSR, in any of the three layouts of its tensors, "
        "becomes a RestorationPipeline, by the averaged "
        "weights if the file has them.",
        example="RealESRGAN_x4plus.pth real-esrgan",
        convert=_rrdb,
        options=RRDB_ARGUMENTS,
        functions=(convert_rrdb,),
        read=read_basicsr,
    ),
)
