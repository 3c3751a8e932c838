"""Blocks and levels of the U-Nets of imagen-pytorch, for images `(N, C, H, W)` and for films `(N, C, F, H, W)`.

With `of_films` a layer has further layers along the frames, which `ignore_time` skips.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from .imagen_attention import ImagenCrossAttention, ImagenFeedForward, ImagenSelfAttention
from .imagen_frames import CausalFrameConv, FrameBlock, per_frame


FIRST_KERNELS = (3, 7, 15)  # of the first convolution, with 1/2, 1/4 and 1/4 of its channels
SKIP_SCALE = 2**-0.5  # of skip connections (Saharia et al. 2022, appendix B.1)
FEED_FORWARD_FACTOR = 2
MIN_GATE_WIDTH = 3


class ImagenShape(NamedTuple):
    """What all levels of a network have in common.

    Attributes:
        embed_dim (`int`): the width of the embedding of the noise level and the text.
        context_width (`int`): the width of the tokens that layers attend to.
        num_heads, head_width (`int`): of attention.
        downsample_first (`bool`): whether a level halves images before its blocks, as an Efficient U-Net does.
        of_films (`bool`): whether there are layers along frames.
    """

    embed_dim: int
    context_width: int
    num_heads: int
    head_width: int
    downsample_first: bool
    of_films: bool


def over_positions(layer: Callable[..., torch.Tensor], x: torch.Tensor, *inputs) -> torch.Tensor:
    """The result of a layer of sequences `(N, L, C)`, for the sequence of all positions of images or films."""
    states = layer(x.flatten(2).transpose(1, 2), *inputs)
    return states.transpose(1, 2).unflatten(2, x.shape[2:])


class FirstConv(nn.Module):
    """Convolutions of several sizes side by side (the cross-scale embedding of CrossFormer, Wang et al. 2021)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        widths = [out_channels // 2, out_channels // 4]
        widths.append(out_channels - sum(widths))
        self.convs = nn.ModuleList(
            nn.Conv2d(in_channels, width, kernel, padding=kernel // 2)
            for kernel, width in zip(FIRST_KERNELS, widths, strict=True)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([per_frame(conv, x) for conv in self.convs], dim=1)


class ImagenConvBlock(nn.Module):
    """A norm over channels, an activation and a convolution."""

    def __init__(self, in_channels: int, out_channels: int, of_films: bool):
        super().__init__()
        self.norm_scale = nn.Parameter(torch.ones(in_channels))
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.frame_conv = None
        if of_films:
            # At first it leaves frames as they are. (The original begins with the frame before.)
            self.frame_conv = CausalFrameConv(out_channels)
            nn.init.zeros_(self.frame_conv.weight)
            nn.init.eye_(self.frame_conv.weight[:, :, -1])
            nn.init.zeros_(self.frame_conv.bias)

    def forward(
        self, x: torch.Tensor, scale_shift: torch.Tensor | None = None, ignore_time: bool = False
    ) -> torch.Tensor:
        x = F.normalize(x, dim=1) * x.shape[1] ** 0.5 * like_channels(self.norm_scale[None], x)
        if scale_shift is not None:
            scale, shift = like_channels(scale_shift, x).chunk(2, dim=1)
            x = x * (scale + 1) + shift
        x = per_frame(self.conv, F.silu(x))
        return x if self.frame_conv is None or ignore_time else self.frame_conv(x)


class ImagenResnetBlock(nn.Module):
    """
    Two blocks, the second one modulated by the embedding of the noise level and the text.

    Args:
        in_channels, out_channels (`int`): of images.
        shape (`ImagenShape`): of the network.
        cross_attention (`ImagenCrossAttention`, *optional*): attention to the tokens, between the blocks.
        has_gate (`bool`): whether its result is gated by a global context at the end.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        shape: ImagenShape,
        cross_attention: ImagenCrossAttention | None = None,
        has_gate: bool = False,
    ):
        super().__init__()
        self.time_emb_proj = nn.Linear(shape.embed_dim, 2 * out_channels)
        self.block_1 = ImagenConvBlock(in_channels, out_channels, shape.of_films)
        self.cross_attention = cross_attention
        self.block_2 = ImagenConvBlock(out_channels, out_channels, shape.of_films)
        self.gate = GlobalContextGate(out_channels) if has_gate else nn.Identity()
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(
        self, x: torch.Tensor, emb: torch.Tensor, context: torch.Tensor | None = None, ignore_time: bool = False
    ) -> torch.Tensor:
        hidden = self.block_1(x, ignore_time=ignore_time)
        if self.cross_attention is not None:
            hidden = hidden + over_positions(self.cross_attention, hidden, context)
        hidden = self.block_2(hidden, self.time_emb_proj(F.silu(emb)), ignore_time)
        return self.gate(hidden) + per_frame(self.shortcut, x)


class GlobalContextGate(nn.Module):
    """Scales channels by what attention pools of all positions (Cao et al. 2019, with a sigmoid at the end)."""

    def __init__(self, channels: int):
        super().__init__()
        width = max(MIN_GATE_WIDTH, channels // 2)
        self.to_weights = nn.Linear(channels, 1)
        self.linear_1 = nn.Linear(channels, width)
        self.linear_2 = nn.Linear(width, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states = x.flatten(2).transpose(1, 2)
        pooled = (self.to_weights(states).softmax(dim=1) * states).sum(dim=1)
        return x * like_channels(self.linear_2(F.silu(self.linear_1(pooled))).sigmoid(), x)


class ImagenTransformerBlock(nn.Module):
    """Attention of all positions to each other, and to tokens, and a feed-forward layer."""

    def __init__(self, channels: int, shape: ImagenShape, sees_context: bool = True):
        super().__init__()
        context_width = shape.context_width if sees_context else None
        self.attention = ImagenSelfAttention(channels, shape.num_heads, shape.head_width, context_width)
        self.feed_forward = ImagenFeedForward(channels, FEED_FORWARD_FACTOR, shifts_frames=shape.of_films)

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        x = x + over_positions(self.attention, x, context)
        return x + self.feed_forward(x.movedim(1, -1)).movedim(-1, 1)


class ImagenDownsample(nn.Module):
    """Halves images, whose pixels become channels (Sunkara and Luo 2022)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(4 * in_channels, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return per_frame(lambda images: self.conv(F.pixel_unshuffle(images, 2)), x)


class ImagenWiden(nn.Module):
    """What stands after the last level instead of halving: two convolutions side by side."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv_1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv_2 = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return per_frame(self.conv_1, x) + per_frame(self.conv_2, x)


class ImagenUpsample(nn.Module):
    """Doubles images, whose channels become pixels; at first all four pixels are alike (Aitken et al. 2017)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 4 * out_channels, 1)
        with torch.no_grad():
            first = torch.empty_like(self.conv.weight[::4])
            nn.init.kaiming_uniform_(first)
            self.conv.weight.copy_(first.repeat_interleave(4, dim=0))
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return per_frame(lambda images: F.pixel_shuffle(F.silu(self.conv(images)), 2), x)


class ImagenLevel(nn.Module):
    """The blocks of one resolution. In the half that goes up, all resnets see the result of one that went down."""

    def __init__(
        self,
        channels: int,
        skip_channels: int,
        num_resnets: int,
        shape: ImagenShape,
        has_attention: bool,
        has_cross_attention: bool,
    ):
        super().__init__()
        heads, width = (shape.num_heads, shape.head_width), shape.context_width
        cross_attention = ImagenCrossAttention(channels, *heads, width) if has_cross_attention else None
        in_channels = channels + skip_channels
        self.first_resnet = ImagenResnetBlock(in_channels, channels, shape, cross_attention)
        self.resnets = nn.ModuleList(
            ImagenResnetBlock(in_channels, channels, shape, has_gate=True) for _ in range(num_resnets)
        )
        self.attention = ImagenTransformerBlock(channels, shape) if has_attention else None
        self.frame_block = FrameBlock(channels, *heads) if shape.of_films else None

    def attend(self, x: torch.Tensor, context: torch.Tensor, ignore_time: bool) -> torch.Tensor:
        """What follows the resnets."""
        if self.attention is not None:
            x = self.attention(x, context)
        return x if self.frame_block is None or ignore_time else self.frame_block(x)


class ImagenDownLevel(ImagenLevel):
    """A level of the half that goes down, which halves images before or after its blocks."""

    def __init__(
        self, in_channels: int, out_channels: int, is_last: bool, num_resnets: int, shape: ImagenShape, **has: bool
    ):
        channels = out_channels if shape.downsample_first else in_channels
        super().__init__(channels, 0, num_resnets, shape, **has)
        halve = ImagenWiden if is_last and not shape.downsample_first else ImagenDownsample
        layer = halve(in_channels, out_channels)
        self.downsample_in, self.downsample_out = (
            (layer, nn.Identity()) if shape.downsample_first else (nn.Identity(), layer)
        )

    def forward(
        self, x: torch.Tensor, emb: torch.Tensor, context: torch.Tensor, ignore_time: bool = False
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The images for the next level, and those for skip connections."""
        x, skips = self.first_resnet(self.downsample_in(x), emb, context, ignore_time), []
        for resnet in self.resnets:
            x = resnet(x, emb, ignore_time=ignore_time)
            skips.append(x)
        x = self.attend(x, context, ignore_time)
        return self.downsample_out(x), [*skips, x]


class ImagenUpLevel(ImagenLevel):
    """A level of the half that goes up, which doubles images after its blocks."""

    def __init__(
        self, in_channels: int, out_channels: int, is_last: bool, num_resnets: int, shape: ImagenShape, **has: bool
    ):
        skip_channels = in_channels if shape.downsample_first else out_channels
        super().__init__(in_channels, skip_channels, num_resnets, shape, **has)
        doubles = shape.downsample_first or not is_last
        self.upsample = ImagenUpsample(in_channels, out_channels) if doubles else nn.Identity()

    def forward(
        self,
        x: torch.Tensor,
        skips: list[torch.Tensor],
        emb: torch.Tensor,
        context: torch.Tensor,
        ignore_time: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The images for the next level, and those before they are doubled; `skips` are those of the level beside."""
        skip, *others = reversed(skips)
        x = self.first_resnet(with_skip(x, skip), emb, context, ignore_time)
        for resnet, skip in zip(self.resnets, others, strict=True):
            x = resnet(with_skip(x, skip), emb, ignore_time=ignore_time)
        x = self.attend(x, context, ignore_time)
        return self.upsample(x), x


def with_skip(x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
    return torch.cat([x, skip * SKIP_SCALE], dim=1)


def like_channels(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Values `(N, C)` in a shape that multiplies the channels of images or films."""
    return values[(...,) + (None,) * (x.ndim - 2)]
