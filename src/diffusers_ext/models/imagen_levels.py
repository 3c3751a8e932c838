"""How the U-Nets of imagen-pytorch are built of levels, and which of their options fit each other."""

from collections.abc import Sequence

from torch import nn

from .imagen_attention import ImagenCrossAttention
from .imagen_conditions import NOISE_SCHEDULES
from .imagen_layers import ImagenDownLevel, ImagenShape, ImagenUpLevel


MIDDLE_HEADS = (8, 64)  # number and width of the heads of cross-attention in the middle, whatever those of the levels


def imagen_levels(
    block_out_channels: Sequence[int],
    layers_per_block: int | Sequence[int],
    attention: bool | Sequence[bool],
    cross_attention: bool | Sequence[bool],
    shape: ImagenShape,
) -> tuple[nn.ModuleList, nn.ModuleList]:
    """
    The levels that go down, from the highest resolution, and those that go up, from the lowest.

    Args:
        block_out_channels, layers_per_block: as in [`ImagenUNet`].
        attention, cross_attention: its `block_attention` and `block_cross_attention`.
        shape (`ImagenShape`): of the network.

    Raises:
        ValueError: if a list has not one entry per level.
    """
    widths = [block_out_channels[0], *block_out_channels]
    last = len(block_out_channels) - 1
    options = [
        {"num_resnets": number, "has_attention": attends, "has_cross_attention": crosses, "shape": shape}
        for number, attends, crosses in zip(
            each_level("layers_per_block", layers_per_block, last + 1),
            each_level("block_attention", attention, last + 1),
            each_level("block_cross_attention", cross_attention, last + 1),
            strict=True,
        )
    ]
    down = [ImagenDownLevel(widths[i], widths[i + 1], is_last=i == last, **options[i]) for i in range(last + 1)]
    up = [ImagenUpLevel(widths[i + 1], widths[i], is_last=i == 0, **options[i]) for i in reversed(range(last + 1))]
    return nn.ModuleList(down), nn.ModuleList(up)


def middle_cross_attention(width: int, shape: ImagenShape) -> ImagenCrossAttention:
    return ImagenCrossAttention(width, *MIDDLE_HEADS, shape.context_width)


def imagen_embed_dim(width: int, class_embed_type: str | None) -> int:
    """The width of the embedding of noise levels, for networks of this width."""
    return 4 * width if class_embed_type is None else 8 * width


def each_level(name: str, value: object, count: int) -> list:
    """The value of each level, for an option that has one for all or one for each."""
    values = list(value) if isinstance(value, (list, tuple)) else [value] * count
    if len(values) != count:
        raise ValueError(f"`{name}` must be one value or {count}, one per level, but is {value}.")
    return values


def check_imagen_options(in_channels: int, class_embed_type: str | None, noise_schedule: str | None):
    """Refuses what is no network of imagen-pytorch."""
    if class_embed_type not in (None, "timestep"):
        raise ValueError(f'`class_embed_type` must be None or "timestep", but is {class_embed_type!r}.')
    if class_embed_type is not None and in_channels % 2 != 0:
        raise ValueError(
            "`in_channels` of a super-resolver must be even, those of noisy images and of small ones, but is "
            f"{in_channels}."
        )
    if noise_schedule not in (None, *NOISE_SCHEDULES):
        raise ValueError(f'`noise_schedule` must be "cosine", "linear" or None, but is {noise_schedule!r}.')
