"""What frozen networks make of images and prompts, computed once and kept on the disk.

Latents are kept as moments, from which every step draws anew. A file is found by what was encoded and by the weights
that encoded it, so it is never out of date; it can be shared by runs, and by the processes of one: files are written
beside and renamed, and whoever comes second replaces a file by its equal. A damaged file is made again.

Rows are encoded one by one, with a cache or without: what a row becomes then does not depend on the rows beside it,
and a run with caches, one without and one that was resumed are equal bit for bit.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from diffusers_ext.hub.atomic import write_bytes_atomically
from diffusers_ext.training.text_to_image.base_models import BaseModel, weights_fingerprint


Tensors = dict[str, torch.Tensor]


class TensorCache:
    """What networks make of tensors, each answer in a file of its own.

    Args:
        folder (`str` or `Path`, *optional*): where the files are; `None` keeps nothing.
        networks (`Iterable[torch.nn.Module]`): those that encode, as they will be when they do.
        precision (`str`): that in which they compute, as Accelerate calls it.
    """

    def __init__(self, folder: str | Path | None, networks: Iterable[torch.nn.Module], precision: str = "no"):
        self.folder = None if folder is None else Path(folder)
        self.fingerprint = "" if folder is None else f"{weights_fingerprint(*networks)} {precision}"

    def get(self, inputs: Tensors, compute: Callable[[], Tensors], device: torch.device) -> Tensors:
        """The tensors made of `inputs`, on `device`: those on the disk, or else what `compute` returns and is kept."""
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
    """The moments of images, by their pixels: crop, flip and size are in these.

    A crop at random or a flip makes another image: a cache is of most use without (`--center_crop`, or buckets).

    Args:
        folder (`str` or `Path`, *optional*): where they are kept; `None` keeps none.
        base (`BaseModel`): encodes.
    """

    def __init__(self, folder: str | Path | None, base: BaseModel):
        self._cache, self._base = TensorCache(folder, [base.vae]), base

    def __call__(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) in [-1, 1] -> moments (N, 2C, h, w); see [`BaseModel.encode_moments`]."""
        return torch.cat([self._moments(image[None]) for image in pixel_values])

    def _moments(self, image: torch.Tensor) -> torch.Tensor:
        inputs, compute = {"pixel_values": image}, lambda: {"moments": self._base.encode_moments(image)}
        return self._cache.get(inputs, compute, image.device)["moments"]


class TextCache:
    """What the denoiser reads of prompts, by their token ids.

    Args:
        folder (`str` or `Path`, *optional*): where it is kept; `None` keeps nothing.
        base (`BaseModel`): tokenises; its text encoders are those that encode.
        encode (`Callable`): token ids (1, L) by text encoder -> "prompt_embeds" (1, L, D) and what else there is.
        precision (`str`): that in which `encode` computes, as Accelerate calls it.
        device (`torch.device`): where the text encoders are.

    Raises:
        ValueError: if a text encoder learns, and so has no fixed answer.
    """

    def __init__(
        self,
        folder: str | Path | None,
        base: BaseModel,
        encode: Callable[[Tensors], Tensors],
        precision: str,
        device: torch.device,
    ):
        encoders = base.text_encoders.values()
        if folder is not None and any(weight.requires_grad for encoder in encoders for weight in encoder.parameters()):
            raise ValueError("Text embeddings can't be cached while text encoders learn: leave one of the two out.")
        self._cache = TensorCache(folder, encoders, precision)
        self._base, self._encode, self._device = base, encode, device

    @torch.no_grad()
    def __call__(self, prompts: list[str]) -> Tensors:
        """What the denoiser reads of prompts: tensors (N, ...) by name; see [`BaseModel.encode_text`]."""
        token_ids = self._base.tokenize(prompts)
        texts = {}  # a prompt that comes twice, as the empty one does, is encoded once
        for row, prompt in enumerate(prompts):
            if prompt not in texts:
                texts[prompt] = self._text({name: ids[row : row + 1] for name, ids in token_ids.items()})
        return {name: torch.cat([texts[prompt][name] for prompt in prompts]) for name in texts[prompts[0]]}

    def _text(self, token_ids: Tensors) -> Tensors:
        on_device = {name: ids.to(self._device) for name, ids in token_ids.items()}
        return self._cache.get(token_ids, lambda: self._encode(on_device), self._device)


def _read(path: Path) -> Tensors | None:
    """The tensors of a file; `None` if there is none, or if it is damaged."""
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
