"""The U-Net of latent-diffusion with cross-attention to a condition, as diffusers' UNet2DConditionModel."""

from collections.abc import Mapping
from functools import partial

from diffusers import UNet2DConditionModel

from diffusers_ext.converters.adm_arguments import check_against, check_heads, read_heads
from diffusers_ext.converters.adm_layout import ADMLayout, read_adm_layout
from diffusers_ext.converters.adm_modules import decoder, encoder
from diffusers_ext.converters.adm_networks import NUM_GROUPS
from diffusers_ext.converters.original_arguments import check_image_size
from diffusers_ext.converters.state_dicts import StateDict, check_parts, count_blocks, has, size_of
from diffusers_ext.converters.weight_mapping import Modules, load_converted


TRANSFORMER = "middle_block.1.transformer_blocks"  # in every U-Net with cross-attention, and in no other
# The layers of a transformer block, which have the same names in diffusers.
LAYERS = (
    *(f"{attention}.{layer}" for attention in ("attn1", "attn2") for layer in ("to_q", "to_k", "to_v", "to_out.0")),
    *("ff.net.0.proj", "ff.net.2", "norm1", "norm2", "norm3"),
)


def has_cross_attention(state_dict: StateDict, prefix: str = "") -> bool:
    """Whether a U-Net, whose names begin with `prefix`, has transformers as its attention blocks."""
    return has(state_dict, prefix + TRANSFORMER)


def convert_attended_unet(state_dict: StateDict, config: Mapping) -> UNet2DConditionModel:
    """The network of these tensors, in eval mode and in float32.

    Args:
        state_dict (`Mapping`): the tensors of the U-Net alone.
        config (`Mapping`): checked arguments of the original's constructor.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are missing or contradict the
            tensors.
    """
    check_parts(state_dict, "a U-Net of latent-diffusion", "output_blocks")
    layout = read_adm_layout(state_dict)
    depth = count_blocks(state_dict, TRANSFORMER)
    keys_and_values = [f"{TRANSFORMER}.{block}.attn2.{name}" for block in range(depth) for name in ("to_k", "to_v")]
    context_dim = size_of(state_dict, {f"{layer}.weight": 1 for layer in keys_and_values})
    out_channels = size_of(state_dict, {"out.2.weight": 0, "out.2.bias": 0})
    num_classes = size_of(state_dict, {"label_emb.weight": 0}) if has(state_dict, "label_emb") else None
    check_against(
        layout,
        config,
        {},
        in_channels=layout.in_channels,
        out_channels=out_channels,
        num_classes=num_classes,
        use_spatial_transformer=True,
        transformer_depth=depth,
        context_dim=context_dim,
    )
    check_image_size(config.get("image_size"), len(layout.widths))
    _check_expressible(layout)
    attention = partial(_transformer, depth)
    return load_converted(
        UNet2DConditionModel,
        {
            "sample_size": config.get("image_size"),
            "in_channels": layout.in_channels,
            "out_channels": out_channels,
            "num_class_embeds": num_classes,
            "flip_sin_to_cos": True,
            "freq_shift": 0,
            "block_out_channels": tuple(layout.widths),
            "layers_per_block": layout.num_res_blocks,
            "down_block_types": tuple(
                "CrossAttnDownBlock2D" if attention else "DownBlock2D" for attention in layout.attention
            ),
            "up_block_types": tuple(
                "CrossAttnUpBlock2D" if attention else "UpBlock2D" for attention in reversed(layout.attention)
            ),
            "cross_attention_dim": context_dim,
            "transformer_layers_per_block": depth,
            # diffusers means the number of heads, whatever the name says
            "attention_head_dim": _head_counts(layout, config),
            "norm_num_groups": NUM_GROUPS,
            "norm_eps": 1e-5,
            "resnet_time_scale_shift": "scale_shift" if layout.use_scale_shift_norm else "default",
            "dropout": config.get("dropout", 0.0),
        },
        encoder(layout, attention) | decoder(layout, attention) | {"label_emb": "class_embedding"},
        state_dict,
    )


def _check_expressible(layout: ADMLayout) -> None:
    if layout.resblock_updown:
        raise ValueError(
            "This U-Net has cross-attention and `resblock_updown`: it halves and doubles images in residual blocks. "
            "Such networks are not converted."
        )
    if layout.widths[0] != layout.model_channels:
        raise ValueError("`channel_mult` must begin with 1: other networks with cross-attention are not converted.")


def _head_counts(layout: ADMLayout, config: Mapping) -> tuple[int, ...]:
    """The number of heads at each level; without attention at a level the number has no effect."""
    heads = read_heads(config)
    check_heads(layout.attention_widths(), heads)
    if "num_attention_heads" in heads:
        return (heads["num_attention_heads"],) * len(layout.widths)
    return tuple(max(1, width // heads["attention_head_dim"]) for width in layout.widths)


def _transformer(depth: int, source: str, target: str) -> Modules:
    names = ["norm", "proj_in", "proj_out"]
    names += [f"transformer_blocks.{block}.{layer}" for block in range(depth) for layer in LAYERS]
    return {f"{source}.{name}": f"{target}.{name}" for name in names}
