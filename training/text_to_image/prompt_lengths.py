"""Prompts that are longer than the text encoders of a base read, so that their ends have no effect."""

import logging
from collections.abc import Iterable, Sequence

from diffusers_ext.training.text_to_image.base_models import BaseModel


logger = logging.getLogger(__name__)

_SHOWN, _LETTERS = 3, 60  # how many prompts a sentence names, and how much of each


def find_cut_prompts(base: BaseModel, prompts: Iterable[str]) -> list[str]:
    """The prompts whose end no text encoder of the base reads, each once."""
    shortest = min(base.max_length(name) for name in base.text_encoders)
    # A token has at least one letter, and two tokens mark the ends: most prompts need no tokenizer.
    long = [prompt for prompt in dict.fromkeys(prompts) if prompt and len(prompt.encode()) > shortest - 2]
    if not long:
        return []
    lengths = [base.num_tokens(name, long) for name in base.text_encoders]
    limits = [base.max_length(name) for name in base.text_encoders]
    return [
        prompt
        for prompt, *counts in zip(long, *lengths, strict=True)
        if all(count > limit for count, limit in zip(counts, limits, strict=True))
    ]


def warn_of_cut_prompts(base: BaseModel, prompts: Sequence[str], kind: str) -> None:
    """Say how many prompts are cut off, and which; `kind` says what they are, such as "captions"."""
    cut = find_cut_prompts(base, prompts)
    if cut:
        logger.warning(
            f"{len(cut)} of {len(set(prompts))} {kind} are longer than the text encoders of {base.name} read "
            f"({_limit(base)} tokens): their ends have no effect. {_some(cut)}"
        )


def refuse_cut_prompts(base: BaseModel, prompts: Sequence[str | None], option: str) -> None:
    """Refuse prompts that are cut off.

    Raises:
        ValueError: naming `option` and the first of them.
    """
    cut = find_cut_prompts(base, [prompt for prompt in prompts if prompt is not None])
    if cut:
        raise ValueError(
            f"{option} {cut[0]!r} is longer than the text encoders of {base.name} read ({_limit(base)} tokens), so "
            "that its end would have no effect: shorten it."
        )


def _limit(base: BaseModel) -> int:
    return max(base.max_length(name) for name in base.text_encoders)


def _some(prompts: list[str]) -> str:
    shown = [prompt if len(prompt) <= _LETTERS else f"{prompt[:_LETTERS]}..." for prompt in prompts[:_SHOWN]]
    more = f" and {len(prompts) - _SHOWN} more" if len(prompts) > _SHOWN else ""
    return f"These are {', '.join(map(repr, shown))}{more}."
