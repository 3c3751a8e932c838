"""https://github.com/yunjey/stargan: the generator and the discriminator of StarGAN."""

from diffusers_ext.converters.class_names import class_names
from diffusers_ext.converters.family import Conversion, Family
from diffusers_ext.converters.original_arguments import anything
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.converters.yunjey_stargan.networks import (
    DISCRIMINATOR_ARGUMENTS,
    GENERATOR_ARGUMENTS,
    convert_stargan_discriminator,
    convert_stargan_generator,
)
from diffusers_ext.pipelines import AttributeTranslationPipeline


CELEBA = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Young")


def _stargan(state_dict: StateDict, options: dict) -> Conversion:
    """An [`AttributeTranslationPipeline`], or a [`StarGANDiscriminator`]."""
    names = options.pop("id2label", None)
    if "conv2.weight" in state_dict:  # the head of the domains
        return Conversion({"": convert_stargan_discriminator(state_dict, **options)})
    generator = convert_stargan_generator(state_dict, **options)
    names = class_names(names, generator.config.num_domains)
    return Conversion({"": AttributeTranslationPipeline(generator, id2label=names)})


FAMILIES = (
    Family(
        name="stargan",
        description="A generator of StarGAN becomes an AttributeTranslationPipeline, a discriminator a "
        "StarGANDiscriminator.",
        example="200000-G.ckpt stargan_celeba --preset celeba_128",
        convert=_stargan,
        options={**GENERATOR_ARGUMENTS, **DISCRIMINATOR_ARGUMENTS, "id2label": anything},
        functions=(convert_stargan_discriminator, convert_stargan_generator),
        presets={
            f"celeba_{size}": {"image_size": size, "c_dim": 5, "id2label": dict(enumerate(CELEBA))}
            for size in (128, 256)
        },
    ),
)
