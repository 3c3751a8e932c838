"""https://github.com/NVlabs/SPADE: the generators, discriminators and style encoders of SPADE (GauGAN)."""

from diffusers_ext.converters.checkpoint_files import read_state_dict
from diffusers_ext.converters.family import Conversion, Family, assumptions
from diffusers_ext.converters.nvlabs_spade.discriminator import convert_spade_discriminator
from diffusers_ext.converters.nvlabs_spade.encoder import convert_spade_encoder
from diffusers_ext.converters.nvlabs_spade.generator import (
    GENERATOR_ARGUMENTS,
    GENERATOR_DEFAULTS,
    convert_spade_generator,
)
from diffusers_ext.converters.original_arguments import path
from diffusers_ext.converters.state_dicts import StateDict, first_names, has
from diffusers_ext.pipelines import SemanticSynthesisPipeline


def _spade(state_dict: StateDict, options: dict) -> Conversion:
    """A [`SemanticSynthesisPipeline`], a [`MultiScalePatchDiscriminator`] or a [`SPADEEncoder`]."""
    if has(state_dict, "head_0"):
        encoder_file = options.pop("encoder_file", None)
        encoder = None if encoder_file is None else convert_spade_encoder(read_state_dict(encoder_file))
        generator = convert_spade_generator(state_dict, **options)
        defaults = {**GENERATOR_DEFAULTS}
        if generator.config.num_upsamplings == 7:  # which the tensors show
            del defaults["num_upsampling_layers"]
        return Conversion({"": SemanticSynthesisPipeline(generator, encoder)}, assumptions(options, defaults))
    if options:
        raise ValueError(
            f"`{next(iter(options))}` is for generators, which have `head_0`, but this checkpoint has not."
        )
    if has(state_dict, "discriminator_0"):
        return Conversion({"": convert_spade_discriminator(state_dict)})
    if has(state_dict, "fc_mu"):
        return Conversion({"": convert_spade_encoder(state_dict)})
    raise ValueError(
        "This is not a network of SPADE: it has neither `head_0` like their generators, nor `discriminator_0` like "
        f"their discriminators, nor `fc_mu` like their encoders; its tensors are {first_names(state_dict)}."
    )


FAMILIES = (
    Family(
        name="spade",
        description="A generator of SPADE (GauGAN) becomes a SemanticSynthesisPipeline, with the style encoder that "
        "`encoder_file` names if it was trained with one; a discriminator becomes a MultiScalePatchDiscriminator, an "
        "encoder alone a SPADEEncoder. Generators are assumed to take instance edges.",
        example="latest_net_G.pth facades --option crop_size=256 --option no_instance=true",
        convert=_spade,
        options={**GENERATOR_ARGUMENTS, "encoder_file": path},
        functions=(convert_spade_discriminator, convert_spade_encoder, convert_spade_generator),
        presets={
            "ade20k": {"crop_size": 256, "aspect_ratio": 1.0, "num_upsampling_layers": "normal", "no_instance": True},
            "cityscapes": {
                "crop_size": 512,
                "aspect_ratio": 2.0,
                "num_upsampling_layers": "more",
                "no_instance": False,
            },
            "coco": {"crop_size": 256, "aspect_ratio": 1.0, "num_upsampling_layers": "normal", "no_instance": False},
        },
    ),
)
