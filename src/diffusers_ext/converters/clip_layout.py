"""The layout of CLIP's tensors, which openai/CLIP and open_clip share."""

import math

import torch
from transformers import CLIPConfig, CLIPModel

from diffusers_ext.converters.state_dicts import StateDict, check_parts, count_blocks, size_of
from diffusers_ext.converters.weight_mapping import Modules, load_converted


# Buffers of OpenAI's archives, which repeat sizes; and the causal mask, which older versions of open_clip saved.
UNUSED = ("input_resolution", "context_length", "vocab_size", "attn_mask")


def without_unused(state_dict: StateDict) -> dict[str, torch.Tensor]:
    """The tensors that are weights, with in_proj_weight and in_proj_bias as the weight and bias of one module."""
    renamed = {key.replace("in_proj_", "in_proj."): tensor for key, tensor in state_dict.items()}
    return {key: tensor for key, tensor in renamed.items() if key not in UNUSED}


def read_text_sizes(state_dict: StateDict) -> dict[str, int]:
    """What the tensors show of the text tower, by the names of OpenAI's arguments."""
    check_parts(state_dict, "a CLIP", "visual", "transformer", "token_embedding", "ln_final")
    width = size_of(state_dict, {"ln_final.weight": 0, "ln_final.bias": 0, "positional_embedding": 1})
    return {
        "context_length": size_of(state_dict, {"positional_embedding": 0}),
        "vocab_size": size_of(state_dict, {"token_embedding.weight": 0}),
        "transformer_width": width,
        "transformer_layers": count_blocks(state_dict, "transformer.resblocks"),
        "embed_dim": size_of(state_dict, {"text_projection": 1}),
    }


def read_vision_sizes(state_dict: StateDict) -> dict[str, int]:
    """What the tensors show of a vision transformer, by the names of OpenAI's arguments."""
    patch_size = size_of(state_dict, {"visual.conv1.weight": 2})
    num_patches = size_of(state_dict, {"visual.positional_embedding": 0}) - 1
    return {
        "image_resolution": math.isqrt(num_patches) * patch_size,
        "vision_layers": count_blocks(state_dict, "visual.transformer.resblocks"),
        "vision_width": size_of(state_dict, {"visual.conv1.weight": 0, "visual.ln_pre.weight": 0}),
        "vision_patch_size": patch_size,
    }


def load_vit_clip(
    state_dict: StateDict, sizes: dict, *, text_heads: int, vision_heads: int, activation: str
) -> CLIPModel:
    """A [`CLIPModel`] with these weights, in eval mode and float32.

    Args:
        state_dict (`Mapping`): the tensors, after `without_unused`.
        sizes (`dict`): those of `read_text_sizes` and `read_vision_sizes`.
        text_heads, vision_heads (`int`): the attention heads of the towers.
        activation (`str`): transformers' name of that of both towers.
    """
    inner = {
        tower: size_of(state_dict, {f"{prefix}transformer.resblocks.0.mlp.c_fc.weight": 0})
        for tower, prefix in (("text", ""), ("vision", "visual."))
    }
    end = sizes["vocab_size"] - 1
    text = {
        "hidden_size": sizes["transformer_width"],
        "intermediate_size": inner["text"],
        "num_hidden_layers": sizes["transformer_layers"],
        "num_attention_heads": text_heads,
        "max_position_embeddings": sizes["context_length"],
        "vocab_size": sizes["vocab_size"],
        "projection_dim": sizes["embed_dim"],
        "hidden_act": activation,
        # the last two tokens of CLIP's vocabulary
        "bos_token_id": end - 1,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    vision = {
        "hidden_size": sizes["vision_width"],
        "intermediate_size": inner["vision"],
        "num_hidden_layers": sizes["vision_layers"],
        "num_attention_heads": vision_heads,
        "image_size": sizes["image_resolution"],
        "patch_size": sizes["vision_patch_size"],
        "num_channels": size_of(state_dict, {"visual.conv1.weight": 1}),
        "projection_dim": sizes["embed_dim"],
        "hidden_act": activation,
    }
    config = {"text_config": text, "vision_config": vision, "projection_dim": sizes["embed_dim"]}
    transposed = ("text_projection", "visual.proj")

    def prepare(key: str, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.T if key in transposed else tensor

    shapes = {
        "text_projection": (sizes["transformer_width"], sizes["embed_dim"]),
        "visual.proj": (sizes["vision_width"], sizes["embed_dim"]),
    }
    modules = _vit_modules(sizes["vision_layers"], sizes["transformer_layers"])
    clip = load_converted(_build_clip, config, modules, state_dict, prepare, other_shapes=shapes)
    for embeddings in (clip.text_model.embeddings, clip.vision_model.embeddings):
        # no weight: it is counted when the network is built, here on the meta device
        positions = torch.arange(embeddings.position_ids.shape[1])[None]
        embeddings.register_buffer("position_ids", positions, persistent=False)
    return clip


def _build_clip(**config) -> CLIPModel:
    return CLIPModel(CLIPConfig(**config))


def _vit_modules(vision_layers: int, text_layers: int) -> Modules:
    modules: Modules = {
        "token_embedding": "text_model.embeddings.token_embedding",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "ln_final": "text_model.final_layer_norm",
        "text_projection": "text_projection.weight",
        "logit_scale": "logit_scale",
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.conv1": "vision_model.embeddings.patch_embedding",
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
        "visual.proj": "visual_projection.weight",
    }
    for prefix, tower, layers in (("", "text_model", text_layers), ("visual.", "vision_model", vision_layers)):
        for layer in range(layers):
            source, target = f"{prefix}transformer.resblocks.{layer}", f"{tower}.encoder.layers.{layer}"
            modules |= {
                f"{source}.attn.in_proj": tuple(f"{target}.self_attn.{name}_proj" for name in "qkv"),
                f"{source}.attn.out_proj": f"{target}.self_attn.out_proj",
                f"{source}.ln_1": f"{target}.layer_norm1",
                f"{source}.ln_2": f"{target}.layer_norm2",
                f"{source}.mlp.c_fc": f"{target}.mlp.fc1",
                f"{source}.mlp.c_proj": f"{target}.mlp.fc2",
            }
    return modules
