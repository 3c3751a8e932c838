"""https://github.com/leftthomas/SRGAN, whose generator had two layouts."""

from diffusers_ext.converters.family import Conversion, Family
from diffusers_ext.converters.leftthomas.srgan import SRGAN_ARGUMENTS, convert_srgan
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.models.modeling_srresnet import SRResNet
from diffusers_ext.pipelines import RestorationPipeline


def _srgan(state_dict: StateDict, options: dict) -> Conversion:
    network = convert_srgan(state_dict, **options)
    return Conversion({"": RestorationPipeline(network) if isinstance(network, SRResNet) else network})


FAMILIES = (
    Family(
        name="srgan",
        description="A generator of leftthomas' SRGAN becomes a RestorationPipeline, a discriminator an "
        "SRGANDiscriminator.",
        example="netG_epoch_4_100.pth srgan",
        convert=_srgan,
        options=SRGAN_ARGUMENTS,
        functions=(convert_srgan,),
    ),
)
