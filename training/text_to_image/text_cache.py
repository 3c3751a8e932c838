"""A cache on the disk for the text embeddings of prompts."""

from collections.abc import Callable
from pathlib import Path

import torch

from diffusers_ext.training.diffusion.encoding_cache import TensorCache, Tensors
from diffusers_ext.training.text_to_image.base_models import BaseModel


class TextCache:
    """The text embeddings of prompts, found by the token ids.

    Args:
        folder (`str` or `Path`, *optional*): the folder of the cache; with `None` nothing is stored.
        base ([`BaseModel`]): tokenises the prompts. Its text encoders are the ones that `encode` uses.
        encode (`Callable`): token ids (1, L) by text encoder -> text embeddings, see [`BaseModel.encode_text`].
        precision (`str`): the precision that `encode` computes in: "no" (float32), "fp16" or "bf16".
        device (`torch.device`): the device of the text encoders.

    Raises:
        ValueError: if a text encoder is trained, so that its embeddings change.
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
            raise ValueError("Text embeddings can't be cached while text encoders are trained: turn off one of them.")
        self._cache = TensorCache(folder, encoders, precision)
        self._base, self._encode, self._device = base, encode, device

    @torch.no_grad()
    def __call__(self, prompts: list[str]) -> Tensors:
        """The text embeddings of prompts: tensors (N, ...) by name, see [`BaseModel.encode_text`]."""
        token_ids = self._base.tokenize(prompts)
        texts = {}  # a prompt that occurs twice, as the empty one often does, is encoded once
        for row, prompt in enumerate(prompts):
            if prompt not in texts:
                texts[prompt] = self._text({name: ids[row : row + 1] for name, ids in token_ids.items()})
        return {name: torch.cat([texts[prompt][name] for prompt in prompts]) for name in texts[prompts[0]]}

    def _text(self, token_ids: Tensors) -> Tensors:
        on_device = {name: ids.to(self._device) for name, ids in token_ids.items()}
        return self._cache.get(token_ids, lambda: self._encode(on_device), self._device)
