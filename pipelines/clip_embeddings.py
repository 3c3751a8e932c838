"""What a CLIP makes of prompts and of images: embeddings in one space, and the states of the tokens of prompts."""

from typing import NamedTuple

import torch
from torch.nn import functional as F
from transformers import (
    CLIPImageProcessor,
    CLIPTextModelWithProjection,
    CLIPVisionModelWithProjection,
    PreTrainedTokenizerBase,
)

from .prompts import tokenize_prompts


class PromptEmbeddings(NamedTuple):
    """
    What networks are told about N prompts.

    Attributes:
        embeds (`torch.Tensor` of shape `(N, D)`): the embedding of each prompt, of any length.
        hidden_states (`torch.Tensor` of shape `(N, L, W)`): the states of its tokens.
        mask (`torch.Tensor` of shape `(N, L)`): `True` for tokens of the prompt, `False` for padding.
    """

    embeds: torch.Tensor
    hidden_states: torch.Tensor
    mask: torch.Tensor

    def repeat(self, count: int) -> "PromptEmbeddings":
        """Each prompt `count` times, next to each other."""
        return PromptEmbeddings(*(part.repeat_interleave(count, dim=0) for part in self))

    def split(self, count: int) -> tuple["PromptEmbeddings", "PromptEmbeddings"]:
        """The first `count` prompts, and the others."""
        return PromptEmbeddings(*(part[:count] for part in self)), PromptEmbeddings(*(part[count:] for part in self))


def embed_prompts(
    tokenizer: PreTrainedTokenizerBase, text_encoder: CLIPTextModelWithProjection, prompts: list[str]
) -> PromptEmbeddings:
    """The embeddings of prompts; those that are longer than the network reads are cut, with a warning."""
    return embed_tokens(
        text_encoder, *tokenize_prompts(tokenizer, prompts, text_encoder.config.max_position_embeddings)
    )


def embed_with_empty(
    tokenizer: PreTrainedTokenizerBase, text_encoder: CLIPTextModelWithProjection, prompts: list[str], count: int
) -> tuple[PromptEmbeddings, PromptEmbeddings]:
    """The embeddings of prompts, `count` times each, next to each other, and so many of an empty text."""
    text, empty_text = embed_prompts(tokenizer, text_encoder, [*prompts, ""]).split(len(prompts))
    return text.repeat(count), empty_text.repeat(len(prompts) * count)


def embed_tokens(
    text_encoder: CLIPTextModelWithProjection, input_ids: torch.Tensor, attention_mask: torch.Tensor
) -> PromptEmbeddings:
    """The embeddings of prompts, of which these are the tokens `(N, L)` and the mask that is 0 for padding."""
    output = text_encoder(input_ids.to(text_encoder.device))
    mask = attention_mask.bool().to(text_encoder.device)
    return PromptEmbeddings(output.text_embeds, output.last_hidden_state, mask)


def embed_images(
    image_encoder: CLIPVisionModelWithProjection, image_processor: CLIPImageProcessor, images: torch.Tensor
) -> torch.Tensor:
    """The embeddings `(N, D)`, of any length, of images `(N, C, H, W)` in `[0, 1]`, which are resized for the CLIP."""
    side = image_encoder.config.image_size
    if tuple(images.shape[2:]) != (side, side):
        images = F.interpolate(images, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
    pixels = normalized_pixels(image_processor, images).to(image_encoder.dtype)
    return image_encoder(pixel_values=pixels).image_embeds


def normalized_pixels(image_processor: CLIPImageProcessor, images: torch.Tensor) -> torch.Tensor:
    """Images `(N, C, H, W)` in `[0, 1]` with the mean and the deviation of each channel that a CLIP knows."""
    mean, std = (images.new_tensor(v).view(-1, 1, 1) for v in (image_processor.image_mean, image_processor.image_std))
    return (images - mean) / std
