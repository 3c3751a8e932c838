"""The U-Nets of Janspiry's SR3, as diffusers' UNet2DModel.

With n residual blocks per level, `downs.0` is the first convolution, and then each level has n blocks, with attention
or without, and one convolution that halves the image, save in the last level. `ups` goes back up with n + 1 blocks per
level and one convolution that doubles the image, save in the last. `mid` has two blocks, the first with attention.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from diffusers import UNet2DModel

from diffusers_ext.converters.arguments import check_agreement, check_image_size, checked
from diffusers_ext.converters.janspiry import SR3_BUFFERS, network_tensors
from diffusers_ext.converters.layout import StateDict, count_blocks, has, most_common, size_of
from diffusers_ext.converters.weights import Modules, load_converted


NUM_GROUPS = 32  # of every normalization, where the configuration does not say
# The network is told the noise level, or the timestep: the first module of its embedding by the name of the kind.
EMBEDDINGS = {"sr3": "noise_level_mlp", "ddpm": "time_mlp"}
# What brings it into a residual block.
PROJECTIONS = {"sr3": "noise_func.noise_func.0", "ddpm": "mlp.1"}
ARGUMENTS = (
    "which_model_G",
    "image_size",
    "in_channel",
    "out_channel",
    "inner_channel",
    "norm_groups",
    "channel_multiplier",
    "attn_res",
    "res_blocks",
    "dropout",
    "channels",
    "conditional",
)


@dataclass
class SR3Layout:
    """The architecture of a U-Net of SR3, by the names of the original's arguments where it has them."""

    kind: str  # of `EMBEDDINGS`
    in_channel: int
    out_channel: int
    inner_channel: int
    res_blocks: int
    widths: list[int]  # the channels of each level
    attention: list[bool]  # for each level


class Block(NamedTuple):
    """A residual block, and attention behind it or not."""

    source: str  # the original's block
    target: str  # the block of diffusers that it is in
    position: int  # there
    width: int
    attention: bool


def convert_sr3(state_dict: Mapping[str, torch.Tensor], **config) -> UNet2DModel:
    r"""
    A network of https://github.com/Janspiry/Image-Super-Resolution-via-Iterative-Refinement (Saharia et al. 2021,
    https://huggingface.co/papers/2104.07636), of the kind `sr3` or `ddpm`.

    The network takes the conditioning image and behind it the noisy one, and instead of a timestep the noise level
    sqrt(alpha_bar_t) in the kind `sr3`.

    Args:
        state_dict (`Mapping`):
            The tensors of the original, `I*_E*_gen.pth`.
        config:
            The entries `unet` and `diffusion` of the original's configuration, and `which_model_G`. The checkpoint
            needs `norm_groups` where they are not 32. `attn_res` are heights of the image where attention runs. What
            the tensors show need not be given, and must agree with them if it is.

    Returns:
        [`UNet2DModel`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or of wrong shapes, or if arguments are unknown or at odds with
            the tensors.
    """
    config = checked(config, ARGUMENTS)
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
        tensors (`Mapping`): those of the network, without prefix.
        layout (`SR3Layout`): what they tell.
        config (`Mapping`): the arguments.
        widths_name (`str`): the argument that says how many times `inner_channel` wide the levels are.
        read (`Mapping`): more that the tensors say, by the names of the arguments.
    """
    _check_against(layout, config, widths_name, read)
    check_image_size(config.get("image_size"), len(layout.widths))
    if layout.widths[0] != layout.inner_channel:
        raise ValueError(f"`{widths_name}` must begin with 1, for other networks are not converted.")
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
    embedding, blocks = EMBEDDINGS[layout.kind], _blocks(layout)
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


def read_sr3_layout(tensors: StateDict) -> SR3Layout:
    """Reads the architecture off the tensors of a network, by the names they have without prefix.

    One tensor that is missing or of a wrong shape does not change the result: sizes are those that most tensors have.

    Raises:
        ValueError: if this is no such network.
    """
    kinds = [kind for kind, embedding in EMBEDDINGS.items() if has(tensors, embedding)]
    for name in ("downs", "mid", "ups"):
        if len(kinds) != 1 or not has(tensors, name):
            missing = name if len(kinds) == 1 else "noise_level_mlp or time_mlp"
            raise ValueError(f"This is no U-Net of SR3: it has no {missing}, but {', '.join(list(tensors)[:3])} ...")
    num_downs = count_blocks(tensors, "downs")
    num_levels = 1 + sum(has(tensors, f"downs.{i}.conv") for i in range(1, num_downs))
    res_blocks = num_downs // num_levels - 1
    if res_blocks < 1 or num_downs % num_levels != 0:
        raise ValueError(f"The checkpoint has {num_downs} `downs`, which do not make {num_levels} equal levels.")
    levels = [[f"downs.{i}" for i in _level(level, res_blocks)] for level in range(num_levels)]
    embedding = EMBEDDINGS[kinds[0]]
    return SR3Layout(
        kind=kinds[0],
        in_channel=size_of(tensors, {"downs.0.weight": 1}),
        out_channel=size_of(tensors, {"final_conv.block.3.weight": 0, "final_conv.block.3.bias": 0}),
        inner_channel=size_of(
            tensors,
            {"downs.0.weight": 0, "downs.0.bias": 0, f"{embedding}.3.weight": 0, f"{embedding}.3.bias": 0},
        ),
        res_blocks=res_blocks,
        widths=[most_common(_width(tensors, block) for block in level) for level in levels],
        attention=[any(has(tensors, f"{block}.attn") for block in level) for level in levels],
    )


def _level(level: int, res_blocks: int) -> range:
    """The numbers of a level's residual blocks in `downs`."""
    first = 1 + level * (res_blocks + 1)
    return range(first, first + res_blocks)


