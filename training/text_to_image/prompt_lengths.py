"""Prompts that are longer than the text encoders of a base read, so that their ends have no effect."""

import logging
from collections.abc import Callable, Iterable, Sequence

from diffusers_ext.training.text_to_image.base_models import BaseModel


logger = logging.getLogger(__name__)

_SHOWN, _LETTERS = 3, 60  # how many prompts a sentence names, and how much of each

NumTokens = Callable[[str, list[str]], list[int]]  # how many tokens prompts have for a text encoder of this name


def find_cut_prompts(
    base: BaseModel, prompts: Iterable[str], num_tokens: NumTokens | None = None
) -> dict[str, tuple[str, ...]]:
    """The prompts that are cut off, with the names of the text encoders that do not read their ends.

    Args:
        base ([`BaseModel`]): the base.
        prompts (`Iterable[str]`): the prompts.
        num_tokens (`Callable`, *optional*): counts tokens, by default `base.num_tokens`. With a new word, a prompt
            has more.
    """
    limits = {name: base.max_length(name) for name in base.text_encoders}
    prompts = [prompt for prompt in dict.fromkeys(prompts) if prompt]
    if num_tokens is None:
        # A token has at least one letter, and two tokens mark the ends: most prompts need no tokenizer.
        num_tokens = base.num_tokens
        prompts = [prompt for prompt in prompts if len(prompt.encode()) > min(limits.values()) - 2]
    if not prompts:
        return {}
    lengths = {name: num_tokens(name, prompts) for name in limits}
    cut = {
        prompt: tuple(name for name, limit in limits.items() if lengths[name][row] > limit)
        for row, prompt in enumerate(prompts)
    }
    return {prompt: names for prompt, names in cut.items() if names}


def warn_of_cut_prompts(
    base: BaseModel, prompts: Sequence[str], kind: str, num_tokens: NumTokens | None = None
) -> None:
    """Say how many prompts are cut off, and which; `kind` says what they are, such as "captions"."""
    cut = find_cut_prompts(base, prompts, num_tokens)
    for names in dict.fromkeys(cut.values()):
        own = [prompt for prompt in cut if cut[prompt] == names]
        readers = [name for name in base.text_encoders if name not in names]
        if readers:
            limit = f"{', '.join(names)} of {base.name} read ({_limit(base, names)} tokens)"
            effect = f"only {', '.join(readers)} ({_limit(base, readers)} tokens) reads their ends"
        else:
            limit = f"the text encoders of {base.name} read ({_limit(base, names)} tokens)"
            effect = "their ends have no effect"
        logger.warning(f"{len(own)} of {len(set(prompts))} {kind} are longer than {limit}: {effect}. {_some(own)}")


def refuse_cut_prompts(base: BaseModel, prompts: Sequence[str | None], option: str) -> None:
    """Refuse prompts whose end no text encoder reads.

    Raises:
        ValueError: naming `option` and the first of them.
    """
    cut = find_cut_prompts(base, [prompt for prompt in prompts if prompt is not None])
    for prompt, names in cut.items():
        if len(names) == len(base.text_encoders):
            raise ValueError(
                f"{option} {prompt!r} is longer than the text encoders of {base.name} read ({_limit(base, names)} "
                "tokens), so that its end would have no effect: shorten it."
            )


def _limit(base: BaseModel, names: Iterable[str]) -> int:
    return max(base.max_length(name) for name in names)


def _some(prompts: list[str]) -> str:
    shown = [prompt if len(prompt) <= _LETTERS else f"{prompt[:_LETTERS]}..." for prompt in prompts[:_SHOWN]]
    more = f" and {len(prompts) - _SHOWN} more" if len(prompts) > _SHOWN else ""
    return f"These are {', '.join(map(repr, shown))}{more}."
