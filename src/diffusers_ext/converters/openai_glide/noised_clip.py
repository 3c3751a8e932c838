"""The CLIP of noisy images that guides GLIDE, as NoisyCLIPModel."""

import math

import torch

from diffusers_ext.converters.original_arguments import (
    check_agreement,
    checked,
    positive_integer,
    positive_number,
    require,
)
from diffusers_ext.converters.state_dicts import StateDict, check_parts, has, part, size_of
from diffusers_ext.converters.weight_mapping import Modules, load_converted
from diffusers_ext.models.modeling_noisy_clip import NoisyCLIPModel


# By which CLIP normalises images in [0, 1]: the original has them for values from 0 to 255.
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
INTEGERS = (
    "n_timesteps",
    "image_size",
    "patch_size",
    "n_vocab",
    "max_text_len",
    "n_embd",
    "n_head_state_text",
    "n_head_text",
    "n_xf_blocks_text",
    "n_head_state_image",
    "n_head_image",
    "n_xf_blocks_image",
)
GLIDE_CLIP_ARGUMENTS = {**dict.fromkeys(INTEGERS, positive_integer), "logit_scale": positive_number}
USUAL_LOGIT_SCALE = 100.0  # of the published configuration


def convert_glide_clip(state_dict: StateDict, **config) -> NoisyCLIPModel:
    r"""
    The noised CLIP of https://github.com/openai/glide-text2im (Nichol et al. 2021, section 3.2,
    https://huggingface.co/papers/2112.10741).

    Args:
        state_dict (`Mapping`):
            The tensors of both files of the original, those of the image encoder under `image_encoder.`, those of the
            text encoder under `text_encoder.`.
        config:
            Entries of the original's `config.yaml`. The tensors show all but the heads, by `n_head_image` and
            `n_head_text` or by their widths `n_head_state_image` and `n_head_state_text`, and `logit_scale` (100).

    Returns:
        [`NoisyCLIPModel`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown, missing or
            contradict the tensors.
    """
    config = checked(config, GLIDE_CLIP_ARGUMENTS)
    check_parts(state_dict, "a noised CLIP of GLIDE", "image_encoder.blocks", "text_encoder.blocks")
    read = _read(state_dict)
    check_agreement(config, config, {name: value for name, value in read.items() if not name.endswith("_dim")})
    heads = {tower: _heads(config, tower, read[f"{tower}_dim"]) for tower in ("image", "text")}
    scale = config.get("logit_scale", USUAL_LOGIT_SCALE)
    tensors = {**state_dict, "logit_scale": torch.tensor(math.log(scale))}
    model = load_converted(
        NoisyCLIPModel,
        {
            "sample_size": read["image_size"],
            "in_channels": len(IMAGE_MEAN),
            "patch_size": read["patch_size"],
            "num_train_timesteps": read["n_timesteps"],
            "image_dim": read["image_dim"],
            "num_image_layers": read["n_xf_blocks_image"],
            "num_image_heads": heads["image"],
            "vocab_size": read["n_vocab"],
            "max_length": read["max_text_len"],
            "text_dim": read["text_dim"],
            "num_text_layers": read["n_xf_blocks_text"],
            "num_text_heads": heads["text"],
            "projection_dim": read["n_embd"],
            "activation": "gelu",
            "eos_token_id": read["n_vocab"] - 1,
            "init_logit_scale": scale,
            "image_mean": IMAGE_MEAN,
            "image_std": IMAGE_STD,
        },
        _modules(read["n_xf_blocks_image"], read["n_xf_blocks_text"]),
        tensors,
    )
    # no weights: the network makes them when it is built, here on the meta device
    for name, values in (("mean", IMAGE_MEAN), ("std", IMAGE_STD)):
        model.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
    return model


def _read(tensors: StateDict) -> dict[str, int]:
    image, text = (part(tensors, f"{tower}_encoder.blocks.") for tower in ("image", "text"))
    patch_size = size_of(image, {"input.patch_proj": 2})
    return {
        "n_timesteps": size_of(image, {"input.w_t": 0}),
        "image_size": math.isqrt(size_of(image, {"input.w_pos": 0}) - 1) * patch_size,
        "patch_size": patch_size,
        "n_vocab": size_of(text, {"input.w_voc": 0}),
        "max_text_len": size_of(text, {"input.w_pos": 0}),
        "n_embd": size_of(image, {"output.f.w": 0}),
        "n_xf_blocks_image": _count_layers(image),
        "n_xf_blocks_text": _count_layers(text),
        "image_dim": size_of(image, {"output.ln.g": 0, "output.ln.b": 0}),
        "text_dim": size_of(text, {"output.ln.g": 0, "output.ln.b": 0}),
    }


def _count_layers(tensors: StateDict) -> int:
    count = 0
    while has(tensors, f"block_{count}"):
        count += 1
    return count


def _heads(config: dict, tower: str, dim: int) -> int:
    if f"n_head_{tower}" not in config and f"n_head_state_{tower}" in config:
        return dim // config[f"n_head_state_{tower}"]
    require(config, f"n_head_{tower}")
    heads = config[f"n_head_{tower}"]
    if dim != heads * config.get(f"n_head_state_{tower}", dim // heads):
        raise ValueError(f"`n_head_{tower}` is {heads}, which does not divide the {dim} channels into such heads.")
    return heads


def _modules(image_layers: int, text_layers: int) -> Modules:
    modules: Modules = {
        "logit_scale": "logit_scale",
        "image_encoder.blocks.input.patch_proj": "patch_embedding.weight",
        "image_encoder.blocks.input.w_pos": "position_embedding",
        "image_encoder.blocks.input.w_t": "time_embedding.weight",
        "text_encoder.blocks.input.w_pos": "text_tower.position_embedding",
        "text_encoder.blocks.input.w_voc": "text_tower.token_embedding.weight",
    }
    norms, layers = {"image_encoder.blocks.input.ln": "norm_in"}, {}
    for tower, prefix, count in (("image", "", image_layers), ("text", "text_tower.", text_layers)):
        norms[f"{tower}_encoder.blocks.output.ln"] = f"{prefix}norm_out"
        layers[f"{tower}_encoder.blocks.output.f"] = f"{prefix}proj_out"
        for block in range(count):
            source, target = f"{tower}_encoder.blocks.block_{block}", f"{prefix}blocks.{block}"
            norms |= {f"{source}.f_attn.ln": f"{target}.norm1", f"{source}.f_mlp.ln": f"{target}.norm2"}
            layers |= {f"{source}.f_attn.f_{name}": f"{target}.to_{name}" for name in "qkv"}
            layers |= {
                f"{source}.f_attn.f_c": f"{target}.to_out",
                f"{source}.f_mlp.f_1": f"{target}.linear_1",
                f"{source}.f_mlp.f_2": f"{target}.linear_2",
            }
    for named, weight in ((norms, "g"), (layers, "w")):
        for source, target in named.items():
            modules |= {f"{source}.{weight}": f"{target}.weight", f"{source}.b": f"{target}.bias"}
    return modules
