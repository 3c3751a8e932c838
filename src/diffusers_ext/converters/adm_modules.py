"""The counterparts, in diffusers, of the modules of an ADM U-Net."""

from collections.abc import Callable

from diffusers_ext.converters.adm_layout import ADMLayout
from diffusers_ext.converters.weight_mapping import Modules


def self_attention(source: str, target: str) -> Modules:
    """Attention of the image to itself."""
    return {
        f"{source}.norm": f"{target}.group_norm",
        f"{source}.qkv": (f"{target}.to_q", f"{target}.to_k", f"{target}.to_v"),
        f"{source}.proj_out": f"{target}.to_out.0",
    }


def encoder(layout: ADMLayout, attention: Callable[[str, str], Modules] = self_attention) -> Modules:
    """Time embedding, down blocks and middle block, which U-Nets and noisy classifiers share.

    Args:
        layout (`ADMLayout`): the architecture.
        attention (`Callable`): `attention(source, target)` are the modules of an attention block.
    """
    modules = {
        f"{layout.time_embed}.0": "time_embedding.linear_1",
        f"{layout.time_embed}.2": "time_embedding.linear_2",
    }
    for block, (level, position) in enumerate(_places(layout.depths)):
        source = f"input_blocks.{block}"
        if block == 0:
            modules["input_blocks.0.0"] = "conv_in"
        elif position == 0:
            modules |= _sampler(f"{source}.0", "op", f"down_blocks.{level - 1}.downsamplers.0")
        else:
            modules |= _resnet(f"{source}.0", f"down_blocks.{level}.resnets.{position - 1}")
            modules |= attention(f"{source}.1", f"down_blocks.{level}.attentions.{position - 1}")
    modules |= _resnet("middle_block.0", "mid_block.resnets.0")
    if layout.middle_attention:
        modules |= attention("middle_block.1", "mid_block.attentions.0")
    return modules | _resnet(f"middle_block.{2 if layout.middle_attention else 1}", "mid_block.resnets.1")


def decoder(layout: ADMLayout, attention: Callable[[str, str], Modules] = self_attention) -> Modules:
    """Up blocks and the last convolution; see [`encoder`]."""
    modules = {"out.0": "conv_norm_out", "out.2": "conv_out"}
    for block, (level, position) in enumerate(_places(layout.depths[::-1])):
        source, target = f"output_blocks.{block}", f"up_blocks.{level}"
        has_attention = layout.attention[-1 - level]
        modules |= _resnet(f"{source}.0", f"{target}.resnets.{position}")
        if has_attention:
            modules |= attention(f"{source}.1", f"{target}.attentions.{position}")
        if position == layout.depths[-1 - level]:
            modules |= _sampler(f"{source}.{2 if has_attention else 1}", "conv", f"{target}.upsamplers.0")
    return modules


def _places(depths: list[int]) -> list[tuple[int, int]]:
    """The level of each block, and its place among the blocks of the level, which are one more than its depth."""
    return [(level, position) for level, depth in enumerate(depths) for position in range(depth + 1)]


def _resnet(source: str, target: str) -> Modules:
    names = {
        "in_layers.0": "norm1",
        "in_layers.2": "conv1",
        "emb_layers.1": "time_emb_proj",
        "out_layers.0": "norm2",
        "out_layers.3": "conv2",
        "skip_connection": "conv_shortcut",
    }
    return {f"{source}.{original}": f"{target}.{counterpart}" for original, counterpart in names.items()}


def _sampler(source: str, convolution: str, target: str) -> Modules:
    """A convolution or a residual block that halves or doubles the image."""
    return {f"{source}.{convolution}": f"{target}.conv"} | _resnet(source, target)
