"""Inputs of a translation that are made of the images themselves: edges, grayscale, low resolution and so on."""

from collections.abc import Sequence

import torch

from diffusers_ext.data import derive_seed
from diffusers_ext.data.corruptions import load_corruptions
from diffusers_ext.data.untrained_fills import visible
from diffusers_ext.training.loop.draws import Draw


# Beside the restoration tasks.
OWN_INPUTS = {"edges": "diffusers_ext.data.edges:edges"}


class MadeInputs:
    """What a generator is shown of images that come without inputs.

    Args:
        name (`str`): "edges", a restoration task, or a function `module:function`; see [`load_corruptions`].
        options (`dict`): its keywords.
        seed (`int`): of what is random in the inputs of images that are measured.
        channels, size: of the images, for a check.

    Raises:
        ValueError, ImportError: if there is no such task, or if it can't do with such images or options.
    """

    def __init__(self, name: str, options: dict, seed: int, channels: int, size: tuple[int, int]):
        path = OWN_INPUTS.get(name, name)
        (self._corrupt,) = load_corruptions([path], {path: options} if options else None).values()
        self._seed = derive_seed(seed, "inputs", name)
        self.of(torch.zeros(1, channels, *size), [0])  # options are checked by use

    def __call__(self, images: torch.Tensor, draw: Draw) -> torch.Tensor:
        """The inputs of images (N, C, H, W), both in [-1, 1]; what is hidden is gray."""
        return visible(self._corrupt(images, draw))

    def of(self, images: torch.Tensor, indices: Sequence[int]) -> torch.Tensor:
        """The same for the images of these indices in a data set, where what is random depends on the index alone."""
        return self(images, Draw(self._seed, images.device).begin(0, indices))
