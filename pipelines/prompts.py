"""Prompts that users pass: texts, their tokens, and what a denoiser is told of them."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import ModelMixin, UNet3DConditionModel
from diffusers.models.embeddings import get_timestep_embedding
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .checks import check_positive_int


# Embeddings by which a U-Net adds a text as a whole to the timestep: those of its classes.
POOLED_TYPES = ("identity", "projection", "simple_projection")
NOISE_LEVELS = 1000  # a network is told the level s of the noise in a small image as 1000 s
LEVEL_WIDTH = 16  # of the embedding of such a level beside a text as a whole


def list_prompts(name: str, prompts: str | Sequence[str], count: int | None = None) -> list[str]:
    """
    The prompts in an argument that is one text or a list of texts.

    Args:
        name (`str`): the argument's name, for errors.
        prompts (`str` or `list[str]`): the argument.
        count (`int`, *optional*): how many there must be; a single text is then repeated.

    Raises:
        ValueError: for anything but texts, no text at all, or another number of them.
    """
    texts = [prompts] if isinstance(prompts, str) else prompts
    if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"`{name}` must be a text or a list of texts, but is {prompts!r}.")
    if count is not None and len(texts) not in (1, count):
        raise ValueError(f"`{name}` must be one text or a list of {count}, but is a list of {len(texts)}.")
    return list(texts) * count if count is not None and len(texts) == 1 else list(texts)


def tokenize_prompts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], max_length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The token ids of prompts, filled up to one length, and the mask that is 1 for tokens and 0 for padding.

    Prompts that are longer are cut, with a warning.

    Returns:
        `tuple`: int64 of shape `(N, max_length)` each.
    """
    warn_of_long_prompts(tokenizer, prompts, max_length)
    tokens = tokenizer(
        list(prompts), padding="max_length", truncation=True, max_length=max_length, return_tensors="pt"
    )
    mask = tokens.get("attention_mask")
    return tokens.input_ids, torch.ones_like(tokens.input_ids) if mask is None else mask


def warn_of_long_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], max_length: int):
    """Says which prompts have more tokens than are read."""
    for prompt, ids in zip(prompts, tokenizer(list(prompts), verbose=False).input_ids, strict=True):
        if len(ids) > max_length:
            logging.getLogger(__name__).warning(
                f"The prompt {prompt[:60]!r} has {len(ids)} tokens, but only {max_length} are read: its end has no "
                "effect."
            )


