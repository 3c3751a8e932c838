"""A cache on the disk for the codes of images."""

from pathlib import Path

import torch

from diffusers_ext.pipelines.image_tokens import ImageTokens
from diffusers_ext.training.diffusion.encoding_cache import TensorCache


class CodeCache:
    """The codes of images, found by the pixels after cropping, flipping and resizing.

    With a folder, images are encoded one by one, so that a code depends on no other image of its batch; without, a
    batch is encoded at once, which is much faster for small networks. The two can differ where an image lies between
    two codes.

    Args:
        folder (`str` or `Path`, *optional*): the folder of the cache; with `None` nothing is stored.
        tokens ([`ImageTokens`]): encodes the images, in float32.
    """

    def __init__(self, folder: str | Path | None, tokens: ImageTokens):
        self._cache = None if folder is None else TensorCache(folder, [tokens.vqvae])
        self._tokens = tokens

    @torch.no_grad()
    def __call__(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Images (N, C, H, W) in [-1, 1] -> codes (N, h, w), int64."""
        with torch.autocast(pixel_values.device.type, enabled=False):
            if self._cache is None:
                return self._tokens.encode(pixel_values)
            return torch.cat([self._stored(image[None]) for image in pixel_values])

    def _stored(self, image: torch.Tensor) -> torch.Tensor:
        inputs, compute = {"pixel_values": image}, lambda: {"codes": self._tokens.encode(image)}
        return self._cache.get(inputs, compute, image.device)["codes"]
