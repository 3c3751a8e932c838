"""The architecture of an ADM U-Net, as far as the names and shapes of its tensors show it.

ADM is guided-diffusion's U-Net (Dhariwal & Nichol 2021). The U-Nets of improved-diffusion, latent-diffusion and
Palette have the same layout. With n residual blocks per level, `input_blocks.0` is the first convolution. Each level
then has n blocks, in which `.0` is a residual block and `.1` is attention if the level has it. One more block halves
the image, except in the last level. `output_blocks` goes back up with n + 1 blocks per level, and the last block of a
level also doubles the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from diffusers_ext.converters.state_dicts import StateDict, count_blocks, first_names, has, most_common, size_of


@dataclass
class ADMLayout:
    """The architecture of a U-Net or of its encoder half. Most fields are named like the original's arguments."""

    in_channels: int
    model_channels: int
    depths: list[int]  # the residual blocks of each level
    widths: list[int]  # the channels of each level
    attention: list[bool]  # for each level
    middle_attention: bool
    use_scale_shift_norm: bool
    resblock_updown: bool
    time_embed: str  # the module that embeds the timestep

    @property
    def num_res_blocks(self) -> int | list[int]:
        """The residual blocks of each level, one number if all have as many."""
        return self.depths[0] if len(set(self.depths)) == 1 else self.depths

    def resolutions(self) -> list[int]:
        """The original's `attention_resolutions`: how many times smaller the images are where attention runs."""
        return [2**level for level, attention in enumerate(self.attention) if attention]

    def attention_widths(self) -> list[int]:
        """The widths at which attention runs, that of the middle block last."""
        runs = [*self.attention, self.middle_attention]
        return [width for width, attention in zip([*self.widths, self.widths[-1]], runs, strict=True) if attention]


def read_adm_layout(
    state_dict: StateDict, num_res_blocks: int | Sequence[int] | None = None, time_embed: str = "time_embed"
) -> ADMLayout:
    """Reads the architecture from a state dict.

    Args:
        state_dict (`Mapping`): the tensors by their original names.
        num_res_blocks (`int` or `Sequence`, *optional*): blocks per level, if the names do not show them, or those of
            each level.
        time_embed (`str`): the name of the module that embeds the timestep.

    Raises:
        ValueError: if the tensors do not belong to such a network.
    """
    for module in (time_embed, "input_blocks", "middle_block"):
        if not has(state_dict, module):
            raise ValueError(
                f"This is not a U-Net of the diffusion repositories: it has no {module}; its tensors are "
                f"{first_names(state_dict)}."
            )
    num_blocks = count_blocks(state_dict, "input_blocks")
    num_res_blocks = num_res_blocks or _read_num_res_blocks(state_dict, num_blocks)
    if isinstance(num_res_blocks, int):
        depths = [num_res_blocks] * (num_blocks // (num_res_blocks + 1)) if num_res_blocks > 0 else []
    else:
        depths = list(num_res_blocks)
    if not depths or min(depths) < 1 or sum(depth + 1 for depth in depths) != num_blocks:
        raise ValueError(
            f"The checkpoint has {num_blocks} input blocks, which do not make levels of `num_res_blocks`="
            f"{num_res_blocks} blocks each."
        )
    firsts = accumulate((depth + 1 for depth in depths[:-1]), initial=0)
    levels = [
        [f"input_blocks.{first + position}" for position in range(1, depth + 1)]
        for first, depth in zip(firsts, depths, strict=True)
    ]
    time_channels = size_of(
        state_dict, {f"{time_embed}.{layer}.{kind}": 0 for layer in (0, 2) for kind in ("weight", "bias")}
    )
    projected = size_of(state_dict, {f"middle_block.0.emb_layers.1.{kind}": 0 for kind in ("weight", "bias")})
    return ADMLayout(
        in_channels=size_of(state_dict, {"input_blocks.0.0.weight": 1}),
        model_channels=time_channels // 4,
        depths=depths,
        widths=[most_common(_width(state_dict, f"{block}.0") for block in level) for level in levels],
        attention=[any(has(state_dict, f"{block}.1") for block in level) for level in levels],
        middle_attention=not has(state_dict, "middle_block.1.in_layers"),
        use_scale_shift_norm=projected == 2 * _width(state_dict, "middle_block.0"),
        resblock_updown=len(levels) > 1 and not has(state_dict, f"input_blocks.{depths[0] + 1}.0.op"),
        time_embed=time_embed,
    )


def read_depths(state_dict: StateDict) -> list[int]:
    """The residual blocks of each level of a U-Net, where levels may have different numbers of them."""
    num_blocks = count_blocks(state_dict, "output_blocks")
    ends = [block + 1 for block in range(num_blocks - 1) if _upsamples(state_dict, block)]
    return [end - first - 1 for first, end in zip([0, *ends], [*ends, num_blocks], strict=True)][::-1]


def _read_num_res_blocks(state_dict: StateDict, num_blocks: int) -> int:
    if has(state_dict, "output_blocks"):
        return num_blocks // (1 + sum(_upsamples(state_dict, block) for block in range(num_blocks))) - 1
    for block in range(1, num_blocks):
        if has(state_dict, f"input_blocks.{block}.0.op"):
            return block - 1
    # An encoder half that halves images in residual blocks, which look like all the others. Attention, which never
    # follows such a block, and the widths may leave a single possibility.
    possible = [n for n in range(1, num_blocks) if _can_be(state_dict, num_blocks, n)]
    if len(possible) != 1:
        raise ValueError(
            "The checkpoint does not show how many blocks its levels have: give `num_res_blocks`, which may be "
            f"{' or '.join(map(str, possible)) or 'any'}."
        )
    return possible[0]


def _upsamples(state_dict: StateDict, block: int) -> bool:
    return any(
        has(state_dict, f"output_blocks.{block}.{position}.{kind}")
        for position in (1, 2)
        for kind in ("conv", "in_layers", "emb_layers", "out_layers")
    )


def _can_be(state_dict: StateDict, num_blocks: int, num_res_blocks: int) -> bool:
    """Whether the blocks can be levels of `num_res_blocks` each, with a residual block that halves between levels."""
    if num_blocks % (num_res_blocks + 1) != 0:
        return False
    width = None
    for first in range(0, num_blocks, num_res_blocks + 1):
        blocks = [f"input_blocks.{first + position}" for position in range(1, num_res_blocks + 1)]
        if len({has(state_dict, f"{block}.1") for block in blocks}) != 1:
            return False
        widths = {_width(state_dict, f"{block}.0") for block in blocks}
        halving = f"input_blocks.{first}"
        if len(widths) != 1 or (
            first > 0 and (has(state_dict, f"{halving}.1") or _width(state_dict, f"{halving}.0") != width)
        ):
            return False
        (width,) = widths
    return True


def _width(state_dict: StateDict, resnet: str) -> int:
    """The output channels of a residual block."""
    names = (
        "in_layers.2.weight",
        "in_layers.2.bias",
        "out_layers.0.weight",
        "out_layers.0.bias",
        "out_layers.3.weight",
        "out_layers.3.bias",
    )
    return size_of(state_dict, {f"{resnet}.{name}": 0 for name in names})
