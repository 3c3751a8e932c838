"""https://github.com/NVlabs/stylegan2-ada-pytorch: the networks of its pickles, which are read without its code."""

import os

from diffusers_ext.converters.adversarial_pairs import gan_pipeline
from diffusers_ext.converters.checkpoint_files import check_file, read_state_dict
from diffusers_ext.converters.family import Conversion, Family
from diffusers_ext.converters.original_arguments import one_of
from diffusers_ext.converters.stylegan2_ada.network_pickle import PickledNetwork, read_network_pickle
from diffusers_ext.converters.stylegan2_ada.networks import (
    OF_DISCRIMINATOR,
    OF_EITHER,
    OF_GENERATOR,
    STYLEGAN2_ADA_ARGUMENTS,
    convert_stylegan2_ada,
    flat_arguments,
)
from diffusers_ext.models.modeling_stylegan2 import StyleGAN2Generator


def _read(path: str | os.PathLike) -> dict[str, PickledNetwork]:
    """The networks of a pickle; a state dict alone is called `G_ema`."""
    check_file(path)
    if str(path).endswith(".pkl"):
        return read_network_pickle(path)
    return {"G_ema": PickledNetwork(read_state_dict(path))}


def _convert(network: PickledNetwork, options: dict, of_other: tuple[str, ...]):
    for_this = {name: value for name, value in options.items() if name not in of_other}
    return convert_stylegan2_ada(network.tensors, **{**flat_arguments(network.arguments), **for_this})


def _stylegan2(networks: dict[str, PickledNetwork], options: dict) -> Conversion:
    chosen = options.pop("network", "G_ema")
    if chosen not in networks:
        raise ValueError(f"`network` is {chosen}, but the file has {', '.join(networks) or 'no network'}.")
    generator = _convert(networks[chosen], options, OF_DISCRIMINATOR)
    if not isinstance(generator, StyleGAN2Generator):
        return Conversion({"": generator})
    discriminator = _convert(networks["D"], options, OF_GENERATOR + OF_EITHER) if "D" in networks else None
    return Conversion({"": gan_pipeline(generator, discriminator)})


FAMILIES = (
    Family(
        name="stylegan2_ada",
        description="A pickle of StyleGAN2-ADA becomes a GANPipeline: the averaged generator (or, with `network=G`, "
        "the trained one), and the discriminator. Nothing in the file is executed. A state dict of one network, "
        "written by torch.save or safetensors, is converted as well.",
        example="network-snapshot-025000.pkl faces",
        convert=_stylegan2,
        options={**STYLEGAN2_ADA_ARGUMENTS, "network": one_of("G_ema", "G")},
        functions=(convert_stylegan2_ada,),
        read=_read,
    ),
)
