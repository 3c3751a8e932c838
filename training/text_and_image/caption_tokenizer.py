"""Tokenizers for captions: one that is made from them, or a given one, and the token ids that networks read."""

import json
import logging
from collections.abc import Iterable, Sequence

import torch
from transformers import AutoTokenizer, CLIPTokenizer, PreTrainedTokenizerBase


logger = logging.getLogger(__name__)

START, END = "<|startoftext|>", "<|endoftext|>"
_SHOWN = 60  # letters of a caption in a message


def make_caption_tokenizer(captions: Iterable[str], vocabulary_size: int = 1000) -> CLIPTokenizer:
    """A tokenizer in CLIP's form that knows all bytes, so that it reads any text, and frequent pieces of the captions.

    Args:
        captions (`Iterable[str]`): the texts to learn from.
        vocabulary_size (`int`): at most so many tokens, and at least 514; few captions have fewer pieces of words.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in printable]
    letters += [chr(256 + index) for index in range(256 - len(printable))]  # as GPT-2's tokenizer writes other bytes
    words = [*letters, *(f"{letter}</w>" for letter in letters), START, END]
    bytes_only = CLIPTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[])
    learned = bytes_only.train_new_from_iterator(captions, vocabulary_size, show_progress=False)
    merges = [tuple(pair) for pair in json.loads(learned.backend_tokenizer.to_str())["model"]["merges"]]
    words += ["".join(pair) for pair in merges]
    return CLIPTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=merges)


def load_tokenizer(name: str, cache_dir: str | None, option: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a local folder or a Hub name; a pipeline of diffusers has it in a subfolder.

    Raises:
        ValueError: naming the option, if there is none, or if it can't fill texts up to one length.
    """
    tokenizer = None
    for subfolder in ("", "tokenizer"):
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, cache_dir=cache_dir, subfolder=subfolder)
            break
        except (OSError, ValueError, KeyError):
            continue
    if tokenizer is None:
        raise ValueError(f"{option}: there is no tokenizer in {name}.")
    if tokenizer.pad_token_id is None:
        raise ValueError(f"{option}: the tokenizer of {name} has no padding token, which fills up short captions.")
    return tokenizer


def longest_caption(tokenizer: PreTrainedTokenizerBase, captions: Sequence[str]) -> int:
    """The number of tokens of the longest caption, those that mark its ends included."""
    return max(len(ids) for ids in tokenizer(list(captions), truncation=False, verbose=False).input_ids)


def warn_of_cut_captions(tokenizer: PreTrainedTokenizerBase, captions: Sequence[str], max_length: int) -> None:
    """Say how many captions are longer than a network of `max_length` tokens reads."""
    lengths = [len(ids) for ids in tokenizer(list(captions), truncation=False, verbose=False).input_ids]
    cut = [caption for caption, length in zip(captions, lengths, strict=True) if length > max_length]
    if cut:
        logger.warning(
            f"{len(cut)} of {len(captions)} captions are longer than the text encoder reads ({max_length} tokens): "
            f"their ends have no effect. The first is {cut[0][:_SHOWN]!r}."
        )


def tokenize(
    tokenizer: PreTrainedTokenizerBase, captions: Sequence[str], max_length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and the mask of those that are no padding, int64 (N, max_length) each; longer captions are cut."""
    tokens = tokenizer(
        list(captions), padding="max_length", truncation=True, max_length=max_length, return_tensors="pt"
    )
    mask = tokens.get("attention_mask")
    return tokens.input_ids, torch.ones_like(tokens.input_ids) if mask is None else mask
