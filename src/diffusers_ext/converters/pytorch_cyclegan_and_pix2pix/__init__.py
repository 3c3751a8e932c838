"""https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix, in all the layouts that its checkpoints have had."""

from functools import partial

from diffusers_ext.converters.checkpoint_files import read_state_dict
from diffusers_ext.converters.cyclegan_resnet import (
    RESNET_ARGUMENTS,
    convert_resnet_generator,
)
from diffusers_ext.converters.family import Conversion, Family
from diffusers_ext.converters.original_arguments import path
from diffusers_ext.converters.pytorch_cyclegan_and_pix2pix.patch_discriminator import (
    DISCRIMINATOR_ARGUMENTS,
    convert_patch_discriminator,
)
from diffusers_ext.converters.pytorch_cyclegan_and_pix2pix.translation_network import convert_translation_network
from diffusers_ext.converters.pytorch_cyclegan_and_pix2pix.unet_generator import (
    UNET_ARGUMENTS,
    convert_unet_generator,
)
from diffusers_ext.converters.state_dicts import StateDict, has
from diffusers_ext.models.modeling_patch_discriminator import PatchDiscriminator
from diffusers_ext.models.modeling_resnet_generator import ResnetGenerator
from diffusers_ext.pipelines import ImageTranslationPipeline


SWAPPED = {"input_nc": "output_nc", "output_nc": "input_nc"}  # from one direction to the other


def _translation(state_dict: StateDict, options: dict, use_dropout: bool) -> Conversion:
    """An [`ImageTranslationPipeline`] of a generator or of two, or a [`PatchDiscriminator`].

    Args:
        state_dict (`Mapping`): the tensors of the original.
        options (`dict`): arguments of [`convert_translation_network`], and `reverse_file`.
        use_dropout (`bool`): whether the original trains U-Nets with dropout by default.
    """
    assumed = []
    reverse_file = options.pop("reverse_file", None)
    if has(state_dict, "model.model") and "use_dropout" not in options:
        options["use_dropout"] = use_dropout
        assumed.append(f"use_dropout={use_dropout}")
    network = convert_translation_network(state_dict, **options)
    if isinstance(network, PatchDiscriminator):
        if reverse_file is not None:
            raise ValueError("`reverse_file` is for generators, but the checkpoint is a discriminator.")
        return Conversion({"": network}, assumed)
    is_reflecting = isinstance(network, ResnetGenerator) and network.config.padding_mode == "reflect"
    if is_reflecting and "padding_type" not in options:
        assumed.append("padding_type=reflect")
    if reverse_file is None:
        return Conversion({"": ImageTranslationPipeline(network)}, assumed)
    options |= {name: options[other] for name, other in SWAPPED.items() if other in options}
    reverse = convert_translation_network(read_state_dict(reverse_file), **options)
    if isinstance(reverse, PatchDiscriminator):
        raise ValueError(f"`reverse_file` must be a generator, but {reverse_file} is a discriminator.")
    return Conversion({"": ImageTranslationPipeline(network, reverse)}, assumed)


OPTIONS = {**UNET_ARGUMENTS, **RESNET_ARGUMENTS, **DISCRIMINATOR_ARGUMENTS, "reverse_file": path}
FUNCTIONS = (
    convert_patch_discriminator,
    convert_resnet_generator,
    convert_translation_network,
    convert_unet_generator,
)
FAMILIES = (
    Family(
        name="pix2pix",
        description="A generator of pix2pix becomes an ImageTranslationPipeline, a discriminator a "
        "PatchDiscriminator. U-Nets are assumed to be trained with dropout.",
        example="latest_net_G.pth facades",
        convert=partial(_translation, use_dropout=True),
        options=OPTIONS,
        functions=FUNCTIONS,
    ),
    Family(
        name="cyclegan",
        description="A generator of CycleGAN becomes an ImageTranslationPipeline, for both directions if "
        "`reverse_file` names the generator of the other one. A discriminator becomes a PatchDiscriminator. U-Nets "
        "are assumed to be trained without dropout.",
        example="latest_net_G_A.pth horse2zebra --option reverse_file=latest_net_G_B.pth",
        convert=partial(_translation, use_dropout=False),
        options=OPTIONS,
        functions=FUNCTIONS,
    ),
)
