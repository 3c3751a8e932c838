"""Sequences of tokens for transformers that predict one token after the other: texts in front, and draws."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase


def count_text_tokens(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens of a vocabulary are for texts: those of the tokenizer, and one that fills up each position."""
    return len(tokenizer) + tokenizer.model_max_length


def get_text_prefix(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], num_codes: int, device: torch.device
) -> torch.Tensor:
    """
    The tokens `(N, L)` of texts, in a vocabulary where those of the tokenizer come after the codes.

    Short texts are filled up to `tokenizer.model_max_length` with a token of its own at each position (Ramesh et al.
    2021, section 2.2, https://huggingface.co/papers/2102.12092); longer ones are cut.
    """
    length = tokenizer.model_max_length
    tokens = tokenizer(list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    ids, mask = tokens.input_ids.to(device), tokens.attention_mask.to(device)
    return torch.where(mask > 0, ids + num_codes, get_null_prefix(tokenizer, num_codes, device))


def get_null_prefix(tokenizer: PreTrainedTokenizerBase, num_codes: int, device: torch.device) -> torch.Tensor:
    """The tokens `(1, L)` of no text: those that fill up each position."""
    positions = torch.arange(tokenizer.model_max_length, device=device)
    return (num_codes + len(tokenizer) + positions)[None]


def draw_codes(
    logits: torch.Tensor,
    uniforms: torch.Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> torch.Tensor:
    """
    Draws codes by the inverse of their cumulative distribution.

    Args:
        logits (`torch.Tensor` of shape `(N, K)`): of the codes.
        uniforms (`torch.Tensor` of shape `(N,)`): uniform numbers in `[0, 1)`.
        temperature (`float`): divides the logits.
        top_k (`int`, *optional*): only the so many most probable codes are drawn.
        top_p (`float`, *optional*): only the most probable codes are drawn that together have this probability
            (Holtzman et al. 2020, section 3.1, https://huggingface.co/papers/1904.09751).

    Returns:
        `torch.Tensor` of shape `(N,)`: int64.
    """
    logits = logits.float() / temperature
    if top_k is not None and top_k < logits.shape[1]:
        least = logits.topk(top_k, dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    probabilities = logits.softmax(dim=1)
    if top_p is not None:
        ordered, places = probabilities.sort(dim=1, descending=True)
        before = ordered.cumsum(dim=1) - ordered
        probabilities = torch.zeros_like(ordered).scatter(1, places, ordered.masked_fill(before >= top_p, 0))
    cumulative = probabilities.cumsum(dim=1)
    cumulative = cumulative / cumulative[:, -1:]  # so that no code is drawn after the last possible one
    return (uniforms[:, None] >= cumulative[:, :-1]).sum(dim=1)
