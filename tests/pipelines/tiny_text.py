"""Tiny parts of pipelines with text: a tokenizer of all bytes, a text encoder, and U-Nets that attend to it."""

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from diffusers_ext.training.text_and_image.caption_tokenizer import make_caption_tokenizer


LENGTH = 8
WIDTH = 8


def tiny_tokenizer() -> CLIPTokenizer:
    tokenizer = make_caption_tokenizer(["a red seven", "two blue threes"], 540)
    tokenizer.model_max_length = LENGTH
    return tokenizer


def tiny_text_encoder(vocab_size: int) -> CLIPTextModel:
    torch.manual_seed(1)
    config = CLIPTextConfig(
        vocab_size=vocab_size,
        hidden_size=WIDTH,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        eos_token_id=513,
    )
    return CLIPTextModel(config).eval()


def tiny_text_unet(**changes) -> UNet2DConditionModel:
    """A U-Net of two levels for images of 8 pixels, with random numbers in all layers."""
    options = {
        "sample_size": 8,
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": (8, 8),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4,
        "attention_head_dim": 2,
        "cross_attention_dim": WIDTH,
        "addition_embed_type": "text",
        "addition_embed_type_num_heads": 2,
    }
    torch.manual_seed(0)
    return UNet2DConditionModel(**{**options, **changes}).eval()
