"""Inputs of a translation that are made from the target images: edges, grayscale, low resolution and so on."""

from collections.abc import Sequence

import torch

from diffusers_ext.data import derive_seed
from diffusers_ext.data.corruptions import TRANSLATION_INPUTS, load_corruptions
from diffusers_ext.data.untrained_fills import visible
from diffusers_ext.training.loop.draws import Draw


class MadeInputs:
    """Makes the input of a generator from the image that it should produce.

    Args:
        name (`str`): "edges", a restoration task, or a function `module:function`; see [`load_corruptions`].
        options (`dict`): its keywords.
        seed (`int`): of what is random about the inputs of images that are measured.
        channels, size: of the images, for a trial run.

    Raises:
        ValueError, ImportError: if the task does not exist, or can't handle such images or options.
    """

    def __init__(self, name: str, options: dict, seed: int, channels: int, size: tuple[int, int]):
        options = {name: options} if options else None
        (self._corrupt,) = load_corruptions([name], options, TRANSLATION_INPUTS).values()
        self._seed = derive_seed(seed, "inputs", name)
        self.of(torch.zeros(1, channels, *size), [0])  # options are checked by use

    def __call__(self, images: torch.Tensor, draw: Draw) -> torch.Tensor:
        """The inputs for images (N, C, H, W), both in [-1, 1]; hidden pixels are gray."""
        return visible(self._corrupt(images, draw))

    def of(self, images: torch.Tensor, indices: Sequence[int]) -> torch.Tensor:
        """The inputs for the images of these indices in a data set, the same ones whenever they are measured."""
        return self(images, Draw(self._seed, images.device).begin(0, indices))
