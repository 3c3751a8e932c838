"""Which module of an original U-Net is which of diffusers'."""

from diffusers_ext.converters.layout import Layout
from diffusers_ext.converters.weights import Modules


def resnet(source: str, target: str) -> Modules:
    names = {
        "in_layers.0": "norm1",
        "in_layers.2": "conv1",
        "emb_layers.1": "time_emb_proj",
        "out_layers.0": "norm2",
        "out_layers.3": "conv2",
        "skip_connection": "conv_shortcut",
    }
    return {f"{source}.{ours}": f"{target}.{theirs}" for ours, theirs in names.items()}


def attention(source: str, target: str) -> Modules:
    return {
        f"{source}.norm": f"{target}.group_norm",
        f"{source}.qkv": (f"{target}.to_q", f"{target}.to_k", f"{target}.to_v"),
        f"{source}.proj_out": f"{target}.to_out.0",
    }


def encoder(layout: Layout) -> Modules:
    """Time embedding, down and middle blocks: what whole and half U-Nets share."""
    modules = {
        f"{layout.time_embed}.0": "time_embedding.linear_1",
        f"{layout.time_embed}.2": "time_embedding.linear_2",
        "input_blocks.0.0": "conv_in",
    }
    for block in range(1, len(layout.widths) * (layout.num_res_blocks + 1)):
        level, position = divmod(block, layout.num_res_blocks + 1)
        source = f"input_blocks.{block}"
        if position == 0:
            modules |= sampler(f"{source}.0", "op", f"down_blocks.{level - 1}.downsamplers.0")
        else:
            modules |= resnet(f"{source}.0", f"down_blocks.{level}.resnets.{position - 1}")
            modules |= attention(f"{source}.1", f"down_blocks.{level}.attentions.{position - 1}")
    modules |= resnet("middle_block.0", "mid_block.resnets.0")
    modules |= attention("middle_block.1", "mid_block.attentions.0")
    return modules | resnet("middle_block.2", "mid_block.resnets.1")


def decoder(layout: Layout) -> Modules:
    """Up blocks and the last convolution."""
    modules = {"out.0": "conv_norm_out", "out.2": "conv_out"}
    for block in range(len(layout.widths) * (layout.num_res_blocks + 1)):
        level, position = divmod(block, layout.num_res_blocks + 1)
        source, target = f"output_blocks.{block}", f"up_blocks.{level}"
        has_attention = layout.attention[-1 - level]
        modules |= resnet(f"{source}.0", f"{target}.resnets.{position}")
        if has_attention:
            modules |= attention(f"{source}.1", f"{target}.attentions.{position}")
        if position == layout.num_res_blocks:
            modules |= sampler(f"{source}.{2 if has_attention else 1}", "conv", f"{target}.upsamplers.0")
    return modules


def sampler(source: str, convolution: str, target: str) -> Modules:
    """A convolution or a residual block that halves or doubles the image."""
    return {f"{source}.{convolution}": f"{target}.conv"} | resnet(source, target)
