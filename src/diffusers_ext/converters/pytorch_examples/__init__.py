"""https://github.com/pytorch/examples: its DCGAN, and its networks of fast neural style."""

from diffusers_ext.converters.adversarial_pairs import generator_and_discriminator
from diffusers_ext.converters.family import Conversion, Family
from diffusers_ext.converters.original_arguments import path
from diffusers_ext.converters.pytorch_examples.dcgan import DCGAN_ARGUMENTS, OF_GENERATOR, convert_dcgan
from diffusers_ext.converters.pytorch_examples.fast_neural_style import convert_fast_neural_style
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.models.modeling_dcgan import DCGANGenerator
from diffusers_ext.pipelines import StyleTransferPipeline


def _dcgan(state_dict: StateDict, options: dict) -> Conversion:
    return Conversion(generator_and_discriminator(convert_dcgan, DCGANGenerator, state_dict, options, OF_GENERATOR))


def _fast_neural_style(state_dict: StateDict, options: dict) -> Conversion:
    return Conversion({"": StyleTransferPipeline(convert_fast_neural_style(state_dict, **options))})


FAMILIES = (
    Family(
        name="dcgan",
        description="A DCGAN generator of pytorch/examples becomes a GANPipeline, together with its discriminator if "
        "`discriminator_file` names it. A discriminator alone becomes a DCGANDiscriminator.",
        example="netG_epoch_24.pth faces --option discriminator_file=netD_epoch_24.pth",
        convert=_dcgan,
        options={**DCGAN_ARGUMENTS, "discriminator_file": path},
        functions=(convert_dcgan,),
    ),
    Family(
        name="fast_neural_style",
        description="A network of one style of pytorch/examples becomes a StyleTransferPipeline.",
        example="candy.pth candy",
        convert=_fast_neural_style,
        options={},
        functions=(convert_fast_neural_style,),
    ),
)
