"""https://github.com/rosinality/stylegan2-pytorch: its StyleGAN2, whose checkpoints hold both networks."""

import os
from collections.abc import Mapping

import torch

from diffusers_ext.converters.adversarial_pairs import gan_pipeline
from diffusers_ext.converters.checkpoint_files import check_file, read_pickle, read_state_dict
from diffusers_ext.converters.family import Conversion, Family
from diffusers_ext.converters.original_arguments import one_of
from diffusers_ext.converters.rosinality.stylegan2 import (
    STYLEGAN2_ROSINALITY_ARGUMENTS,
    convert_stylegan2_rosinality,
)
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.models.modeling_stylegan2 import StyleGAN2Generator


OF_GENERATOR = ("style_dim", "n_mlp")
NETWORKS = ("g_ema", "g", "d")  # the names in a checkpoint


def _read(path: str | os.PathLike) -> dict[str, StateDict]:
    """The state dicts in a checkpoint; a file that is one itself is called `g_ema`."""
    check_file(path)
    content = None if str(path).endswith(".safetensors") else read_pickle(path)
    if not isinstance(content, Mapping) or not any(isinstance(content.get(name), Mapping) for name in NETWORKS):
        return {"g_ema": read_state_dict(path)}
    networks = {name: dict(content[name]) for name in NETWORKS if isinstance(content.get(name), Mapping)}
    if isinstance(content.get("latent_avg"), torch.Tensor):
        for name in networks.keys() - {"d"}:
            networks[name]["latent_avg"] = content["latent_avg"]
    return networks


def _stylegan2(networks: dict[str, StateDict], options: dict) -> Conversion:
    chosen = options.pop("network", "g_ema")
    if chosen not in networks:
        raise ValueError(f"`network` is {chosen}, but the checkpoint has {', '.join(networks)}.")
    generator = convert_stylegan2_rosinality(networks[chosen], **options)
    if not isinstance(generator, StyleGAN2Generator):
        return Conversion({"": generator})
    discriminator = None
    if "d" in networks:
        for_both = {name: value for name, value in options.items() if name not in OF_GENERATOR}
        discriminator = convert_stylegan2_rosinality(networks["d"], **for_both)
    return Conversion({"": gan_pipeline(generator, discriminator)})


FAMILIES = (
    Family(
        name="stylegan2_rosinality",
        description="A checkpoint of rosinality's StyleGAN2 becomes a GANPipeline: the averaged generator (or, with "
        "`network=g`, the trained one), and the discriminator if the file has it.",
        example="550000.pt faces",
        convert=_stylegan2,
        options={**STYLEGAN2_ROSINALITY_ARGUMENTS, "network": one_of("g_ema", "g")},
        functions=(convert_stylegan2_rosinality,),
        read=_read,
    ),
)
