"""PixelCNN++: a U of causal convolutions that predicts a mixture of logistics for each pixel."""

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from .causal_convolution import CausalConv2d, CausalImageConv2d, CausalUpsample2d, PixelCache
from .pixel_distributions import (
    LogisticMixturePixelsMixin,
    PixelModelOutput,
    check_pixel_arguments,
    check_pixel_inputs,
)


Above = dict[tuple[int, str, int], torch.Tensor]  # features of the upper stream by scale, way and number of the block


class PixelCNNPlusPlus(LogisticMixturePixelsMixin, ModelMixin, ConfigMixin):
    r"""
    Predicts each pixel, with all its colours, from those before it by two streams of gated residual blocks.

    The network of "PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other
    Modifications" (Salimans et al. 2017, https://huggingface.co/papers/1701.05517,
    https://github.com/openai/pixel-cnn): one stream sees the rows above, the other those and the row up to the pixel.
    Both halve the image between levels and double it again, with short-cuts. All weights are normalized (Salimans &
    Kingma 2016).

    Args:
        sample_size (`int` or `tuple[int, int]`, defaults to 32):
            Height and width of the images that a pipeline makes; the network takes others whose sides are multiples
            of `2 ** (num_scales - 1)`, too.
        in_channels (`int`, defaults to 3):
            Channels of the images: 1 or 3.
        num_levels (`int`, defaults to 256):
            How many values a channel can have, evenly from -1 to 1; at most 256.
        hidden_channels (`int`, defaults to 160):
            The features of each stream.
        num_resnets (`int`, defaults to 5):
            The residual blocks of a stream at each scale, in the first half of the U.
        num_mixtures (`int`, defaults to 10):
            The components of the mixture of logistics.
        num_scales (`int`, defaults to 3):
            The sizes at which the network works, from the image's own; 3 in the paper.
        dropout (`float`, defaults to 0.5):
            The probability that a feature map inside of a block is zeroed in training.
        num_classes (`int`, *optional*):
            The number of classes of a conditional network: each adds a vector to the features in every block.

    Raises:
        ValueError: if the arguments do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] = 32,
        in_channels: int = 3,
        num_levels: int = 256,
        hidden_channels: int = 160,
        num_resnets: int = 5,
        num_mixtures: int = 10,
        num_scales: int = 3,
        dropout: float = 0.5,
        num_classes: int | None = None,
    ):
        super().__init__()
        check_pixel_arguments(in_channels, num_levels, num_classes)
        if in_channels not in (1, 3) or num_levels > 256:
            raise ValueError(
                "`in_channels` must be 1 or 3 and `num_levels` at most 256 for a mixture of logistics, but are "
                f"{in_channels} and {num_levels}."
            )
        if min(hidden_channels, num_resnets, num_mixtures, num_scales) < 1:
            raise ValueError(
                "`hidden_channels`, `num_resnets`, `num_mixtures` and `num_scales` must be at least 1, but are "
                f"{hidden_channels}, {num_resnets}, {num_mixtures} and {num_scales}."
            )
        features, padded = hidden_channels, in_channels + 1  # a channel of ones tells the image from its padding

        def first(kernel_size, **options):
            return weight_norm(CausalImageConv2d(padded, features, kernel_size, **options))

        self.upper_in = first((2, 3), is_centred=True, shift=(1, 0))
        self.left_in_above = first((1, 3), is_centred=True, shift=(1, 0))
        self.left_in_before = first((2, 1), is_centred=False, shift=(0, 1))
        self.scales = nn.ModuleList(
            PixelScale(features, num_resnets, 2**scale, scale == num_scales - 1, dropout, num_classes)
            for scale in range(num_scales)
        )
        parameters = 3 * num_mixtures if in_channels == 1 else 10 * num_mixtures
        self.proj_out = weight_norm(nn.Conv2d(features, parameters, kernel_size=1))

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
            [`PixelModelOutput`] or `tuple`: the parameters of the mixtures, `(N, 3 * num_mixtures, H, W)` of gray
            images and `(N, 10 * num_mixtures, H, W)` of colour images, see [`LogisticMixturePixelsMixin`].

        Raises:
            ValueError: if the images or the labels do not fit the network.
        """
        check_pixel_inputs(self, sample, class_labels)
        divisor = 2 ** (self.config.num_scales - 1)
        if sample.shape[2] % divisor or sample.shape[3] % divisor:
            raise ValueError(
                f"The sides of `sample` must be multiples of {divisor}, but are {tuple(sample.shape[2:])}."
            )
        parameters = self.look_left(sample, self.look_up(sample, class_labels), class_labels)
        return PixelModelOutput(parameters=parameters) if return_dict else (parameters,)

    def look_up(
        self, image: torch.Tensor, class_labels: torch.Tensor | None, cache: PixelCache | None = None
    ) -> Above:
        """The features of the upper stream, by block: for all rows or, with a cache, for one."""
        above: Above = {}
        self._go_up(0, self.upper_in(with_ones(image), cache), above, class_labels, cache)
        return above

    def _go_up(
        self,
        scale: int,
        hidden_states: torch.Tensor,
        above: Above,
        class_labels: torch.Tensor | None,
        cache: PixelCache | None,
    ) -> torch.Tensor:
        """The upper stream at one scale and the coarser ones; what each block gives is kept in `above`."""
        layers, skips = self.scales[scale], [hidden_states]
        for index, block in enumerate(layers.upper_down):
            hidden_states = above[scale, "down", index] = block(hidden_states, None, class_labels, cache)
            skips.append(hidden_states)
        if layers.is_last:
            skips.pop()
        else:
            coarse = layers.upper_downsample(hidden_states, cache)
            if coarse is not None:  # with a cache, coarse features have a new row only now and then
                coarse = self._go_up(scale + 1, coarse, above, class_labels, cache)
            hidden_states = layers.upper_upsample(coarse, cache)
        for index, block in enumerate(layers.upper_up):
            hidden_states = above[scale, "up", index] = block(hidden_states, skips.pop(), class_labels, cache)
        return hidden_states

    def look_left(
        self,
        image: torch.Tensor,
        above: Above,
        class_labels: torch.Tensor | None,
        cache: PixelCache | None = None,
    ) -> torch.Tensor:
        """The parameters of all pixels or, with a cache, of one."""
        image = with_ones(image)
        hidden_states = self.left_in_above(image, cache) + self.left_in_before(image, cache)
        hidden_states = self._go_left(0, hidden_states, above, class_labels, cache)
        return self.proj_out(F.elu(hidden_states))

    def _go_left(
        self,
        scale: int,
        hidden_states: torch.Tensor,
        above: Above,
        class_labels: torch.Tensor | None,
        cache: PixelCache | None,
    ) -> torch.Tensor:
        """The left stream at one scale and the coarser ones."""
        layers, skips = self.scales[scale], [hidden_states]
        for index, block in enumerate(layers.left_down):
            seen = at_column(above[scale, "down", index], layers.scale, cache)
            hidden_states = block(hidden_states, seen, class_labels, cache)
            skips.append(hidden_states)
        if layers.is_last:
            skips.pop()
        else:
            coarse = layers.left_downsample(hidden_states, cache)
            if coarse is not None:
                coarse = self._go_left(scale + 1, coarse, above, class_labels, cache)
            hidden_states = layers.left_upsample(coarse, cache)
        for index, block in enumerate(layers.left_up):
            seen = at_column(above[scale, "up", index], layers.scale, cache)
            hidden_states = block(hidden_states, torch.cat([seen, skips.pop()], dim=1), class_labels, cache)
        return hidden_states

    def parameters_at(
        self,
        image: torch.Tensor,
        row: int,
        column: int,
        draw: int,
        class_labels: torch.Tensor | None,
        cache: PixelCache | None,
    ) -> torch.Tensor:
        """The parameters `(N, P)` of the mixture at a pixel, whose pixels before are in `image`; `draw` is 0."""
        if cache is None:
            return self.look_left(image, self.look_up(image, class_labels), class_labels)[:, :, row, column]
        if cache.row != row:
            cache.move_to(row)
            cache.above = self.look_up(image, class_labels, cache)
        cache.move_to(row, column)
        return self.look_left(image, cache.above, class_labels, cache)[:, :, 0, 0]


