"""The modules of imagen-pytorch, and their counterparts in ImagenUNet and ImagenVideoUNet."""

from typing import NamedTuple

from diffusers_ext.converters.state_dicts import StateDict, count_blocks
from diffusers_ext.converters.weight_mapping import Modules


class Layout(NamedTuple):
    """Where the modules of a level stand in the original, by their numbers."""

    down_attention: int
    downsample: int
    up_attention: int
    upsample: int
    hidden_norm: int  # of feed-forward layers
    proj_out: int


IMAGES = Layout(down_attention=3, downsample=4, up_attention=2, upsample=3, hidden_norm=3, proj_out=4)
FILMS = Layout(down_attention=3, downsample=7, up_attention=2, upsample=6, hidden_norm=4, proj_out=5)


def conditions() -> Modules:
    """What the network is told beside images: noise levels, and texts."""
    text, resampler = "conditioner.text", "conditioner.text.resampler"
    modules: Modules = {
        "norm_cond": "conditioner.norm",
        "text_to_cond": f"{text}.proj_in",
        "null_text_embed": f"{text}.padding_states",
        "null_text_hidden": f"{text}.null_embedding",
        "to_text_non_attn_cond.0": f"{text}.norm",
        "to_text_non_attn_cond.1": f"{text}.linear_1",
        "to_text_non_attn_cond.3": f"{text}.linear_2",
        "attn_pool.pos_emb.weight": f"{resampler}.position_embedding",
        "attn_pool.latents": f"{resampler}.latents",
        "attn_pool.to_latents_from_mean_pooled_seq.0": f"{resampler}.norm_mean",
        "attn_pool.to_latents_from_mean_pooled_seq.1": f"{resampler}.mean_to_latents",
    }
    for kind, target in (("time", "conditioner.time_embedding"), ("lowres_time", "conditioner.level_embedding")):
        modules |= {
            f"to_{kind}_hiddens.0.weights": f"{target}.frequencies",
            f"to_{kind}_hiddens.1": f"{target}.linear_1",
            f"to_{kind}_cond.0": f"{target}.linear_2",
            f"to_{kind}_tokens.0": f"{target}.to_tokens",
        }
    for layer in range(2):
        source, target = f"attn_pool.layers.{layer}", f"{resampler}.attentions.{layer}"
        modules |= attention(f"{source}.0", target)
        modules |= {f"{source}.0.norm_latents": f"{target}.norm_latents"}
        modules |= feed_forward(f"{source}.1", f"{resampler}.feed_forwards.{layer}", IMAGES)
    return modules


def trunk(tensors: StateDict, layout: Layout) -> Modules:
    """The layers of images."""
    modules: Modules = {"final_conv": "conv_out"}
    modules |= {f"init_conv.convs.{i}": f"conv_in.convs.{i}" for i in range(3)}
    modules |= resnet("init_resnet_block", "first_resnet") | resnet("final_res_block", "last_resnet")
    modules |= resnet("mid_block1", "mid_resnet_1") | resnet("mid_block2", "mid_resnet_2")
    for level in range(count_blocks(tensors, "downs")):
        source, target = f"downs.{level}", f"down_blocks.{level}"
        modules |= resnet(f"{source}.1", f"{target}.first_resnet")
        modules |= resnets(tensors, f"{source}.2", target)
        modules |= transformer(f"{source}.{layout.down_attention}", f"{target}.attention", layout)
        modules |= {
            f"{source}.0.1": f"{target}.downsample_in.conv",
            f"{source}.{layout.downsample}.1": f"{target}.downsample_out.conv",
            f"{source}.{layout.downsample}.fns.0": f"{target}.downsample_out.conv_1",
            f"{source}.{layout.downsample}.fns.1": f"{target}.downsample_out.conv_2",
        }
        source, target = f"ups.{level}", f"up_blocks.{level}"
        modules |= resnet(f"{source}.0", f"{target}.first_resnet")
        modules |= resnets(tensors, f"{source}.1", target)
        modules |= transformer(f"{source}.{layout.up_attention}", f"{target}.attention", layout)
        modules |= {f"{source}.{layout.upsample}.net.0": f"{target}.upsample.conv"}
        modules |= conv_block(f"upsample_combiner.fmap_convs.{level}", f"combiners.{level}")
    return modules


def resnets(tensors: StateDict, source: str, level: str) -> Modules:
    modules: Modules = {}
    for number in range(count_blocks(tensors, source)):
        modules |= resnet(f"{source}.{number}", f"{level}.resnets.{number}")
    return modules


def resnet(source: str, target: str) -> Modules:
    return {
        f"{source}.time_mlp.1": f"{target}.time_emb_proj",
        **conv_block(f"{source}.block1", f"{target}.block_1"),
        **conv_block(f"{source}.block2", f"{target}.block_2"),
        **attention(f"{source}.cross_attn", f"{target}.cross_attention"),
        f"{source}.gca.to_k": f"{target}.gate.to_weights",
        f"{source}.gca.net.0": f"{target}.gate.linear_1",
        f"{source}.gca.net.2": f"{target}.gate.linear_2",
        f"{source}.res_conv": f"{target}.shortcut",
    }


def conv_block(source: str, target: str) -> Modules:
    return {
        f"{source}.norm.gamma": f"{target}.norm_scale",
        f"{source}.project": f"{target}.conv",
        f"{source}.frames": f"{target}.frame_conv",
    }


def transformer(source: str, target: str, layout: Layout) -> Modules:
    """Of one layer."""
    layers = attention(f"{source}.layers.0.0", f"{target}.attention")
    return layers | feed_forward(f"{source}.layers.0.1", f"{target}.feed_forward", layout)


def attention(source: str, target: str) -> Modules:
    names = ("norm", "to_q", "to_kv", "q_scale", "k_scale")
    return {f"{source}.{name}": f"{target}.{name}" for name in names} | {
        f"{source}.null_kv": f"{target}.first_key_value",
        f"{source}.to_context.0": f"{target}.norm_context",
        f"{source}.to_context.1": f"{target}.context_to_kv",
        f"{source}.to_out.0": f"{target}.to_out",
        f"{source}.to_out.1": f"{target}.norm_out",
    }


def feed_forward(source: str, target: str, layout: Layout) -> Modules:
    return {
        f"{source}.0": f"{target}.norm",
        f"{source}.1": f"{target}.proj_in",
        f"{source}.{layout.hidden_norm}": f"{target}.norm_hidden",
        f"{source}.{layout.proj_out}": f"{target}.proj_out",
    }


def frame_block(convolution: str, attended: str, target: str) -> Modules:
    """The position encoding and the attention along frames."""
    source, bias = f"{attended}.fn.fn", f"{target}.position_bias"
    return attention(source, f"{target}.attention") | {
        f"{convolution}.fn.1": f"{target}.conv",
        f"{source}.null_attn_bias": f"{bias}.first_key_bias",
        f"{source}.rel_pos_bias.mlp.0.0": f"{bias}.linear_1",
        f"{source}.rel_pos_bias.mlp.0.1": f"{bias}.norm_1",
        f"{source}.rel_pos_bias.mlp.1.0": f"{bias}.linear_2",
        f"{source}.rel_pos_bias.mlp.1.1": f"{bias}.norm_2",
        f"{source}.rel_pos_bias.mlp.2": f"{bias}.linear_3",
    }
