"""The editing directions of encoder4editing: from their tensors to [`LatentDirections`]."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import ModelMixin

from diffusers_ext.converters.checkpoint_files import read_pickle
from diffusers_ext.models import StyleGAN2Generator
from diffusers_ext.pipelines.latent_directions import LatentDirections, latent_fingerprint


PRINCIPAL = ("comp", "mean", "std")
FILE_NAME = "directions.safetensors"


def read_directions(path: str | os.PathLike) -> dict:
    """What a file of directions holds; a tensor alone gets the name of its file, as `smile.pt` says what it is for."""
    content = read_pickle(path)
    return {Path(path).stem: content} if torch.is_tensor(content) else content


def convert_editing_directions(content: Mapping, generator: ModelMixin) -> LatentDirections:
    """The directions of https://github.com/omertov/encoder4editing as [`LatentDirections`].

    A direction of InterFaceGAN keeps its length. Principal components of GANSpace, `comp` with their deviations `std`,
    get the length of one standard deviation; the original moves an image to a coordinate, and a strength moves it by
    one. Factors of SeFa are the columns of `eigvec`, as in rosinality/stylegan2-pytorch, and keep the length 1.

    Args:
        content (`Mapping`): tensors `(style_dim,)` or `(1, style_dim)` by name; or `comp`, `mean` and `std`; or
            `eigvec`.
        generator ([`StyleGAN2Generator`]): the converted generator that they were found for.

    Raises:
        ValueError: if these are no such directions, or not for this generator.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"These are no directions of encoder4editing: the file holds a {type(content).__name__}.")
    principal = set(PRINCIPAL) <= set(content)
    for name in PRINCIPAL if principal else ("eigvec",) if "eigvec" in content else ():
        if not torch.is_tensor(content[name]):
            raise ValueError(f"{name} must be a tensor, but is a {type(content[name]).__name__}.")
    if principal and len(content["comp"]) != content["std"].numel():
        raise ValueError(
            f"comp has {len(content['comp'])} components, but std has the deviations of {content['std'].numel()}."
        )
    if principal:
        rows = content["comp"].flatten(1) * content["std"].reshape(-1, 1)
        found = {f"component_{index + 1}": row for index, row in enumerate(rows)}
        purpose = "a principal component of the styles (GANSpace)"
    elif "eigvec" in content:
        found = {f"factor_{index + 1}": column for index, column in enumerate(content["eigvec"].T)}
        purpose = "a factor of the weights (SeFa)"
    else:
        found = {name: value.flatten() for name, value in content.items() if torch.is_tensor(value)}
        purpose = "the normal of a plane between images with and without it (InterFaceGAN)"
    if not found:
        raise ValueError(f"These are no directions of encoder4editing: the file has {', '.join(map(str, content))}.")
    vectors = {name: vector.float().clone() for name, vector in found.items()}
    purposes = dict.fromkeys(vectors, purpose)
    return LatentDirections(vectors, "styles", latent_fingerprint(generator), purposes).moved_to(generator)


class DirectionsFile:
    """Directions that are saved as a file in a folder.

    Args:
        directions ([`LatentDirections`]): the directions.
    """

    def __init__(self, directions: LatentDirections):
        self.directions = directions

    def save_pretrained(self, save_directory: str | os.PathLike) -> None:
        """Writes `directions.safetensors` into the folder."""
        os.makedirs(save_directory, exist_ok=True)
        self.directions.save(os.path.join(save_directory, FILE_NAME))


def load_generator(folder: str) -> StyleGAN2Generator:
    """The generator in a folder of its own, or in that of a pipeline.

    Raises:
        ValueError: if there is none.
    """
    for options in ({}, {"subfolder": "generator"}):
        if os.path.isfile(os.path.join(folder, options.get("subfolder", ""), "config.json")):
            return StyleGAN2Generator.from_pretrained(folder, **options)
    raise ValueError(f"`generator` must be the folder of the converted generator, but {folder!r} has none.")
