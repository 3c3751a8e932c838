"""What the names and shapes of an original U-Net's tensors tell of its architecture.

improved-diffusion, guided-diffusion, latent-diffusion and Palette share one layout. With n residual blocks per level,
`input_blocks.0` is the first convolution, and then each level has n blocks, `.0` a residual block and `.1` attention
where the level has it, and one more that halves the image, save in the last level. `output_blocks` goes back up with
n + 1 blocks per level, the last of which also doubles the image.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch


StateDict = Mapping[str, torch.Tensor]


@dataclass
class Layout:
    """The architecture of a U-Net or half U-Net, by the names of the original's arguments where it has them."""

    in_channels: int
    model_channels: int
    num_res_blocks: int
    widths: list[int]  # the channels of each level
    attention: list[bool]  # for each level
    use_scale_shift_norm: bool
    resblock_updown: bool
    time_embed: str  # the module that embeds the timestep

    def resolutions(self) -> list[int]:
        """The original's `attention_resolutions`: how many times smaller the images are where attention runs."""
        return [2**level for level, attention in enumerate(self.attention) if attention]

    def attention_widths(self) -> list[int]:
        """The widths at which attention runs; it always does in the middle."""
        return [width for width, attention in zip(self.widths, self.attention, strict=True) if attention] + [
            self.widths[-1]
        ]


def read_layout(state_dict: StateDict, num_res_blocks: int | None = None, time_embed: str = "time_embed") -> Layout:
    """Reads the architecture off a state dict.

    One tensor that is missing or of a wrong shape does not change the result: sizes are those that most tensors have.

    Args:
        state_dict (`Mapping`): the tensors by their original names.
        num_res_blocks (`int`, *optional*): blocks per level, where the names do not tell.
        time_embed (`str`): the name of the module that embeds the timestep.

    Raises:
        ValueError: if this is no such network.
    """
    for part in (time_embed, "input_blocks", "middle_block"):
        if not has(state_dict, part):
            example = ", ".join(list(state_dict)[:3])
            raise ValueError(f"This is no U-Net of the diffusion repositories: it has no {part}, but {example} ...")
    num_blocks = count_blocks(state_dict, "input_blocks")
    num_res_blocks = num_res_blocks or _read_num_res_blocks(state_dict, num_blocks)
    if num_res_blocks < 1 or num_blocks % (num_res_blocks + 1) != 0:
        raise ValueError(
            f"The checkpoint has {num_blocks} input blocks, which do not make levels of `num_res_blocks`="
            f"{num_res_blocks} blocks each."
        )
    levels = [
        [f"input_blocks.{level + position}" for position in range(1, num_res_blocks + 1)]
        for level in range(0, num_blocks, num_res_blocks + 1)
    ]
    return Layout(
        in_channels=size_of(state_dict, {"input_blocks.0.0.weight": 1}),
        model_channels=size_of(
            state_dict,
            {f"{time_embed}.{layer}.{kind}": 0 for layer in (0, 2) for kind in ("weight", "bias")},
        )
        // 4,
        num_res_blocks=num_res_blocks,
        widths=[most_common(_width(state_dict, f"{block}.0") for block in level) for level in levels],
        attention=[any(has(state_dict, f"{block}.1") for block in level) for level in levels],
        use_scale_shift_norm=size_of(
            state_dict, {"middle_block.0.emb_layers.1.weight": 0, "middle_block.0.emb_layers.1.bias": 0}
        )
        == 2 * _width(state_dict, "middle_block.0"),
        resblock_updown=len(levels) > 1 and not has(state_dict, f"input_blocks.{num_res_blocks + 1}.0.op"),
        time_embed=time_embed,
    )


def count_blocks(state_dict: StateDict, part: str) -> int:
    """How many numbered blocks there are, counted from 0 to the first number that is not there."""
    count = 0
    while has(state_dict, f"{part}.{count}"):
        count += 1
    return count


def _read_num_res_blocks(state_dict: StateDict, num_blocks: int) -> int:
    if has(state_dict, "output_blocks"):
        return num_blocks // (1 + sum(_upsamples(state_dict, block) for block in range(num_blocks))) - 1
    for block in range(1, num_blocks):
        if has(state_dict, f"input_blocks.{block}.0.op"):
            return block - 1
    # A half U-Net that halves images in residual blocks, which look like any other: attention, which never follows
    # one that halves, and the widths may leave a single possibility.
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
    """Whether the blocks can be levels of `num_res_blocks` each, with a residual block that halves in between."""
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
    """The channels that a residual block puts out."""
    names = (
        "in_layers.2.weight",
        "in_layers.2.bias",
        "out_layers.0.weight",
        "out_layers.0.bias",
        "out_layers.3.weight",
        "out_layers.3.bias",
    )
    return size_of(state_dict, {f"{resnet}.{name}": 0 for name in names})


def size_of(state_dict: StateDict, dimensions: dict[str, int]) -> int:
    """The size that most of these tensors have in the dimension told for each."""
    sizes = [
        state_dict[key].shape[dimension]
        for key, dimension in dimensions.items()
        if key in state_dict and state_dict[key].ndim > dimension
    ]
    if not sizes:
        raise ValueError(f"The checkpoint has none of these tensors: {', '.join(dimensions)}.")
    return most_common(sizes)


def most_common(values: Iterable[int]) -> int:
    return Counter(values).most_common(1)[0][0]


def has(state_dict: StateDict, module: str) -> bool:
    return any(key.startswith(f"{module}.") for key in state_dict)
