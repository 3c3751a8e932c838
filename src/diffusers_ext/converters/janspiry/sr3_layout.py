"""The architecture of an SR3 U-Net, as far as the names and shapes of its tensors show it.

With n residual blocks per level, `downs.0` is the first convolution. Each level then has n blocks, with or without
attention, and one convolution that halves the image, except in the last level. `ups` goes back up with n + 1 blocks
per level and one convolution that doubles the image, except in the last. `mid` has two blocks, the first with
attention.
"""

from dataclasses import dataclass
from typing import NamedTuple

from diffusers_ext.converters.state_dicts import StateDict, count_blocks, first_names, has, most_common, size_of


# The network takes the noise level or the timestep. The name of its embedding, by the kind of network.
EMBEDDINGS = {"sr3": "noise_level_mlp", "ddpm": "time_mlp"}


@dataclass
class SR3Layout:
    """The architecture of a U-Net of SR3. Most fields are named like the original's arguments."""

    kind: str  # a key of `EMBEDDINGS`
    in_channel: int
    out_channel: int
    inner_channel: int
    res_blocks: int
    widths: list[int]  # the channels of each level
    attention: list[bool]  # for each level


class Block(NamedTuple):
    """A residual block, which attention may follow."""

    source: str  # the original's block
    target: str  # the block of diffusers that contains its counterpart
    position: int  # of the counterpart in that block
    width: int
    attention: bool


def read_sr3_layout(tensors: StateDict) -> SR3Layout:
    """Reads the architecture from the tensors of a network, whose names have no prefix.

    Raises:
        ValueError: if the tensors do not belong to such a network.
    """
    kinds = [kind for kind, embedding in EMBEDDINGS.items() if has(tensors, embedding)]
    for name in ("downs", "mid", "ups"):
        if len(kinds) != 1 or not has(tensors, name):
            missing = name if len(kinds) == 1 else "noise_level_mlp or time_mlp"
            raise ValueError(
                f"This is not a U-Net of SR3: it has no {missing}; its tensors are {first_names(tensors)}."
            )
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
    """The output channels of a residual block."""
    names = ("block1.block.3", "block2.block.0", "block2.block.3")
    return size_of(tensors, {f"{block}.res_block.{name}.{kind}": 0 for name in names for kind in ("weight", "bias")})


def residual_blocks(layout: SR3Layout) -> list[Block]:
    """All residual blocks of the network."""
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
