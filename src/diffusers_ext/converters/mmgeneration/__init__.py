"""https://github.com/open-mmlab/mmgeneration: its Progressive GAN, whose checkpoints hold all networks."""

from diffusers_ext.converters.adversarial_pairs import gan_pipeline
from diffusers_ext.converters.family import Conversion, Family
from diffusers_ext.converters.mmgeneration.progressive_gan import (
    OF_DISCRIMINATOR,
    OF_GENERATOR,
    PROGRESSIVE_GAN_ARGUMENTS,
    convert_progressive_gan,
)
from diffusers_ext.converters.original_arguments import one_of
from diffusers_ext.converters.state_dicts import StateDict, part
from diffusers_ext.models.modeling_progressive_gan import ProgressiveGenerator


def _progressive_gan(state_dict: StateDict, options: dict) -> Conversion:
    chosen = options.pop("network", "generator_ema")
    generator = part(state_dict, f"{chosen}.") or part(state_dict, "generator.")
    discriminator = part(state_dict, "discriminator.")
    of_generator = {name: value for name, value in options.items() if name not in OF_DISCRIMINATOR}
    of_discriminator = {name: value for name, value in options.items() if name not in OF_GENERATOR}
    if not generator:
        network = convert_progressive_gan(discriminator or state_dict, **options)
        is_generator = isinstance(network, ProgressiveGenerator)
        return Conversion({"": gan_pipeline(network, None) if is_generator else network})
    judge = convert_progressive_gan(discriminator, **of_discriminator) if discriminator else None
    return Conversion({"": gan_pipeline(convert_progressive_gan(generator, **of_generator), judge)})


FAMILIES = (
    Family(
        name="progressive_gan",
        description="A checkpoint of mmgeneration's Progressive GAN becomes a GANPipeline: the averaged generator "
        "(or, with `network=generator`, the trained one), and the discriminator if the file has it.",
        example="pggan_celeba-hq_1024_g8.pth celebrities",
        convert=_progressive_gan,
        options={**PROGRESSIVE_GAN_ARGUMENTS, "network": one_of("generator_ema", "generator")},
        functions=(convert_progressive_gan,),
    ),
)
