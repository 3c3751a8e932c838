"""Named directions in the latent space of one generator, which edit images: a small safetensors file."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from diffusers import ModelMixin
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .checks import check_choice, check_number
from .style_options import has_styles


DIRECTIONS_FORMAT = "diffusers_ext latent directions"
DIRECTION_SPACES = ("latents", "styles")


@dataclass(frozen=True)
class LatentDirections:
    """
    Directions in which images of one generator change.

    Their unit is the spread of random images: a `strength` of 1 moves an image by one standard deviation, as far as
    the method that found the direction knows it.

    Args:
        vectors (`dict[str, torch.Tensor]`):
            A vector for each name: `(latent_dim,)` in the space of `"latents"`; `(style_dim,)` for all layers or
            `(num_styles, style_dim)` in that of `"styles"`.
        space (`str`):
            `"latents"` (z) or `"styles"` (w and w+).
        generator (`str`):
            The [`latent_fingerprint`] of the generator.
        purposes (`dict[str, str]`):
            What each direction does, or how it was found.
        layers (`dict[str, list[int]]`):
            The layers, from 0 for the coarsest one, whose styles a direction moves, where these are not all.

    Raises:
        ValueError: for vectors that are not finite or of different spaces, and names that do not exist.
    """

    vectors: dict[str, torch.Tensor]
    space: str
    generator: str
    purposes: dict[str, str] = field(default_factory=dict)
    layers: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self):
        check_choice("space", self.space, DIRECTION_SPACES)
        if not self.vectors:
            raise ValueError("`vectors` are empty: there must be one direction or more.")
        dims = (1,) if self.space == "latents" else (1, 2)
        for name, vector in self.vectors.items():
            if not torch.is_tensor(vector) or vector.ndim not in dims or not vector.isfinite().all():
                raise ValueError(f"The direction {name!r} must be a finite tensor of {dims[-1]} dimensions at most.")
        for name in (*self.purposes, *self.layers):
            self._check_name(name)
        if self.layers and self.space == "latents":
            raise ValueError("`layers` are for directions of styles, but these are of latents.")

    def __getitem__(self, name: str) -> torch.Tensor:
        self._check_name(name)
        return self.vectors[name]

    def _check_name(self, name: str):
        if name not in self.vectors:
            raise ValueError(f"There is no direction {name!r}: these are {', '.join(self.vectors)}.")

    @property
    def width(self) -> int:
        """The length of a vector of one layer."""
        return next(iter(self.vectors.values())).shape[-1]

    def check(self, generator: ModelMixin):
        """Refuses a generator with another latent space, with a `ValueError`."""
        self._check_width(generator)
        if latent_fingerprint(generator) != self.generator:
            raise ValueError(
                "These directions were found for another generator. If the latent spaces are related, as after a "
                "fine-tuning, use `directions.moved_to(generator)`."
            )

    def _check_width(self, generator: ModelMixin):
        if self.space == "styles" and not has_styles(generator):
            raise ValueError(f"These directions are for styles, but a {type(generator).__name__} has none.")
        rows, width = None, generator.config.latent_dim
        if self.space == "styles":
            rows, width = generator.num_styles, generator.config.style_dim
        for name, vector in self.vectors.items():
            if vector.shape not in ((width,), (rows, width)):
                raise ValueError(
                    f"The direction {name!r} has the shape {tuple(vector.shape)}, but the {self.space} of the "
                    f"generator have {width} numbers{'' if rows is None else f' in each of {rows} layers'}."
                )
            outside = [layer for layer in self.layers.get(name, ()) if not 0 <= layer < (rows or 0)]
            if outside:
                raise ValueError(f"The direction {name!r} moves layer {outside[0]}, but there are {rows} layers.")

    def moved_to(self, generator: ModelMixin) -> "LatentDirections":
        """
        The same directions for another generator whose latent space is known to be alike.

        Raises:
            ValueError: if the space has another width.
        """
        self._check_width(generator)
        return replace(self, generator=latent_fingerprint(generator))

    def add(
        self, latents: torch.Tensor, name: str, strength: float | torch.Tensor, layers: Sequence[int] | None = None
    ) -> torch.Tensor:
        """
        Latents or styles that are moved.

        Args:
            latents (`torch.Tensor`): `(N, latent_dim)`, or styles of all layers, `(N, num_styles, style_dim)`.
            name (`str`): of the direction.
            strength (`float` or `torch.Tensor` of shape `(N,)`): how far.
            layers (`Sequence[int]`, *optional*): the layers to move, by default those of the direction.

        Returns:
            `torch.Tensor` of the shape of `latents`.
        """
        strength = torch.as_tensor(strength, dtype=latents.dtype, device=latents.device)
        vector = self[name].to(latents)
        if self.space == "latents":
            return latents + strength.view(-1, 1) * vector
        layers = self.layers.get(name) if layers is None else list(layers)
        if layers is not None:
            moved = torch.zeros(latents.shape[1], 1, dtype=latents.dtype, device=latents.device)
            moved[layers] = 1
            vector = moved * vector
        return latents + strength.view(-1, 1, 1) * vector

    def save(self, path: str | os.PathLike):
        """Writes a safetensors file, which appears under its name when it is complete."""
        metadata = {
            "format": DIRECTIONS_FORMAT,
            "space": self.space,
            "generator": self.generator,
            "purposes": json.dumps(self.purposes),
            "layers": json.dumps(self.layers),
        }
        unfinished = f"{os.fspath(path)}.{os.getpid()}.tmp"
        save_file({name: vector.cpu().contiguous() for name, vector in self.vectors.items()}, unfinished, metadata)
        os.replace(unfinished, path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "LatentDirections":
        """
        Reads a file of [`save`].

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is no file of directions.
        """
        if not os.path.isfile(path):
            raise FileNotFoundError(f"There is no file of directions {os.fspath(path)!r}.")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                vectors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        except SafetensorError as error:
            raise ValueError(f"{os.fspath(path)!r} is damaged, or is no safetensors file.") from error
        if metadata.get("format") != DIRECTIONS_FORMAT:
            raise ValueError(f"{os.fspath(path)!r} is no file of directions: its metadata have no such format.")
        purposes, layers = json.loads(metadata["purposes"]), json.loads(metadata["layers"])
        return cls(vectors, metadata["space"], metadata["generator"], purposes, layers)


def latent_fingerprint(generator: ModelMixin) -> str:
    """
    What identifies the latent space of a generator: a hash of the weights that define it.

    These are the weights of the mapping from latents to styles, so that a generator whose images were tuned, but not
    its styles, has the same fingerprint; without a mapping they are all weights. They are rounded to bfloat16, so that
    a generator in float32 and one in bfloat16 have the same fingerprint.
    """
    network = generator.mapping if has_styles(generator) else generator
    digest = hashlib.sha256()
    for name, parameter in sorted(network.named_parameters()):
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        digest.update(parameter.detach().to("cpu", torch.bfloat16).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_strengths(strength: float | Sequence[float] | torch.Tensor, number: int) -> torch.Tensor:
    """One strength for each of `number` images, `(number,)`, from these or from one for all."""
    values = strength.tolist() if torch.is_tensor(strength) else strength
    values = list(values) if isinstance(values, (list, tuple)) else [values] * number
    for value in values:
        check_number("strength", value)
    if len(values) != number:
        raise ValueError(f"`strength` must be one number or {number}, one for each image, but are {len(values)}.")
    return torch.tensor(values, dtype=torch.float32)