def _width(tensors: StateDict, block: str) -> int:
    """The channels that a residual block puts out."""
    names = ("block1.block.3", "block2.block.0", "block2.block.3")
    return size_of(tensors, {f"{block}.res_block.{name}.{kind}": 0 for name in names for kind in ("weight", "bias")})


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


def _blocks(layout: SR3Layout) -> list[Block]:
    levels = list(zip(layout.widths, layout.attention, strict=True))
    blocks = [
        Block("mid.0", "mid_block", 0, layout.widths[-1], True),
        Block("mid.1", "mid_block", 1, layout.widths[-1], False),
    ]
    for level, (width, attention) in enumerate(levels):
        for position, i in enumerate(_level(level, layout.res_blocks)):
            blocks.append(Block(f"downs.{i}", f"down_blocks.{level}", position, width, attention))
    for level, (width, attention) in enumerate(reversed(levels)):
        for position in range(layout.res_blocks + 1):
            i = level * (layout.res_blocks + 2) + position
            blocks.append(Block(f"ups.{i}", f"up_blocks.{level}", position, width, attention))
    return blocks


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
    """The shapes of the tensors that put out or take the embedding, of C channels where diffusers has 4 C."""
    width, last = layout.inner_channel, f"{EMBEDDINGS[layout.kind]}.3"
    shapes = {f"{last}.weight": (width, 4 * width), f"{last}.bias": (width,)}
    projection = f"res_block.{PROJECTIONS[layout.kind]}.weight"
    return shapes | {f"{block.source}.{projection}": (block.width, width) for block in blocks}


def _widen(narrow: Container[str], embedding: str, is_linear: bool):
    """A function that makes 4 C channels of an embedding of C, to the same effect.

    Where the original has no SiLU between its embedding z and a projection P, as in the kind `sr3`, the new embedding
    is (z, -z, 0, 0) and the projection (P, -P, 0, 0), for silu(z) - silu(-z) = z.
    """

    def prepare(key: str, tensor: torch.Tensor) -> torch.Tensor:
        if key not in narrow:
            return tensor
        zeros = torch.zeros_like(tensor)
        parts = [tensor, -tensor if is_linear else zeros, zeros, zeros]
        return torch.cat(parts, dim=0 if key.startswith(f"{embedding}.") else 1)

    return prepare
