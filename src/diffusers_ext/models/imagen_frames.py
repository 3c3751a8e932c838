"""Layers along the frames of films, as in imagen-pytorch; all of them see only the past."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from .imagen_attention import ImagenSelfAttention


FRAME_KERNEL = 3


def per_frame(layer: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The result of a layer of images for images `(N, C, H, W)`, or for each frame of films `(N, C, F, H, W)`."""
    if x.ndim == 4:
        return layer(x)
    return layer(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (-1, x.shape[2])).transpose(1, 2)


def per_pixel(layer: Callable[[torch.Tensor], torch.Tensor], films: torch.Tensor) -> torch.Tensor:
    """The result of a layer of sequences `(N', C, F)` for each pixel of films `(N, C, F, H, W)`."""
    sequences = films.permute(0, 3, 4, 1, 2).flatten(0, 2)
    return layer(sequences).unflatten(0, (-1, *films.shape[3:])).permute(0, 3, 4, 1, 2)


class CausalFrameConv(nn.Conv1d):
    """A convolution along frames, of a frame and the two before it."""

    def __init__(self, channels: int, groups: int = 1):
        super().__init__(channels, channels, FRAME_KERNEL, groups=groups)

    def forward(self, films: torch.Tensor) -> torch.Tensor:
        return per_pixel(self._convolve, films)

    def _convolve(self, sequences: torch.Tensor) -> torch.Tensor:
        return super().forward(F.pad(sequences, (FRAME_KERNEL - 1, 0)))


class FrameBlock(nn.Module):
    """A position encoding by a convolution of each channel, and causal attention: what mixes the frames of films."""

    def __init__(self, channels: int, num_heads: int, head_width: int):
        super().__init__()
        self.conv = CausalFrameConv(channels, groups=channels)
        self.position_bias = FrameDistanceBias(channels, num_heads)
        self.attention = ImagenSelfAttention(channels, num_heads, head_width)
        nn.init.zeros_(self.attention.norm_out.weight)

    def forward(self, films: torch.Tensor) -> torch.Tensor:
        films = films + self.conv(films)
        return films + per_pixel(self._attend, films)

    def _attend(self, sequences: torch.Tensor) -> torch.Tensor:
        bias = self.position_bias(sequences.shape[2])
        return self.attention(sequences.transpose(1, 2), bias=bias).transpose(1, 2)


class FrameDistanceBias(nn.Module):
    """What is added to the cosines of a frame and those before it, by their distance: a small network's output."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.linear_1 = nn.Linear(1, width)
        self.norm_1 = nn.LayerNorm(width, bias=False)
        self.linear_2 = nn.Linear(width, width)
        self.norm_2 = nn.LayerNorm(width, bias=False)
        self.linear_3 = nn.Linear(width, num_heads)
        self.first_key_bias = nn.Parameter(torch.randn(num_heads))

    def forward(self, num_frames: int) -> torch.Tensor:
        """`(heads, F, 1 + F)`: of the first key, which is no frame's, and of all frames."""
        positions = torch.arange(num_frames, device=self.first_key_bias.device)
        back = positions[:, None] - positions
        hidden = back[:, :, None].to(self.first_key_bias.dtype)
        hidden = F.silu(self.norm_1(self.linear_1(hidden)))
        hidden = F.silu(self.norm_2(self.linear_2(hidden)))
        bias = self.linear_3(hidden).permute(2, 0, 1).masked_fill(back < 0, -torch.inf)
        return torch.cat([self.first_key_bias[:, None, None].expand(-1, num_frames, 1), bias], dim=2)
