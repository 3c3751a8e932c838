"""The U-Nets of SR3, as diffusers' UNet2DModel."""

from collections.abc import Callable, Container, Mapping

import torch
from diffusers import UNet2DModel

from diffusers_ext.converters.janspiry.checkpoint_parts import SR3_BUFFERS, network_tensors
from diffusers_ext.converters.janspiry.sr3_layout import EMBEDDINGS, Block, SR3Layout, read_sr3_layout, residual_blocks
from diffusers_ext.converters.original_arguments import (
    anything,
    boolean,
    check_agreement,
    check_image_size,
    checked,
    numbers,
    positive_integer,
    probability,
)
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.converters.weight_mapping import Modules, load_converted


NUM_GROUPS = 32  # of every normalization, unless the configuration says otherwise
# The module that projects the embedding to the channels of a residual block, by the kind of network.
PROJECTIONS = {"sr3": "noise_func.noise_func.0", "ddpm": "mlp.1"}
SR3_ARGUMENTS = {
    "which_model_G": anything,
    "image_size": positive_integer,
    "in_channel": positive_integer,
    "out_channel": positive_integer,
    "inner_channel": positive_integer,
    "norm_groups": positive_integer,
    "channel_multiplier": numbers,
    "attn_res": numbers,
    "res_blocks": positive_integer,
    "dropout": probability,
    "channels": positive_integer,
    "conditional": boolean,
}


def convert_sr3(state_dict: StateDict, **config) -> UNet2DModel:
    r"""
    A network of https://github.com/Janspiry/Image-Super-Resolution-via-Iterative-Refinement (Saharia et al. 2021,
    https://huggingface.co/papers/2104.07636), of the kind `sr3` or `ddpm`.

    The network takes the conditioning image followed by the noisy image. The kind `sr3` takes the noise level
    sqrt(alpha_bar_t) instead of a timestep.

    Args:
        state_dict (`Mapping`):
            The tensors of the original, `I*_E*_gen.pth`.
        config:
            The entries `unet` and `diffusion` of the original's configuration, and `which_model_G`. `norm_groups` is
            needed if it is not 32. `attn_res` are heights of the image where attention runs. What the tensors show
            need not be given, and must agree with them if it is.

    Returns:
        [`UNet2DModel`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict
            the tensors.
    """
    config = checked(config, SR3_ARGUMENTS)
    tensors = network_tensors(state_dict, SR3_BUFFERS)
    layout = read_sr3_layout(tensors)
    read = {
        "which_model_G": layout.kind,
        "channels": layout.out_channel,
        "conditional": layout.in_channel > layout.out_channel,
    }
    return build_sr3(tensors, layout, config, "channel_multiplier", read)


def build_sr3(tensors: StateDict, layout: SR3Layout, config: Mapping, widths_name: str, read: Mapping) -> UNet2DModel:
    """The network of these tensors.

    Args:
        tensors (`Mapping`): the tensors of the network, by names without prefix.
        layout (`SR3Layout`): the architecture that they show.
        config (`Mapping`): checked arguments.
        widths_name (`str`): the argument that gives the width of each level as a multiple of `inner_channel`.
        read (`Mapping`): what else the tensors show, by the names of the arguments.
    """
    _check_against(layout, config, widths_name, read)
    check_image_size(config.get("image_size"), len(layout.widths))
    if layout.widths[0] != layout.inner_channel:
        raise ValueError(f"`{widths_name}` must begin with 1: other networks are not converted.")
    num_groups = config.get("norm_groups", NUM_GROUPS)
    for width in layout.widths:
        if width % num_groups != 0:
            raise ValueError(f"`norm_groups` must divide the {width} channels of a level, but is {num_groups}.")
    net_config = {
        "sample_size": config.get("image_size"),
        "in_channels": layout.in_channel,
        "out_channels": layout.out_channel,
        "flip_sin_to_cos": False,
        "freq_shift": 0,
        "block_out_channels": tuple(layout.widths),
        "layers_per_block": layout.res_blocks,
        "down_block_types": tuple("AttnDownBlock2D" if attention else "DownBlock2D" for attention in layout.attention),
        "up_block_types": tuple(
            "AttnUpBlock2D" if attention else "UpBlock2D" for attention in reversed(layout.attention)
        ),
        "attention_head_dim": None,  # one head
        "norm_num_groups": num_groups,
        "norm_eps": 1e-5,
        "dropout": config.get("dropout", 0.0),
    }
    embedding, blocks = EMBEDDINGS[layout.kind], residual_blocks(layout)
    tensors = {key: tensor for key, tensor in tensors.items() if key != f"{embedding}.0.inv_freq"}
    no_bias = {f"{block.source}.attn.qkv.bias": torch.zeros(3 * block.width) for block in blocks if block.attention}
    narrow = _narrow_shapes(layout, blocks)
    return load_converted(
        UNet2DModel,
        net_config,
        _modules(layout, blocks),
        no_bias | tensors,
        _widen(narrow, embedding, is_linear=layout.kind == "sr3"),
        narrow,
    )


