"""https://github.com/omertov/encoder4editing: the encoders pSp and e4e, which invert StyleGANs, and
directions that edit their images."""

import os
from collections.abc import Mapping

import torch

from diffusers_ext.converters.checkpoint_files import read_pickle, read_state_dict
from diffusers_ext.converters.family import Conversion, Family
from diffusers_ext.converters.omertov.directions import (
    DirectionsFile,
    convert_editing_directions,
    load_generator,
    read_directions,
)
from diffusers_ext.converters.omertov.style_encoder import STYLE_ENCODER_ARGUMENTS, convert_style_encoder
from diffusers_ext.converters.original_arguments import path, require
from diffusers_ext.converters.state_dicts import StateDict


def _read(path: str | os.PathLike) -> StateDict:
    """The tensors of the encoder in a checkpoint, which also has those of a generator, and the average style."""
    tensors = read_state_dict(path)
    content = {} if str(path).endswith(".safetensors") else read_pickle(path)
    if any(name.startswith("encoder.") for name in tensors):
        tensors = {
            name.removeprefix("encoder."): value for name, value in tensors.items() if name.startswith("encoder.")
        }
    if isinstance(content, Mapping) and isinstance(content.get("latent_avg"), torch.Tensor):
        tensors["latent_avg"] = content["latent_avg"]
    return tensors


def _style_encoder(state_dict: StateDict, options: dict) -> Conversion:
    return Conversion({"": convert_style_encoder(state_dict, **options)})


def _directions(content: dict, options: dict) -> Conversion:
    require(options, "generator")
    return Conversion({"": DirectionsFile(convert_editing_directions(content, load_generator(options["generator"])))})


FAMILIES = (
    Family(
        name="style_encoder",
        description="An encoder of encoder4editing (e4e, or pSp with `architecture=psp`) becomes a StyleEncoder, for "
        "a GANInversionPipeline together with the converted generator.",
        example="e4e_ffhq_encode.pt encoder",
        convert=_style_encoder,
        options=STYLE_ENCODER_ARGUMENTS,
        functions=(convert_style_encoder,),
        read=_read,
    ),
    Family(
        name="editing_directions",
        description="Directions of encoder4editing (interfacegan_directions/*.pt, ganspace_pca/*.pt, or the eigvec of "
        "SeFa) become directions.safetensors, for GANPipeline.edit; `generator` is the folder of the converted "
        "generator.",
        example="smile.pt directions --option generator=faces",
        convert=_directions,
        options={"generator": path},
        functions=(convert_editing_directions,),
        read=read_directions,
    ),
)
