"""CLIP with a vision transformer, as transformers' CLIPModel, or with a residual network, as CLIPResNetModel."""

import math

import torch
from transformers import CLIPModel

from diffusers_ext.converters.clip_layout import (
    load_vit_clip,
    read_text_sizes,
    read_vision_sizes,
    without_unused,
)
from diffusers_ext.converters.original_arguments import anything, check_agreement, checked, positive_integer
from diffusers_ext.converters.state_dicts import StateDict, count_blocks, has, size_of
from diffusers_ext.converters.weight_mapping import Modules, load_converted
from diffusers_ext.models.modeling_clip_resnet import CLIPResNetModel


HEAD_WIDTH = 64  # of every tower
INTEGERS = (
    "embed_dim",
    "image_resolution",
    "vision_width",
    "context_length",
    "vocab_size",
    "transformer_width",
    "transformer_heads",
    "transformer_layers",
)
CLIP_ARGUMENTS = {
    **dict.fromkeys(INTEGERS, positive_integer),
    "vision_layers": anything,  # a number, or the four of a residual network
    "vision_patch_size": anything,  # None for a residual network
}


def convert_clip(state_dict: StateDict, **config) -> CLIPModel | CLIPResNetModel:
    r"""
    A `CLIP` of https://github.com/openai/CLIP (Radford et al. 2021, https://huggingface.co/papers/2103.00020).

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Arguments of the original's constructor. The tensors show all of them but `transformer_heads`, a 64th of
            the width unless it is given; those that are given must agree with the tensors.

    Returns:
        [`CLIPModel`] or [`CLIPResNetModel`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict
            the tensors.
    """
    config, state_dict = checked(config, CLIP_ARGUMENTS), without_unused(state_dict)
    sizes = read_text_sizes(state_dict)
    is_resnet = has(state_dict, "visual.layer1")
    sizes |= _read_resnet_sizes(state_dict) if is_resnet else read_vision_sizes(state_dict)
    heads = config.get("transformer_heads", max(1, sizes["transformer_width"] // HEAD_WIDTH))
    check_agreement(config, config, {**sizes, "transformer_heads": heads})
    if is_resnet:
        return _load_resnet(state_dict, sizes, heads)
    vision_heads = max(1, sizes["vision_width"] // HEAD_WIDTH)
    return load_vit_clip(state_dict, sizes, text_heads=heads, vision_heads=vision_heads, activation="quick_gelu")


def _read_resnet_sizes(state_dict: StateDict) -> dict:
    side = math.isqrt(size_of(state_dict, {"visual.attnpool.positional_embedding": 0}) - 1)
    return {
        "image_resolution": 32 * side,
        "vision_layers": [count_blocks(state_dict, f"visual.layer{level}") for level in (1, 2, 3, 4)],
        "vision_width": size_of(state_dict, {"visual.conv3.weight": 0, "visual.bn3.weight": 0}),
        "vision_patch_size": None,
    }


def _load_resnet(state_dict: StateDict, sizes: dict, text_heads: int) -> CLIPResNetModel:
    config = {
        "sample_size": sizes["image_resolution"],
        "in_channels": size_of(state_dict, {"visual.conv1.weight": 1}),
        "layers": tuple(sizes["vision_layers"]),
        "width": sizes["vision_width"],
        "head_dim": HEAD_WIDTH,
        "vocab_size": sizes["vocab_size"],
        "max_length": sizes["context_length"],
        "text_dim": sizes["transformer_width"],
        "num_text_layers": sizes["transformer_layers"],
        "num_text_heads": text_heads,
        "projection_dim": sizes["embed_dim"],
        "activation": "quick_gelu",
        "eos_token_id": sizes["vocab_size"] - 1,
    }

    def prepare(key: str, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.T if key == "text_projection" else tensor

    shapes = {"text_projection": (sizes["transformer_width"], sizes["embed_dim"])}
    modules = _resnet_modules(sizes["vision_layers"], sizes["transformer_layers"])
    return load_converted(CLIPResNetModel, config, modules, state_dict, prepare, other_shapes=shapes)


def _resnet_modules(layers: list[int], text_layers: int) -> Modules:
    modules: Modules = {
        "token_embedding": "text_tower.token_embedding",
        "positional_embedding": "text_tower.position_embedding",
        "ln_final": "text_tower.norm_out",
        "text_projection": "text_tower.proj_out.weight",
        "logit_scale": "logit_scale",
        "visual.attnpool.positional_embedding": "pool.position_embedding",
        "visual.attnpool.c_proj": "pool.to_out",
        **{f"visual.attnpool.{name}_proj": f"pool.to_{name}" for name in "qkv"},
    }
    for i in (1, 2, 3):
        modules |= {f"visual.conv{i}": f"conv{i}", f"visual.bn{i}": f"norm{i}"}
    blocks = [(level + 1, block) for level, count in enumerate(layers) for block in range(count)]
    for target, (level, block) in enumerate(blocks):
        source = f"visual.layer{level}.{block}"
        for i in (1, 2, 3):
            modules |= {f"{source}.conv{i}": f"blocks.{target}.conv{i}", f"{source}.bn{i}": f"blocks.{target}.norm{i}"}
        modules |= {
            f"{source}.downsample.0": f"blocks.{target}.conv_skip",
            f"{source}.downsample.1": f"blocks.{target}.norm_skip",
        }
    for layer in range(text_layers):
        source, target = f"transformer.resblocks.{layer}", f"text_tower.blocks.{layer}"
        modules |= {
            f"{source}.attn.in_proj": tuple(f"{target}.to_{name}" for name in "qkv"),
            f"{source}.attn.out_proj": f"{target}.to_out",
            f"{source}.ln_1": f"{target}.norm1",
            f"{source}.ln_2": f"{target}.norm2",
            f"{source}.mlp.c_fc": f"{target}.linear_1",
            f"{source}.mlp.c_proj": f"{target}.linear_2",
        }
    return modules
