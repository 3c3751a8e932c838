"""Caches on the disk for the encodings of images and prompts by frozen networks.

Latents are stored as moments, from which each step draws a new sample. The name of a file is a digest of the inputs
and of the encoder's weights, so a file never goes out of date. Runs, and the processes of one run, can share a cache:
a file is written under a temporary name and renamed, and a second writer replaces it by an equal one. A damaged file
is computed again.

Rows are encoded one by one, with a cache or without. The encoding of a row therefore does not depend on the other rows
of its batch, and runs with a cache, without one, and resumed runs are equal bit for bit.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from diffusers_ext.atomic import write_bytes_atomically
from diffusers_ext.pipelines.latent_space import LatentSpace
from diffusers_ext.training.loop.weights import weights_fingerprint


Tensors = dict[str, torch.Tensor]


class TensorCache:
    """The outputs of networks, one file for each input.

    Args:
        folder (`str` or `Path`, *optional*): the folder of the files; with `None` nothing is stored.
        networks (`Iterable[torch.nn.Module]`): the encoders, with the weights that they encode with.
        precision (`str`): the precision that they compute in: "no" (float32), "fp16" or "bf16".
    """

    def __init__(self, folder: str | Path | None, networks: Iterable[torch.nn.Module], precision: str = "no"):
        self.folder = None if folder is None else Path(folder)
        self.fingerprint = "" if folder is None else f"{weights_fingerprint(*networks)} {precision}"

    def get(self, inputs: Tensors, compute: Callable[[], Tensors], device: torch.device) -> Tensors:
        """The encoding of `inputs`, on `device`: from the disk, or else computed by `compute` and stored."""
        if self.folder is None:
            return compute()
        key = _digest(inputs, self.fingerprint)
        path = self.folder / key[:2] / f"{key}.safetensors"
        tensors = _read(path)
        if tensors is None:
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in compute().items()}
            write_bytes_atomically(path, save(tensors, {"digest": _digest(tensors)}))
        return {name: tensor.to(device) for name, tensor in tensors.items()}


class MomentCache:
    """The moments of images, found by the pixels after cropping, flipping and resizing.

    A random crop or a flip makes another image, so a cache helps most without them (`--center_crop`, or buckets).

    Args:
        folder (`str` or `Path`, *optional*): the folder of the cache; with `None` nothing is stored.
        space ([`LatentSpace`]): encodes the images, in float32.
    """

    def __init__(self, folder: str | Path | None, space: LatentSpace):
        self._cache, self._space = TensorCache(folder, [space.vae]), space

    @torch.no_grad()
    def __call__(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Images (N, C, H, W) in [-1, 1] -> moments; see [`LatentSpace.encode_moments`]."""
        with torch.autocast(pixel_values.device.type, enabled=False):
            return torch.cat([self._moments(image[None]) for image in pixel_values])

    def _moments(self, image: torch.Tensor) -> torch.Tensor:
        inputs, compute = {"pixel_values": image}, lambda: {"moments": self._space.encode_moments(image)}
        return self._cache.get(inputs, compute, image.device)["moments"]


def _read(path: Path) -> Tensors | None:
    """The tensors of a file; `None` if it does not exist or is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            is_whole = (file.metadata() or {}).get("digest") == _digest(tensors)
    except (FileNotFoundError, SafetensorError):
        return None
    return tensors if is_whole else None


def _digest(tensors: Tensors, salt: str = "") -> str:
    """32 hexadecimal digits that identify tensors, by name, type, shape and content."""
    content = hashlib.blake2b(salt.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return content.hexdigest()
