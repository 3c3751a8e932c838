"""ADM U-Nets whose attention reads a text too, as in GLIDE, karlo and DeepFloyd IF, to a UNet2DConditionModel."""

from collections.abc import Mapping
from itertools import accumulate
from types import MappingProxyType

import torch
from diffusers import UNet2DConditionModel

from diffusers_ext.converters.adm_arguments import (
    check_against,
    check_heads,
    in_order_of_diffusers,
    read_heads,
)
from diffusers_ext.converters.adm_layout import ADMLayout
from diffusers_ext.converters.adm_modules import decoder, encoder, self_attention
from diffusers_ext.converters.adm_networks import NUM_GROUPS
from diffusers_ext.converters.original_arguments import check_image_size
from diffusers_ext.converters.state_dicts import StateDict, size_of
from diffusers_ext.converters.weight_mapping import Modules, load_converted


def convert_text_unet(
    tensors: StateDict,
    layout: ADMLayout,
    config: Mapping,
    *,
    in_channels: int,
    text_channels: int,
    special: Mapping = MappingProxyType({}),
    modules: Mapping[str, str] = MappingProxyType({}),
) -> UNet2DConditionModel:
    """The network of these tensors, in eval mode and in float32.

    Args:
        tensors (`Mapping`): the tensors of the U-Net by the names of guided-diffusion.
        layout (`ADMLayout`): the architecture.
        config (`Mapping`): checked arguments of the original.
        in_channels (`int`): what its argument `in_channels` must be.
        text_channels (`int`): the width of the states that attention reads.
        special (`Mapping`): more arguments of [`UNet2DConditionModel`].
        modules (`Mapping`): the counterparts of what only this original has.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are missing, contradict the
            tensors or mean another network than diffusers has.
    """
    out_channels = size_of(tensors, {"out.2.weight": 0, "out.2.bias": 0})
    check_against(layout, config, {}, in_channels=in_channels, out_channels=out_channels)
    check_image_size(config.get("image_size"), len(layout.widths))
    heads = read_heads(config)
    check_heads(layout.attention_widths(), heads)
    if "attention_head_dim" not in heads and len(set(layout.attention_widths())) > 1:
        raise ValueError("Heads must have one width, `num_head_channels`: other networks are not converted.")
    if layout.widths[0] != layout.model_channels:
        raise ValueError("`channel_mult` must begin with 1: other networks with text are not converted.")
    head_width = heads.get("attention_head_dim") or layout.widths[-1] // heads["num_attention_heads"]
    qkv = in_order_of_diffusers(heads)
    of_text_alone = _attention_to_text_alone(tensors)
    if of_text_alone:
        firsts = accumulate((depth + 1 for depth in layout.depths[:-1]), initial=0)
        special = {
            **special,
            "only_cross_attention": [f"input_blocks.{first + 1}.1" in of_text_alone for first in firsts],
            "mid_block_only_cross_attention": "middle_block.1" in of_text_alone,
        }

    def attention(source: str, target: str) -> Modules:
        queries = {f"{source}.qkv": f"{target}.to_q"} if source in of_text_alone else {}
        return _attention(source, target) | queries

    def prepare(key: str, tensor: torch.Tensor) -> torch.Tensor:
        if ".encoder_kv." in key:
            return parts_first(tensor, tensor.shape[0] // (2 * head_width), 2)
        return tensor if key.rpartition(".qkv.")[0] in of_text_alone else qkv(key, tensor)

    return load_converted(
        UNet2DConditionModel,
        {
            "sample_size": config.get("image_size"),
            "in_channels": layout.in_channels,
            "out_channels": out_channels,
            "flip_sin_to_cos": True,
            "freq_shift": 0,
            "block_out_channels": tuple(layout.widths),
            "layers_per_block": layout.num_res_blocks,
            "down_block_types": _block_types(layout.attention, "Down", layout.resblock_updown),
            "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
            "up_block_types": _block_types(layout.attention[::-1], "Up", layout.resblock_updown),
            "cross_attention_dim": text_channels,
            "attention_head_dim": head_width,
            "norm_num_groups": NUM_GROUPS,
            "norm_eps": 1e-5,
            "resnet_time_scale_shift": "scale_shift" if layout.use_scale_shift_norm else "default",
            "dropout": config.get("dropout", 0.0),
            **special,
        },
        encoder(layout, attention) | decoder(layout, attention) | modules,
        tensors,
        prepare,
    )


def _block_types(has_attention: list[bool], way: str, resblock_updown: bool) -> tuple[str, ...]:
    if not resblock_updown and len(has_attention) > 1:
        raise ValueError("Networks with text halve and double images in residual blocks: others are not converted.")
    plain = {"Down": "ResnetDownsampleBlock2D", "Up": "ResnetUpsampleBlock2D"}[way]
    return tuple(f"SimpleCrossAttn{way}Block2D" if attends else plain for attends in has_attention)


def _attention(source: str, target: str) -> Modules:
    """Attention of the image to itself and to the text, in one softmax."""
    return {
        **self_attention(source, target),
        f"{source}.norm_encoder": f"{target}.norm_cross",
        f"{source}.encoder_kv": (f"{target}.add_k_proj", f"{target}.add_v_proj"),
    }


def _attention_to_text_alone(tensors: StateDict) -> set[str]:
    """The attention blocks whose `qkv` are queries only, because the image does not look at itself."""
    weights = {key: tensor for key, tensor in tensors.items() if key.endswith(".qkv.weight")}
    return {
        key.removesuffix(".qkv.weight") for key, tensor in weights.items() if tensor.shape[:1] == tensor.shape[1:2]
    }


def parts_first(tensor: torch.Tensor, num_heads: int, parts: int) -> torch.Tensor:
    """Queries, keys and values one after the other, of a tensor that has those of each head together."""
    return tensor.unflatten(0, (num_heads, parts, -1)).transpose(0, 1).reshape(tensor.shape)
