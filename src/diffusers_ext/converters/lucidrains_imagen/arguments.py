"""The arguments of imagen-pytorch's networks: what the tensors show of them, and which networks are converted."""

from collections.abc import Mapping

from diffusers_ext.converters.original_arguments import (
    Kind,
    anything,
    boolean,
    check_agreement,
    checked,
    one_of,
    positive_integer,
)
from diffusers_ext.converters.state_dicts import StateDict, check_parts, count_blocks, has, size_of


def of_levels(kind: Kind) -> Kind:
    """A value of this kind, or a list of one for each level."""

    def each(name: str, value):
        if isinstance(value, (list, tuple)):
            return [kind(name, entry) for entry in value]
        return kind(name, value)

    return each


PER_LEVEL = {
    "dim_mults": of_levels(positive_integer),
    "num_resnet_blocks": of_levels(positive_integer),
    "layer_attns": of_levels(boolean),
    "layer_cross_attns": of_levels(boolean),
}
INTEGERS = (
    "dim",
    "cond_dim",
    "text_embed_dim",
    "attn_dim_head",
    "attn_heads",
    "max_text_len",
    "attn_pool_num_latents",
    "num_time_tokens",
    "channels",
    "channels_out",
)
# Of both kinds of networks.
SHARED_ARGUMENTS = {
    **dict.fromkeys(INTEGERS, positive_integer),
    **PER_LEVEL,
    "lowres_cond": boolean,
    "memory_efficient": boolean,
    "attend_at_middle": boolean,
    "cond_on_text": one_of(True),
    "attn_pool_text": one_of(True),
    "use_global_context_attn": one_of(True),
    "pixel_shuffle_upsample": one_of(True),
    "scale_skip_connection": one_of(True),
    "final_resnet_block": one_of(True),
    "final_conv_kernel_size": one_of(3),
    "init_cross_embed": one_of(True),
    "cross_embed_downsample": one_of(False),
    "use_linear_attn": one_of(False),
    "use_linear_cross_attn": one_of(False),
    "self_cond": one_of(False),
    "cond_images_channels": one_of(0),
    "learned_sinu_pos_emb_dim": one_of(16),
    "layer_attns_depth": one_of(1),
    "ff_mult": one_of(2),
    "dropout": anything,  # these have no effect in the original
    "num_image_tokens": anything,
    "out_dim": anything,
}


def read_arguments(state_dict: StateDict, network: str) -> dict:
    """The arguments that the tensors of a U-Net show.

    Raises:
        ValueError: if it is no such network.
    """
    check_parts(state_dict, network, "to_time_hiddens", "init_conv.convs", "downs.0", "attn_pool", "final_res_block")
    num_levels = count_blocks(state_dict, "downs")
    dim = size_of(state_dict, {"final_res_block.block2.norm.gamma": 0})
    tokens = size_of(state_dict, {"norm_cond.weight": 0, "norm_cond.bias": 0})
    head_width = size_of(state_dict, {f"attn_pool.layers.{i}.0.q_scale": 0 for i in range(2)})
    to_q = {f"attn_pool.layers.{i}.0.to_q.weight": 0 for i in range(2)}
    lowres_cond = has(state_dict, "to_lowres_time_hiddens")
    widths = [size_of(state_dict, {f"ups.{i}.0.block2.norm.gamma": 0}) for i in reversed(range(num_levels))]
    return {
        "dim": dim,
        "dim_mults": [width // dim for width in widths],
        "num_resnet_blocks": [count_blocks(state_dict, f"downs.{i}.2") for i in range(num_levels)],
        "layer_attns": [has(state_dict, f"downs.{i}.3.layers") for i in range(num_levels)],
        "layer_cross_attns": [has(state_dict, f"downs.{i}.1.cross_attn") for i in range(num_levels)],
        "cond_dim": tokens,
        "text_embed_dim": size_of(state_dict, {"text_to_cond.weight": 1}),
        "attn_dim_head": head_width,
        "attn_heads": size_of(state_dict, to_q) // head_width,
        "max_text_len": size_of(state_dict, {"null_text_embed": 1}),
        "attn_pool_num_latents": size_of(state_dict, {"attn_pool.latents": 0}),
        "num_time_tokens": size_of(state_dict, {"to_time_tokens.0.weight": 0}) // tokens,
        "channels": size_of(state_dict, {"init_conv.convs.0.weight": 1}) // (1 + lowres_cond),
        "channels_out": size_of(state_dict, {"final_conv.weight": 0}),
        "lowres_cond": lowres_cond,
        "memory_efficient": has(state_dict, "init_resnet_block"),
        "attend_at_middle": has(state_dict, "mid_attn"),
    }


def agreed_arguments(config: Mapping, kinds: Mapping[str, Kind], read: Mapping) -> dict:
    """What the tensors show, after the given arguments were checked and compared with it."""
    config = checked(config, kinds)
    num_levels = len(read["dim_mults"])
    given = {
        name: [value] * num_levels if name in PER_LEVEL and not isinstance(value, list) else value
        for name, value in config.items()
    }
    check_agreement(config, given, read)
    if read["dim_mults"][0] != 1:
        raise ValueError(
            f"`dim_mults` must begin with 1, but is {read['dim_mults']}: other networks are not converted."
        )
    return dict(read)


def network_options(read: Mapping) -> dict:
    """The arguments of ImagenUNet and ImagenVideoUNet alike."""
    return {
        "in_channels": read["channels"] * (1 + read["lowres_cond"]),
        "out_channels": read["channels_out"],
        "block_out_channels": [read["dim"] * factor for factor in read["dim_mults"]],
        "layers_per_block": read["num_resnet_blocks"],
        "block_attention": read["layer_attns"],
        "block_cross_attention": read["layer_cross_attns"],
        "mid_block_attention": read["attend_at_middle"],
        "num_attention_heads": read["attn_heads"],
        "attention_head_dim": read["attn_dim_head"],
        "encoder_hid_dim": read["text_embed_dim"],
        "cross_attention_dim": read["cond_dim"],
        "max_text_length": read["max_text_len"],
        "num_text_latents": read["attn_pool_num_latents"],
        "num_time_tokens": read["num_time_tokens"],
        "class_embed_type": "timestep" if read["lowres_cond"] else None,
        "downsample_first": read["memory_efficient"],
    }