def encode_tokens(
    text_encoder: PreTrainedModel | ModelMixin,
    unet: ModelMixin,
    prompts: Sequence[str],
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """
    What a denoiser is told of texts.

    Args:
        text_encoder ([`PreTrainedModel`] or [`ModelMixin`]): has `last_hidden_state` in its output, and
            `pooler_output` where the denoiser adds the text as a whole to the timestep.
        unet ([`ModelMixin`]): the denoiser, for its configuration.
        prompts (`list[str]`): the texts.
        input_ids, attention_mask (`torch.Tensor` of shape `(N, L)`): their tokens.

    Returns:
        `dict`: the states of all tokens, `encoder_hidden_states` `(N, L, D)`, padding included, to which Imagen and
        GLIDE attend too; perhaps the text as a whole, `class_labels` `(N, D')`; and for a denoiser that
        `hides_prompts_by_mask` the `encoder_attention_mask` `(N, L)`, which is 0 for padding and for the empty text.
    """
    output = text_encoder(input_ids=input_ids, attention_mask=attention_mask)
    told = {"encoder_hidden_states": output.last_hidden_state}
    if takes_pooled_text(unet):
        told["class_labels"] = output.pooler_output
    if getattr(unet, "hides_prompts_by_mask", False):
        has_text = torch.tensor([[prompt != ""] for prompt in prompts], device=attention_mask.device)
        told["encoder_attention_mask"] = attention_mask * has_text
    return told


def encode_film_tokens(
    text_encoder: PreTrainedModel | ModelMixin, input_ids: torch.Tensor, attention_mask: torch.Tensor
) -> dict[str, torch.Tensor]:
    """
    What a denoiser of films is told of texts, as [`film_inputs`] takes it.

    Args:
        text_encoder, input_ids, attention_mask: as in [`encode_tokens`].

    Returns:
        `dict`: `encoder_hidden_states` `(N, L, D)`, and the text as a whole, `text_embeds` `(N, D)`: the state that
        the encoder makes of it, or the mean of the states where it makes none, as T5 (Imagen's mean is learned).
    """
    output = text_encoder(input_ids=input_ids, attention_mask=attention_mask)
    states, pooled = output.last_hidden_state, output.get("pooler_output")
    if pooled is None:
        weights = attention_mask.unsqueeze(-1).to(states.dtype)
        pooled = (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
    return {"encoder_hidden_states": states, "text_embeds": pooled}


def film_inputs(
    unet: ModelMixin, texts: dict[str, torch.Tensor], num_frames: int, noise_levels: torch.Tensor | None = None
) -> dict[str, Any]:
    """
    The arguments of a denoiser for films of `num_frames` frames with these texts.

    A [`UNetMotionModel`] gets the states once for each frame. To its timestep it may add the text as a whole, with the
    number of frames and the noise levels (`addition_embed_type="text_time"`). A [`UNet3DConditionModel`] repeats the
    states by itself, and may add the text as a whole, with embeddings of the noise levels (`time_cond_proj_dim`).

    Args:
        unet ([`ModelMixin`]): the denoiser.
        texts (`dict`): of [`encode_film_tokens`].
        num_frames (`int`): F.
        noise_levels (`torch.Tensor` of shape `(N,)`, *optional*): of the noise in the small films that a
            super-resolver enlarges, from 0 to 1.
    """
    states, pooled = texts["encoder_hidden_states"], texts["text_embeds"]
    levels = [] if noise_levels is None else [NOISE_LEVELS * noise_levels.to(pooled.dtype)]
    if isinstance(unet, UNet3DConditionModel):
        if unet.config.time_cond_proj_dim is None:
            return {"encoder_hidden_states": states}
        embeddings = [get_timestep_embedding(level, LEVEL_WIDTH).to(pooled.dtype) for level in levels]
        return {"encoder_hidden_states": states, "timestep_cond": torch.cat([pooled, *embeddings], dim=1)}
    told = {"encoder_hidden_states": states.repeat_interleave(num_frames, dim=0)}
    if unet.config.addition_embed_type == "text_time":
        numbers = [torch.full_like(pooled[:, 0], num_frames), *levels]
        told["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": torch.stack(numbers, dim=1)}
    return told


def takes_pooled_text(unet: ModelMixin) -> bool:
    """Whether a denoiser adds the text as a whole to the timestep by its embedding of classes, as GLIDE's do."""
    return unet.config.get("class_embed_type") in POOLED_TYPES


def get_max_length(tokenizer: PreTrainedTokenizerBase, text_encoder: Any, max_length: int | None) -> int:
    """
    How many tokens a prompt may have.

    Args:
        tokenizer ([`PreTrainedTokenizerBase`]): limits them by its `model_max_length`.
        text_encoder: limits them by `max_position_embeddings` of its configuration, where it has that.
        max_length (`int`, *optional*): what the pipeline is told.

    Raises:
        ValueError: if nothing limits them, or `max_length` is more than the text encoder reads.
    """
    positions = getattr(text_encoder.config, "max_position_embeddings", None)
    limit = min(tokenizer.model_max_length, positions or tokenizer.model_max_length)
    if max_length is not None:
        check_positive_int("max_prompt_length", max_length)
        if positions is not None and max_length > positions:
            raise ValueError(f"`max_prompt_length` is {max_length}, but the text encoder reads {positions} tokens.")
        return max_length
    if limit > 100_000:  # what transformers has where a tokenizer has no limit
        raise ValueError("Nothing limits the length of prompts: give `max_prompt_length`.")
    return limit


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, text_encoder: Any):
    """Refuses a tokenizer that has more tokens than a text encoder knows, or that can't fill up short prompts."""
    known = getattr(text_encoder.config, "vocab_size", None)
    if known is not None and len(tokenizer) > known:
        raise ValueError(f"`tokenizer` has {len(tokenizer)} tokens, but `text_encoder` knows only {known} of them.")
    if tokenizer.pad_token_id is None:
        raise ValueError("`tokenizer` has no padding token, which fills up short prompts.")


def check_text_encoder(tokenizer: PreTrainedTokenizerBase, text_encoder: Any, unet: ModelMixin):
    """Refuses a tokenizer that does not fit a text encoder, and states that a denoiser does not read."""
    check_tokenizer(tokenizer, text_encoder)
    width = getattr(text_encoder.config, "hidden_size", None)
    read = unet.config.get("encoder_hid_dim") or unet.config.get("cross_attention_dim")
    if None not in (read, width) and isinstance(read, int) and read != width:
        raise ValueError(f"`text_encoder` has states of {width} channels, but `unet` attends to {read}.")