def _check_against(layout: SR3Layout, config: Mapping, widths_name: str, read: Mapping) -> None:
    read = {
        name: getattr(layout, name) for name in ("in_channel", "out_channel", "inner_channel", "res_blocks")
    } | read
    given = dict(config)
    read[widths_name] = [width / layout.inner_channel for width in layout.widths]
    if "attn_res" in config and "image_size" in config:
        heights = [config["image_size"] // 2**level for level in range(len(layout.widths))]
        given["attn_res"] = [height for height in heights if height in config["attn_res"]]
        read["attn_res"] = [height for height, attention in zip(heights, layout.attention, strict=True) if attention]
    check_agreement(config, given, read)


def _modules(layout: SR3Layout, blocks: list[Block]) -> Modules:
    embedding = EMBEDDINGS[layout.kind]
    modules = {
        f"{embedding}.1": "time_embedding.linear_1",
        f"{embedding}.3": "time_embedding.linear_2",
        "downs.0": "conv_in",
        "final_conv.block.0": "conv_norm_out",
        "final_conv.block.3": "conv_out",
    }
    for level in range(len(layout.widths)):
        down, up = (level + 1) * (layout.res_blocks + 1), (level + 1) * (layout.res_blocks + 2) - 1
        modules[f"downs.{down}.conv"] = f"down_blocks.{level}.downsamplers.0.conv"
        modules[f"ups.{up}.conv"] = f"up_blocks.{level}.upsamplers.0.conv"
    for block in blocks:
        source, target = f"{block.source}.res_block", f"{block.target}.resnets.{block.position}"
        modules |= {
            f"{source}.block1.block.0": f"{target}.norm1",
            f"{source}.block1.block.3": f"{target}.conv1",
            f"{source}.{PROJECTIONS[layout.kind]}": f"{target}.time_emb_proj",
            f"{source}.block2.block.0": f"{target}.norm2",
            f"{source}.block2.block.3": f"{target}.conv2",
            f"{source}.res_conv": f"{target}.conv_shortcut",
        }
        if block.attention:
            source, target = f"{block.source}.attn", f"{block.target}.attentions.{block.position}"
            modules |= {
                f"{source}.norm": f"{target}.group_norm",
                f"{source}.qkv": (f"{target}.to_q", f"{target}.to_k", f"{target}.to_v"),
                f"{source}.out": f"{target}.to_out.0",
            }
    return modules


def _narrow_shapes(layout: SR3Layout, blocks: list[Block]) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors that make or take the embedding. It has C channels, where diffusers' has 4 C."""
    width, last = layout.inner_channel, f"{EMBEDDINGS[layout.kind]}.3"
    shapes = {f"{last}.weight": (width, 4 * width), f"{last}.bias": (width,)}
    projection = f"res_block.{PROJECTIONS[layout.kind]}.weight"
    return shapes | {f"{block.source}.{projection}": (block.width, width) for block in blocks}


def _widen(narrow: Container[str], embedding: str, is_linear: bool) -> Callable[[str, torch.Tensor], torch.Tensor]:
    """A function that widens an embedding of C channels to 4 C, without changing what the network computes.

    Diffusers' network has a SiLU between its embedding and each projection. The kind `sr3` has none between its
    embedding z and a projection P: the new embedding is (z, -z, 0, 0) and the new projection (P, -P, 0, 0), because
    silu(z) - silu(-z) = z.
    """

    def prepare(key: str, tensor: torch.Tensor) -> torch.Tensor:
        if key not in narrow:
            return tensor
        zeros = torch.zeros_like(tensor)
        parts = [tensor, -tensor if is_linear else zeros, zeros, zeros]
        return torch.cat(parts, dim=0 if key.startswith(f"{embedding}.") else 1)

    return prepare
