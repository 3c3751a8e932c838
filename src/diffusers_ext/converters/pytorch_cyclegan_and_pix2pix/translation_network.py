"""Any network of pix2pix or CycleGAN."""

from diffusers_ext.converters.cyclegan_resnet import convert_resnet_generator
from diffusers_ext.converters.pytorch_cyclegan_and_pix2pix.patch_discriminator import convert_patch_discriminator
from diffusers_ext.converters.pytorch_cyclegan_and_pix2pix.unet_generator import convert_unet_generator
from diffusers_ext.converters.state_dicts import StateDict, has
from diffusers_ext.models.modeling_patch_discriminator import PatchDiscriminator
from diffusers_ext.models.modeling_resnet_generator import ResnetGenerator
from diffusers_ext.models.modeling_unet_generator import UNetGenerator


def convert_translation_network(
    state_dict: StateDict, **config
) -> UNetGenerator | ResnetGenerator | PatchDiscriminator:
    """A generator or discriminator of pix2pix or CycleGAN. The names of the tensors show which it is.

    See [`convert_unet_generator`], [`convert_resnet_generator`] and [`convert_patch_discriminator`].

    Raises:
        ValueError: if the tensors belong to another network, or if arguments or tensors do not fit.
    """
    if has(state_dict, "model.model"):
        return convert_unet_generator(state_dict, **config)
    if any(".conv_block." in key for key in state_dict):
        return convert_resnet_generator(state_dict, **config)
    # A discriminator has layers at 2, 5, 8 ..., a generator at 1, 4, 7 ...
    if has(state_dict, "net.0") or (has(state_dict, "model.0") and has(state_dict, "model.2")):
        return convert_patch_discriminator(state_dict, **config)
    raise ValueError(
        "This is not a network of pix2pix or CycleGAN: it has neither `model.model.0` like their U-Nets, nor "
        "`model.*.conv_block` like their residual networks, nor `model.0` or `net.0` like their discriminators."
    )
