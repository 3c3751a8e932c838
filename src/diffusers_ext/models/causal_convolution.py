"""Convolutions that see only earlier pixels, and a cache with which they compute one pixel at a time."""

import torch
import torch.nn.functional as F
from torch import nn


class PixelCache:
    r"""
    The features of images that are being made pixel by pixel, so that each is computed once.

    The layers of a network are called for a row, `(N, C, 1, W)`, or for a pixel, `(N, C, 1, 1)`, with this cache,
    which keeps their inputs and says at which `row` and `column` of the image they are. A cache is for one batch of
    images, and for a network whose weights do not change.

    Args:
        height, width (`int`): of the images.
    """

    def __init__(self, height: int, width: int):
        self.height, self.width = height, width
        self.row = -1
        self.column: int | None = None  # None while the layers are called for a whole row
        self.above = None  # what the network has computed from the rows above for this row
        self._maps: dict[nn.Module, torch.Tensor] = {}
        self._weights: dict[nn.Module, torch.Tensor] = {}

    def move_to(self, row: int, column: int | None = None) -> None:
        """Says where the layers that are called next are."""
        self.row, self.column = row, column

    def weight(self, layer: nn.Module) -> torch.Tensor:
        """The layer's weight, with its mask or its normalization."""
        if layer not in self._weights:
            self._weights[layer] = layer.causal_weight()
        return self._weights[layer]

    def place(self, scale: int) -> tuple[int, int]:
        """Row and first column in features of 1/`scale` of the image's size."""
        return self.row // scale, (self.column or 0) // scale

    def is_due(self, scale: int) -> bool:
        """Whether features of 1/`scale` of the size have a new value here, and not only the image."""
        return self.row % scale == 0 and (self.column or 0) % scale == 0

    def window(self, layer: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
        """Keeps a row or a pixel of the layer's input, and returns all that its output there depends on."""
        left, right, top, _ = layer.margins
        number, channels, _, width = hidden_states.shape
        row, column = self.place(layer.scale)
        size = (self.height // layer.scale + top, self.width // layer.scale + left + right)
        kept = self._map(layer, hidden_states.new_zeros, (number, channels, *size))
        kept[:, :, row + top, column + left : column + left + width] = hidden_states[:, :, 0]
        rows, columns = layer.span
        return kept[:, :, row : row + rows + 1, column : column + width + columns]

    def enlarged(self, layer: nn.Module, hidden_states: torch.Tensor | None) -> torch.Tensor:
        """Keeps the enlarged features, if there are new ones, and returns those of this row or pixel."""
        row, column = self.place(layer.scale)
        if hidden_states is not None:
            patch = layer.enlarge(hidden_states)
            size = (self.height // layer.scale, self.width // layer.scale)
            kept = self._map(layer, patch.new_zeros, (*patch.shape[:2], *size))
            kept[:, :, row : row + 2, column : column + patch.shape[3]] = patch
        end = None if self.column is None else column + 1
        return self._maps[layer][:, :, row : row + 1, column:end]

    def _map(self, layer: nn.Module, make, shape: tuple[int, ...]) -> torch.Tensor:
        if layer not in self._maps:
            self._maps[layer] = make(shape)
        return self._maps[layer]


class CausalConv2d(nn.Conv2d):
    r"""
    A convolution over rows above a pixel and, in its own row, over columns that the network may see.

    Args:
        in_channels, out_channels (`int`): as in `nn.Conv2d`.
        kernel_size (`tuple[int, int]`): how many rows, ending with the pixel's own, and how many columns.
        is_centred (`bool`): whether the columns are on both sides, or end with the pixel's own.
        only_above (`bool`): whether the rows end with the one above.
        stride, dilation (`int`): as in `nn.Conv2d`.
        scale (`int`): the image has so many times the size of the input.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        *,
        is_centred: bool,
        only_above: bool = False,
        stride: int = 1,
        dilation: int = 1,
        scale: int = 1,
    ):
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, dilation=dilation)
        self.scale = scale
        self.span = (dilation * (kernel_size[0] - 1), dilation * (kernel_size[1] - 1))
        left = self.span[1] // 2 if is_centred else self.span[1]
        top = self.span[0] + int(only_above)
        self.margins = (left, self.span[1] - left, top, -int(only_above))  # left, right, top, bottom

    def causal_weight(self) -> torch.Tensor:
        """The weight as the convolution uses it."""
        return self.weight

    def forward(self, hidden_states: torch.Tensor, cache: PixelCache | None = None) -> torch.Tensor | None:
        """The output for whole maps or, with a cache, for a row or a pixel: `None` where a stride skips it."""
        if cache is None:
            return self._conv_forward(F.pad(hidden_states, self.margins), self.causal_weight(), self.bias)
        window = hidden_states if self.span == (0, 0) else cache.window(self, hidden_states)
        if self.stride[0] > 1 and not cache.is_due(self.scale * self.stride[0]):
            return None
        return self._conv_forward(window, cache.weight(self), self.bias)


class CausalImageConv2d(CausalConv2d):
    r"""
    The first layer of a network, whose input is the image itself.

    Args:
        shift (`tuple[int, int]`): rows and columns by which the output is moved down and to the right, so that it
            does not see the pixel itself. What comes in from outside is 0.
    """

    def __init__(self, *args, shift: tuple[int, int] = (0, 0), **kwargs):
        super().__init__(*args, **kwargs)
        self.shift = shift

    def forward(self, image: torch.Tensor, cache: PixelCache | None = None) -> torch.Tensor:
        """The output for the whole image `(N, C, H, W)` or, with a cache, for a row or a pixel of it."""
        down, right = self.shift
        if cache is None:
            return F.pad(super().forward(image), (right, -right, down, -down))
        row, column = cache.row - down, (cache.column or 0) - right
        width = image.shape[3] if cache.column is None else 1
        if min(row, column) < 0:
            return image.new_zeros(image.shape[0], self.out_channels, 1, width)
        rows, columns = self.span
        window = F.pad(image, self.margins)[:, :, row : row + rows + 1, column : column + width + columns]
        return self._conv_forward(window, cache.weight(self), self.bias)


class CausalUpsample2d(nn.ConvTranspose2d):
    r"""
    A transposed convolution that doubles both sides; four pixels depend on what their common place depends on.

    Args:
        in_channels, out_channels (`int`): as in `nn.ConvTranspose2d`.
        kernel_size (`tuple[int, int]`): 2 rows, and 3 columns (on both sides) or 2 (ending with the pixel's own).
        scale (`int`): the image has so many times the size of the output.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: tuple[int, int], *, scale: int = 1):
        super().__init__(in_channels, out_channels, kernel_size, stride=2, output_padding=1)
        self.scale = scale

    def enlarge(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`(N, C, 2H, 2W)` from `(N, C, H, W)`."""
        height, width = hidden_states.shape[2:]
        left = (self.kernel_size[1] - 1) // 2
        return super().forward(hidden_states)[:, :, : 2 * height, left : left + 2 * width]

    def forward(self, hidden_states: torch.Tensor | None, cache: PixelCache | None = None) -> torch.Tensor:
        """The output for whole maps or, with a cache, for a row or a pixel, where the input may be `None`."""
        return self.enlarge(hidden_states) if cache is None else cache.enlarged(self, hidden_states)


class ColorMaskMixin:
    r"""
    Lets the colours of a pixel depend on each other in order (van den Oord et al. 2016, section 3.4).

    The channels of a layer are divided among the colours. In the pixel's own place a layer of `mask_type` `"A"` sees
    the colours before, and one of `"B"` also the same colour; columns to the right of it in its row see nothing.

    Args:
        num_colors (`int`): the channels of the image.
        mask_type (`str`): `"A"` or `"B"`.
        num_halves (`int`): into how many parts the output is divided before the colours, 2 for a gate.
    """

    def __init__(self, *args, num_colors: int, mask_type: str, num_halves: int = 1, **kwargs):
        super().__init__(*args, **kwargs)
        self.num_colors, self.mask_type, self.num_halves = num_colors, mask_type, num_halves

    def causal_weight(self) -> torch.Tensor:
        device = self.weight.device
        outputs = torch.arange(self.out_channels, device=device) * self.num_halves * self.num_colors
        outputs = outputs // self.out_channels % self.num_colors
        inputs = torch.arange(self.in_channels, device=device) * self.num_colors // self.in_channels
        is_seen = (outputs[:, None] > inputs) | ((outputs[:, None] == inputs) & (self.mask_type == "B"))
        columns, own = torch.arange(self.kernel_size[1], device=device), self.margins[0] // self.dilation[1]
        last_row = (columns < own) | ((columns == own) & is_seen[:, :, None])
        above = last_row.new_ones(self.out_channels, self.in_channels, self.kernel_size[0] - 1, self.kernel_size[1])
        return self.weight * torch.cat([above, last_row[:, :, None]], dim=2)


class ColorConv2d(ColorMaskMixin, CausalConv2d):
    """A causal convolution with the masks of colours."""


class ColorImageConv2d(ColorMaskMixin, CausalImageConv2d):
    """A first layer with the masks of colours."""