class PixelScale(nn.Module):
    """The layers of both streams at one scale: blocks on the way to the coarser scale, and on the way back."""

    def __init__(
        self, features: int, num_resnets: int, scale: int, is_last: bool, dropout: float, num_classes: int | None
    ):
        super().__init__()
        self.scale, self.is_last = scale, is_last

        def upper(skipped: int):
            return GatedResnet(features, skipped, (2, 3), True, scale, dropout, num_classes)

        def left(skipped: int):
            return GatedResnet(features, skipped, (2, 2), False, scale, dropout, num_classes)

        self.upper_down = nn.ModuleList(upper(0) for _ in range(num_resnets))
        self.left_down = nn.ModuleList(left(features) for _ in range(num_resnets))
        num_up = num_resnets if is_last else num_resnets + 1  # one for each of the maps that are skipped to
        self.upper_up = nn.ModuleList(upper(features) for _ in range(num_up))
        self.left_up = nn.ModuleList(left(2 * features) for _ in range(num_up))
        if not is_last:
            halving = {"stride": 2, "scale": scale}
            self.upper_downsample = weight_norm(CausalConv2d(features, features, (2, 3), is_centred=True, **halving))
            self.left_downsample = weight_norm(CausalConv2d(features, features, (2, 2), is_centred=False, **halving))
            self.upper_upsample = weight_norm(CausalUpsample2d(features, features, (2, 3), scale=scale))
            self.left_upsample = weight_norm(CausalUpsample2d(features, features, (2, 2), scale=scale))


