"""PixelCNN and Gated PixelCNN: masked convolutions that predict the levels of pixels one after the other."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from .causal_convolution import CausalConv2d, CausalImageConv2d, ColorConv2d, ColorImageConv2d, PixelCache
from .pixel_distributions import (
    CategoricalPixelsMixin,
    PixelModelOutput,
    check_pixel_arguments,
    check_pixel_inputs,
)


class PixelCNN(CategoricalPixelsMixin, ModelMixin, ConfigMixin):
    r"""
    Predicts the levels of each pixel from those before it by masked convolutions and residual blocks.

    The PixelCNN of "Pixel Recurrent Neural Networks" (van den Oord et al. 2016, table 1,
    https://huggingface.co/papers/1601.06759). It does not see a part of the pixels at the upper right, its blind spot,
    which [`GatedPixelCNN`] does.

    Args:
        sample_size (`int` or `tuple[int, int]`, defaults to 32):
            Height and width of the images that a pipeline makes; the network takes others, too.
        in_channels (`int`, defaults to 3):
            Channels of the images.
        num_levels (`int`, defaults to 256):
            How many values a channel can have, evenly from -1 to 1.
        hidden_channels (`int`, defaults to 120):
            Half the features between two blocks: a multiple of `in_channels`.
        num_layers (`int`, defaults to 15):
            The number of residual blocks.
        kernel_size (`int`, defaults to 3):
            The odd size of the blocks' convolutions.
        first_kernel_size (`int`, defaults to 7):
            The odd size of the first convolution.
        dropout (`float`, defaults to 0.0):
            The probability that a feature inside of a block is zeroed in training.
        num_classes (`int`, *optional*):
            The number of classes of a conditional network: each adds a vector to the first features.

    Raises:
        ValueError: if the arguments do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] = 32,
        in_channels: int = 3,
        num_levels: int = 256,
        hidden_channels: int = 120,
        num_layers: int = 15,
        kernel_size: int = 3,
        first_kernel_size: int = 7,
        dropout: float = 0.0,
        num_classes: int | None = None,
    ):
        super().__init__()
        check_pixel_arguments(in_channels, num_levels, num_classes)
        check_features(hidden_channels, in_channels, num_layers, kernel_size, first_kernel_size)
        features, colors = 2 * hidden_channels, {"num_colors": in_channels, "mask_type": "B"}
        self.conv_in = ColorImageConv2d(
            in_channels,
            features,
            (first_kernel_size // 2 + 1, first_kernel_size),
            is_centred=True,
            num_colors=in_channels,
            mask_type="A",
        )
        if num_classes is not None:
            self.class_embedding = nn.Embedding(num_classes, features)
        self.blocks = nn.ModuleList(
            PixelResidualBlock(features, kernel_size, in_channels, dropout) for _ in range(num_layers)
        )
        self.proj_hidden = ColorConv2d(features, features, (1, 1), is_centred=False, **colors)
        self.proj_out = ColorConv2d(features, in_channels * num_levels, (1, 1), is_centred=False, **colors)

    def forward(
        self, sample: torch.Tensor, class_labels: torch.Tensor | None = None, return_dict: bool = True
    ) -> PixelModelOutput | tuple[torch.Tensor]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                Images in `[-1, 1]`.
            class_labels (`torch.Tensor` of shape `(N,)`, *optional*):
                The class of each image, for a conditional network.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`PixelModelOutput`] instead of a tuple.

        Returns:
            [`PixelModelOutput`] or `tuple`: logits `(N, in_channels * num_levels, H, W)`.

        Raises:
            ValueError: if the images or the labels do not fit the network.
        """
        check_pixel_inputs(self, sample, class_labels)
        parameters = self.predict(sample, class_labels)
        return PixelModelOutput(parameters=parameters) if return_dict else (parameters,)

    def predict(
        self, image: torch.Tensor, class_labels: torch.Tensor | None, cache: PixelCache | None = None
    ) -> torch.Tensor:
        """The logits of all pixels or, with a cache, of one."""
        hidden_states = self.conv_in(image, cache)
        if class_labels is not None:
            hidden_states = hidden_states + self.class_embedding(class_labels)[:, :, None, None]
        for block in self.blocks:
            hidden_states = block(hidden_states, cache)
        hidden_states = self.proj_hidden(hidden_states.relu(), cache)
        return self.proj_out(hidden_states.relu(), cache)

    def parameters_at(
        self,
        image: torch.Tensor,
        row: int,
        column: int,
        draw: int,
        class_labels: torch.Tensor | None,
        cache: PixelCache | None,
    ) -> torch.Tensor:
        """The logits `(N, num_levels)` of colour `draw` at a pixel, whose pixels before are in `image`."""
        if cache is None:
            parameters = self.predict(image, class_labels)[:, :, row, column]
        else:
            cache.move_to(row, column)
            parameters = self.predict(image, class_labels, cache)[:, :, 0, 0]
        return parameters.chunk(self.config.in_channels, dim=1)[draw]


class GatedPixelCNN(CategoricalPixelsMixin, ModelMixin, ConfigMixin):
    r"""
    Predicts the levels of each pixel from those before it by two stacks of gated convolutions.

    The network of "Conditional Image Generation with PixelCNN Decoders" (van den Oord et al. 2016, section 2,
    https://huggingface.co/papers/1606.05328): a vertical stack sees all rows above, and a horizontal stack the row up
    to the pixel and the vertical stack, so that no pixel is left out. With dilations, as in the notebook of
    https://github.com/phlippe/uvadlc_notebooks (tutorial 12), fewer layers see the whole image.

    Args:
        sample_size (`int` or `tuple[int, int]`, defaults to 32):
            Height and width of the images that a pipeline makes; the network takes others, too.
        in_channels (`int`, defaults to 3):
            Channels of the images.
        num_levels (`int`, defaults to 256):
            How many values a channel can have, evenly from -1 to 1.
        hidden_channels (`int`, defaults to 96):
            The features between two blocks: a multiple of `in_channels`.
        kernel_size (`int`, defaults to 3):
            The odd size of the convolutions.
        dilations (`tuple[int, ...]`, defaults to `(1, 2, 1, 4, 1, 2, 1)`):
            The dilation of each block's convolutions: there are as many blocks.
        dropout (`float`, defaults to 0.0):
            The probability that a feature of the horizontal stack is zeroed in training.
        num_classes (`int`, *optional*):
            The number of classes of a conditional network: each adds a vector to the gates of every block (eq. 4).

    Raises:
        ValueError: if the arguments do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] = 32,
        in_channels: int = 3,
        num_levels: int = 256,
        hidden_channels: int = 96,
        kernel_size: int = 3,
        dilations: Sequence[int] = (1, 2, 1, 4, 1, 2, 1),
        dropout: float = 0.0,
        num_classes: int | None = None,
    ):
        super().__init__()
        check_pixel_arguments(in_channels, num_levels, num_classes)
        check_features(hidden_channels, in_channels, len(dilations), kernel_size, min(dilations, default=1))
        self.vertical_in = CausalImageConv2d(
            in_channels, hidden_channels, (kernel_size // 2, kernel_size), is_centred=True, only_above=True
        )
        self.horizontal_in = ColorImageConv2d(
            in_channels,
            hidden_channels,
            (1, kernel_size // 2 + 1),
            is_centred=False,
            num_colors=in_channels,
            mask_type="A",
        )
        self.blocks = nn.ModuleList(
            GatedPixelBlock(
                hidden_channels,
                kernel_size,
                dilation,
                in_channels,
                dropout,
                num_classes,
                is_last=index == len(dilations) - 1,
            )
            for index, dilation in enumerate(dilations)
        )
        self.proj_out = ColorConv2d(
            hidden_channels,
            in_channels * num_levels,
            (1, 1),
            is_centred=False,
            num_colors=in_channels,
            mask_type="B",
        )

    def forward(
        self, sample: torch.Tensor, class_labels: torch.Tensor | None = None, return_dict: bool = True
    ) -> PixelModelOutput | tuple[torch.Tensor]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                Images in `[-1, 1]`.
            class_labels (`torch.Tensor` of shape `(N,)`, *optional*):
                The class of each image, for a conditional network.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`PixelModelOutput`] instead of a tuple.

        Returns:
            [`PixelModelOutput`] or `tuple`: logits `(N, in_channels * num_levels, H, W)`.

        Raises:
            ValueError: if the images or the labels do not fit the network.
        """
        check_pixel_inputs(self, sample, class_labels)
        parameters = self.look_left(sample, self.look_up(sample, class_labels), class_labels)
        return PixelModelOutput(parameters=parameters) if return_dict else (parameters,)

    def look_up(
        self, image: torch.Tensor, class_labels: torch.Tensor | None, cache: PixelCache | None = None
    ) -> list[torch.Tensor]:
        """What each block of the horizontal stack gets from the rows above: for all rows or, with a cache, for one."""
        hidden_states, features = self.vertical_in(image, cache), []
        for block in self.blocks:
            hidden_states, seen = block.look_up(hidden_states, class_labels, cache)
            features.append(seen)
        return features

    def look_left(
        self,
        image: torch.Tensor,
        above: Sequence[torch.Tensor],
        class_labels: torch.Tensor | None,
        cache: PixelCache | None = None,
    ) -> torch.Tensor:
        """The logits of all pixels or, with a cache, of one."""
        hidden_states = self.horizontal_in(image, cache)
        for block, seen in zip(self.blocks, above, strict=True):
            hidden_states = block.look_left(hidden_states, seen, class_labels, cache)
        return self.proj_out(F.elu(hidden_states), cache)

    def parameters_at(
        self,
        image: torch.Tensor,
        row: int,
        column: int,
        draw: int,
        class_labels: torch.Tensor | None,
        cache: PixelCache | None,
    ) -> torch.Tensor:
        """The logits `(N, num_levels)` of colour `draw` at a pixel, whose pixels before are in `image`."""
        if cache is None:
            parameters = self.look_left(image, self.look_up(image, class_labels), class_labels)[:, :, row, column]
        else:
            if cache.row != row:
                cache.move_to(row)
                cache.above = self.look_up(image, class_labels, cache)
            cache.move_to(row, column)
            above = [features[:, :, :, column : column + 1] for features in cache.above]
            parameters = self.look_left(image, above, class_labels, cache)[:, :, 0, 0]
        return parameters.chunk(self.config.in_channels, dim=1)[draw]


class PixelResidualBlock(nn.Module):
    """A residual block of a PixelCNN: a masked convolution on half the features (van den Oord et al. 2016, fig. 5)."""

    def __init__(self, features: int, kernel_size: int, num_colors: int, dropout: float):
        super().__init__()
        colors = {"num_colors": num_colors, "mask_type": "B"}
        self.proj_in = ColorConv2d(features, features // 2, (1, 1), is_centred=False, **colors)
        kernel = (kernel_size // 2 + 1, kernel_size)
        self.conv = ColorConv2d(features // 2, features // 2, kernel, is_centred=True, **colors)
        self.dropout = nn.Dropout(dropout)
        self.proj_out = ColorConv2d(features // 2, features, (1, 1), is_centred=False, **colors)

    def forward(self, hidden_states: torch.Tensor, cache: PixelCache | None = None) -> torch.Tensor:
        residual = self.proj_in(hidden_states.relu(), cache)
        residual = self.conv(residual.relu(), cache)
        residual = self.proj_out(self.dropout(residual.relu()), cache)
        return hidden_states + residual


class GatedPixelBlock(nn.Module):
    """A block of both stacks of a Gated PixelCNN (van den Oord et al. 2016, fig. 2): only one stack has residuals."""

    def __init__(
        self,
        features: int,
        kernel_size: int,
        dilation: int,
        num_colors: int,
        dropout: float,
        num_classes: int | None,
        is_last: bool,
    ):
        super().__init__()
        self.is_last = is_last  # nothing reads the vertical stack after the last block
        colors, rows = {"num_colors": num_colors, "mask_type": "B"}, kernel_size // 2 + 1
        self.conv_vertical = CausalConv2d(
            features, 2 * features, (rows, kernel_size), is_centred=True, dilation=dilation
        )
        self.conv_horizontal = ColorConv2d(
            features, 2 * features, (1, rows), is_centred=False, dilation=dilation, num_halves=2, **colors
        )
        self.vertical_to_horizontal = nn.Conv2d(2 * features, 2 * features, kernel_size=1)
        self.proj_out = ColorConv2d(features, features, (1, 1), is_centred=False, **colors)
        self.dropout = nn.Dropout(dropout)
        if num_classes is not None:
            self.horizontal_class = nn.Embedding(num_classes, 2 * features)
            if not is_last:
                self.vertical_class = nn.Embedding(num_classes, 2 * features)

    def look_up(
        self, hidden_states: torch.Tensor, class_labels: torch.Tensor | None, cache: PixelCache | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The vertical stack's next features, and what the horizontal stack gets of them."""
        features = self.conv_vertical(hidden_states, cache)
        seen = self.vertical_to_horizontal(features)
        if class_labels is not None and not self.is_last:
            features = features + self.vertical_class(class_labels)[:, :, None, None]
        return gated(features), seen

    def look_left(
        self,
        hidden_states: torch.Tensor,
        seen: torch.Tensor,
        class_labels: torch.Tensor | None,
        cache: PixelCache | None,
    ) -> torch.Tensor:
        """The horizontal stack's next features."""
        features = self.conv_horizontal(hidden_states, cache) + seen
        if class_labels is not None:
            features = features + self.horizontal_class(class_labels)[:, :, None, None]
        return hidden_states + self.proj_out(self.dropout(gated(features)), cache)


def gated(features: torch.Tensor) -> torch.Tensor:
    """tanh of one half of the features, times the sigmoid of the other (eq. 2)."""
    values, gate = features.chunk(2, dim=1)
    return values.tanh() * gate.sigmoid()


def check_features(hidden_channels: int, in_channels: int, num_layers: int, kernel_size: int, other_size: int) -> None:
    if hidden_channels < 1 or hidden_channels % in_channels:
        raise ValueError(
            f"`hidden_channels` must be a multiple of the {in_channels} channels of the images, but is "
            f"{hidden_channels}."
        )
    if num_layers < 1 or kernel_size < 3 or kernel_size % 2 == 0 or other_size < 1:
        raise ValueError(
            "There must be at least 1 layer, with an odd kernel of at least 3 and positive dilations, but there are "
            f"{num_layers} with a kernel of {kernel_size}."
        )
