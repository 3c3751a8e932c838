"""The DCGAN of pytorch/examples, a plain sequence of layers: the positions of the convolutions show what it is."""

from diffusers_ext.converters.original_arguments import check_agreement, checked, positive_integer
from diffusers_ext.converters.state_dicts import StateDict, first_names, layers_of, size_of
from diffusers_ext.converters.weight_mapping import Modules, load_converted
from diffusers_ext.models.modeling_dcgan import DCGANDiscriminator, DCGANGenerator


IMAGE_SIZE = 64  # the only one that the original has
GENERATOR = [0, 3, 6, 9, 12]  # the positions of convolutions
DISCRIMINATOR = [0, 2, 5, 8, 11]
DCGAN_ARGUMENTS = dict.fromkeys(("nz", "ngf", "ndf", "nc", "imageSize"), positive_integer)
OF_GENERATOR = ("nz", "ngf")  # arguments that a discriminator does not have


def convert_dcgan(state_dict: StateDict, **config) -> DCGANGenerator | DCGANDiscriminator:
    r"""
    A `Generator` or `Discriminator` of https://github.com/pytorch/examples, `dcgan/main.py`.

    Args:
        state_dict (`Mapping`):
            The tensors of the original, `netG_epoch_*.pth` or `netD_epoch_*.pth`.
        config:
            Arguments of the original's command: `nz`, `ngf`, `ndf`, `nc`, `imageSize`. The tensors show all of them,
            and they must agree with the tensors if they are given.

    Returns:
        [`DCGANGenerator`] or [`DCGANDiscriminator`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict
            the tensors.
    """
    config = checked(config, DCGAN_ARGUMENTS)
    convs = layers_of(state_dict, "main.", ndim=4)
    if convs not in (GENERATOR, DISCRIMINATOR):
        found = f"it has convolutions at {convs} of `main`" if convs else f"its tensors are {first_names(state_dict)}"
        raise ValueError(
            f"This is not a DCGAN of pytorch/examples, which has convolutions at {GENERATOR} of `main` in its "
            f"generator and at {DISCRIMINATOR} in its discriminator: {found}."
        )
    is_generator = convs == GENERATOR
    first, last = f"main.{convs[0]}.weight", f"main.{convs[-1]}.weight"
    if is_generator:
        model_class = DCGANGenerator
        read = {"nz": size_of(state_dict, {first: 0}), "ngf": size_of(state_dict, {last: 0})}
        read["nc"] = size_of(state_dict, {last: 1})
        arguments = {"latent_dim": read["nz"], "channels": read["ngf"], "out_channels": read["nc"]}
    else:
        model_class = DCGANDiscriminator
        read = {"ndf": size_of(state_dict, {first: 0}), "nc": size_of(state_dict, {first: 1})}
        arguments = {"channels": read["ndf"], "in_channels": read["nc"]}
    check_agreement(config, config, read | {"imageSize": IMAGE_SIZE})

    modules: Modules = {f"main.{convs[-1]}": "conv_out"}
    for block, conv in enumerate(convs[:-1]):
        modules[f"main.{conv}"] = f"blocks.{block}.0"
        if is_generator or block > 0:
            modules[f"main.{conv + 1}"] = f"blocks.{block}.1"
    return load_converted(model_class, {"sample_size": IMAGE_SIZE, **arguments}, modules, state_dict)
