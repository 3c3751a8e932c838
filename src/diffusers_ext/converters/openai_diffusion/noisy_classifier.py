"""The noisy classifiers of guided-diffusion."""

import math

from diffusers_ext.converters.adm_arguments import (
    ADM_ARGUMENTS,
    GUIDED_ARGUMENTS,
    check_against,
    check_heads,
    in_order_of_diffusers,
    read_heads,
)
from diffusers_ext.converters.adm_layout import ADMLayout, read_adm_layout
from diffusers_ext.converters.adm_modules import encoder
from diffusers_ext.converters.adm_networks import block_config
from diffusers_ext.converters.original_arguments import anything, checked
from diffusers_ext.converters.state_dicts import StateDict, has, size_of
from diffusers_ext.converters.weight_mapping import Modules, load_converted
from diffusers_ext.models.modeling_noisy_classifier import NoisyClassifier


CLASSIFIER_ARGUMENTS = {**ADM_ARGUMENTS, **GUIDED_ARGUMENTS, "pool": anything}


def convert_guided_diffusion_classifier(state_dict: StateDict, **config) -> NoisyClassifier:
    r"""
    An `EncoderUNetModel` of https://github.com/openai/guided-diffusion (Dhariwal & Nichol 2021, appendix H,
    https://huggingface.co/papers/2105.05233).

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Arguments of the original's constructor, with its names and meaning. `num_head_channels` or `num_heads` is
            needed, `num_res_blocks` if the blocks do not show it, and `use_new_attention_order=True` if the network
            was trained with it. What the tensors show need not be given, and must agree with them if it is.

    Returns:
        [`NoisyClassifier`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown, missing or
            contradict the tensors.
    """
    config = checked(config, CLASSIFIER_ARGUMENTS)
    if has(state_dict, "output_blocks"):
        raise ValueError("This is not a classifier but a whole U-Net: it has output_blocks.")
    layout = read_adm_layout(state_dict, config.get("num_res_blocks"))
    pool = _read_pool(state_dict)
    image_size = _read_image_size(state_dict, layout) if pool == "attention" else config.get("image_size")
    last = f"out.{'2' if pool in ('spatial', 'attention') else '3'}" + (".c_proj" if pool == "attention" else "")
    num_classes = size_of(state_dict, {f"{last}.weight": 0, f"{last}.bias": 0})
    check_against(
        layout,
        config,
        {},
        image_size=image_size,
        in_channels=layout.in_channels,
        out_channels=num_classes,
        pool=pool,
    )
    heads = read_heads(config)
    check_heads(layout.attention_widths(), heads)
    if pool == "attention" and "attention_head_dim" not in heads:
        raise ValueError("The attention pool needs `num_head_channels`.")
    return load_converted(
        NoisyClassifier,
        {
            "sample_size": image_size,
            "in_channels": layout.in_channels,
            "num_classes": num_classes,
            "time_projection_dim": layout.model_channels,
            "dropout": config.get("dropout", 0.0),
            "pool": pool,
            **{"attention_head_dim": None, **heads},
            **block_config(layout),
        },
        encoder(layout) | _head(pool),
        state_dict,
        in_order_of_diffusers(heads, config.get("use_new_attention_order", False)),
    )


def _read_pool(state_dict: StateDict) -> str:
    if any(has(state_dict, f"out.2.{part}") for part in ("qkv_proj", "c_proj")):
        return "attention"
    if has(state_dict, "out.2"):
        return "spatial"
    return "spatial_v2" if has(state_dict, "out.1") else "adaptive"


def _read_image_size(state_dict: StateDict, layout: ADMLayout) -> int:
    positions = size_of(state_dict, {"out.2.positional_embedding": 1}) - 1  # the first position is the mean's
    return math.isqrt(positions) * 2 ** (len(layout.widths) - 1)


def _head(pool: str) -> Modules:
    if pool != "attention":
        return {f"out.{layer}": f"head.{layer}" for layer in range(4)}
    return {
        "out.0": "head.0",
        "out.2.positional_embedding": "head.2.positional_embedding",
        "out.2.qkv_proj": ("head.2.to_q", "head.2.to_k", "head.2.to_v"),
        "out.2.c_proj": "head.2.to_out",
    }