class GatedResnet(nn.Module):
    """A gated residual block (Salimans et al. 2017, section 2.5), which may get more features by a short-cut."""

    def __init__(
        self,
        features: int,
        skipped: int,
        kernel_size: tuple[int, int],
        is_centred: bool,
        scale: int,
        dropout: float,
        num_classes: int | None,
    ):
        super().__init__()
        options = {"is_centred": is_centred, "scale": scale}
        self.conv_in = weight_norm(CausalConv2d(2 * features, features, kernel_size, **options))
        if skipped > 0:
            self.proj_skip = weight_norm(nn.Conv2d(2 * skipped, features, kernel_size=1))
        self.dropout = nn.Dropout2d(dropout)
        self.conv_out = weight_norm(CausalConv2d(2 * features, 2 * features, kernel_size, **options))
        if num_classes is not None:
            self.class_embedding = nn.Embedding(num_classes, 2 * features)

    def forward(
        self,
        hidden_states: torch.Tensor,
        skipped: torch.Tensor | None,
        class_labels: torch.Tensor | None,
        cache: PixelCache | None = None,
    ) -> torch.Tensor:
        residual = self.conv_in(elu_of_both_signs(hidden_states), cache)
        if skipped is not None:
            residual = residual + self.proj_skip(elu_of_both_signs(skipped))
        residual = self.conv_out(self.dropout(elu_of_both_signs(residual)), cache)
        if class_labels is not None:
            residual = residual + self.class_embedding(class_labels)[:, :, None, None]
        values, gate = residual.chunk(2, dim=1)
        return hidden_states + values * gate.sigmoid()


def elu_of_both_signs(hidden_states: torch.Tensor) -> torch.Tensor:
    """ELU of the features and of their negatives, `(N, 2C, H, W)`, as in concatenated ReLU (Shang et al. 2016)."""
    return F.elu(torch.cat([hidden_states, -hidden_states], dim=1))


def with_ones(image: torch.Tensor) -> torch.Tensor:
    """An image with one more channel, of ones, so that layers can tell its zeros from the padding around it."""
    return torch.cat([image, torch.ones_like(image[:, :1])], dim=1)


def at_column(features: torch.Tensor, scale: int, cache: PixelCache | None) -> torch.Tensor:
    """Whole maps as they are; with a cache, the place of the pixel in a row of features of 1/`scale` of the size."""
    if cache is None:
        return features
    column = cache.place(scale)[1]
    return features[:, :, :, column : column + 1]
