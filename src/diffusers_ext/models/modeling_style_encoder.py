"""Encoders from images to the styles of a StyleGAN: pSp, e4e, and one into W."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn

from .disk_offloading import DiskOffloadMixin
from .equalized_layers import EqualizedLinear
from .gan_checks import check_choice, check_positive


STYLE_ENCODER_ARCHITECTURES = ("psp", "e4e", "w")
# The first style that comes from features of a half, and of a quarter of the stride of the coarsest ones.
MIDDLE_STYLE, FINE_STYLE = 3, 7


@dataclass
class StyleEncoderOutput(BaseOutput):
    """
    The output of [`StyleEncoder`].

    Args:
        styles (`torch.Tensor` of shape `(N, num_styles, style_dim)`):
            The style of each layer of the generator, from coarse to fine.
    """

    styles: torch.Tensor


class StyleEncoder(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Encodes images as the styles from which a generator, such as [`StyleGAN2Generator`], makes them again.

    The encoders of pSp, "Encoding in Style" (Richardson et al. 2021, https://huggingface.co/papers/2008.00951), and
    e4e, "Designing an Encoder for StyleGAN Image Manipulation" (Tov et al. 2021,
    https://huggingface.co/papers/2102.02766), as in omertov/encoder4editing. A residual network with
    squeeze-and-excitation, which halves images four times, gives features of three resolutions; a small network for
    each style makes it of them. Styles are counted from `style_average`.

    Args:
        sample_size (`int`, defaults to 256):
            Height and width of the images it takes: a power of two, at least 32. This need not be the generator's.
        in_channels (`int`, defaults to 3):
            Channels of the images.
        num_styles (`int`, defaults to 18), style_dim (`int`, defaults to 512):
            How many styles the generator has, and their length.
        architecture (`str`, defaults to `"e4e"`):
            `"psp"`: each style on its own; `"e4e"`: the first style, and for each other one what it differs by, so
            that styles are near to each other and better to edit; `"w"`: one style for all layers.
        block_out_channels (`tuple[int, ...]`, defaults to `(64, 128, 256, 512)`):
            The channels of the four stages.
        layers_per_block (`tuple[int, ...]`, defaults to `(3, 4, 14, 3)`):
            The residual units of each stage; by default those of a ResNet-50.
        se_reduction (`int`, *optional*, defaults to 16):
            By how much squeeze-and-excitation narrows the channels; `None` for none.

    Raises:
        ValueError: if the arguments do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 256,
        in_channels: int = 3,
        num_styles: int = 18,
        style_dim: int = 512,
        architecture: str = "e4e",
        block_out_channels: tuple[int, ...] = (64, 128, 256, 512),
        layers_per_block: tuple[int, ...] = (3, 4, 14, 3),
        se_reduction: int | None = 16,
    ):
        super().__init__()
        check_positive(in_channels=in_channels, num_styles=num_styles, style_dim=style_dim)
        check_choice("architecture", architecture, STYLE_ENCODER_ARCHITECTURES)
        if len(block_out_channels) != 4 or len(layers_per_block) != 4 or min(*layers_per_block) < 1:
            raise ValueError("`block_out_channels` and `layers_per_block` must have four positive numbers each.")
        if sample_size < 32 or sample_size & (sample_size - 1):
            raise ValueError(f"`sample_size` must be a power of two, at least 32, but is {sample_size}.")

        self.register_buffer("style_average", torch.zeros(style_dim))
        *_, fine_width, middle_width, width = block_out_channels
        self.conv_in = nn.Conv2d(in_channels, block_out_channels[0], kernel_size=3, padding=1, bias=False)
        self.norm_in = nn.BatchNorm2d(block_out_channels[0])
        self.act_in = nn.PReLU(block_out_channels[0])
        self.stages = nn.ModuleList()
        channels = block_out_channels[0]
        for out_channels, num_layers in zip(block_out_channels, layers_per_block, strict=True):
            stage = nn.ModuleList()
            for layer in range(num_layers):
                stage.append(ResidualUnit(channels, out_channels, 2 if layer == 0 else 1, se_reduction))
                channels = out_channels
            self.stages.append(stage)
        if architecture == "w":
            self.linear_out = EqualizedLinear(width, style_dim)
        else:
            self.middle_lateral = nn.Conv2d(middle_width, width, kernel_size=1)
            self.fine_lateral = nn.Conv2d(fine_width, width, kernel_size=1)
            self.heads = nn.ModuleList()
            for style in range(num_styles):
                stride = 16 if style < MIDDLE_STYLE else 8 if style < FINE_STYLE else 4
                self.heads.append(StyleHead(width, style_dim, sample_size // stride))

    def forward(
        self, sample: torch.Tensor, num_deltas: int | None = None, return_dict: bool = True
    ) -> StyleEncoderOutput | tuple[torch.Tensor]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, sample_size, sample_size)`):
                Images in `[-1, 1]`.
            num_deltas (`int`, *optional*):
                How many styles, after the first one, may differ from it (e4e's progressive training); by default all.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`StyleEncoderOutput`] instead of a tuple.

        Returns:
            [`StyleEncoderOutput`] or `tuple`: the styles `(N, num_styles, style_dim)`.

        Raises:
            ValueError: if the images do not fit the network.
        """
        config = self.config
        if tuple(sample.shape[1:]) != (config.in_channels, config.sample_size, config.sample_size):
            raise ValueError(
                f"`sample` must be (N, {config.in_channels}, {config.sample_size}, {config.sample_size}), but is "
                f"{tuple(sample.shape)}."
            )
        hidden_states = self.act_in(self.norm_in(self.conv_in(sample)))
        features = []
        for stage in self.stages:
            for unit in stage:
                hidden_states = unit(hidden_states)
            features.append(hidden_states)

        if config.architecture == "w":
            style = self.linear_out(hidden_states.mean(dim=(2, 3)))
            styles = style[:, None].expand(-1, config.num_styles, -1)
        else:
            middle = add_enlarged(self.middle_lateral(features[2]), hidden_states)
            fine = add_enlarged(self.fine_lateral(features[1]), middle)
            of_style = [hidden_states] * MIDDLE_STYLE + [middle] * (FINE_STYLE - MIDDLE_STYLE)
            of_style += [fine] * (config.num_styles - FINE_STYLE)
            of_style = of_style[: config.num_styles]  # small generators have coarse styles only
            if config.architecture == "e4e":
                first = self.heads[0](hidden_states)
                number = config.num_styles - 1 if num_deltas is None else num_deltas
                deltas = [
                    head(maps) if position < number else torch.zeros_like(first)
                    for position, (head, maps) in enumerate(zip(self.heads[1:], of_style[1:], strict=True))
                ]
                styles = first[:, None] + torch.stack([torch.zeros_like(first), *deltas], dim=1)
            else:
                styles = torch.stack([head(maps) for head, maps in zip(self.heads, of_style, strict=True)], dim=1)
        styles = styles + self.style_average
        return StyleEncoderOutput(styles=styles) if return_dict else (styles,)


class ResidualUnit(nn.Module):
    """Two convolutions with batch normalization before the first and after the second, as in ArcFace's networks."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, se_reduction: int | None):
        super().__init__()
        self.stride = stride
        self.skip = self.skip_norm = None
        if in_channels != out_channels:
            self.skip = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)
            self.skip_norm = nn.BatchNorm2d(out_channels)
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.act = nn.PReLU(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.excitation = None
        if se_reduction is not None:
            self.excitation = SqueezeExcitation(out_channels, max(1, out_channels // se_reduction))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.skip is None:
            residual = hidden_states[:, :, :: self.stride, :: self.stride]
        else:
            residual = self.skip_norm(self.skip(hidden_states))
        hidden_states = self.act(self.conv1(self.norm1(hidden_states)))
        hidden_states = self.norm2(self.conv2(hidden_states))
        if self.excitation is not None:
            hidden_states = self.excitation(hidden_states)
        return hidden_states + residual


class SqueezeExcitation(nn.Module):
    """Scales channels by what their means say (Hu et al. 2018, https://huggingface.co/papers/1709.01507)."""

    def __init__(self, channels: int, squeezed_channels: int):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed_channels, kernel_size=1, bias=False)
        self.excite = nn.Conv2d(squeezed_channels, channels, kernel_size=1, bias=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        means = hidden_states.mean(dim=(2, 3), keepdim=True)
        return hidden_states * self.excite(F.relu(self.squeeze(means))).sigmoid()


class StyleHead(nn.Module):
    """From features `(N, channels, size, size)` to a style, by convolutions that halve them down to one pixel."""

    def __init__(self, channels: int, style_dim: int, size: int):
        super().__init__()
        widths = [channels] + [style_dim] * int(math.log2(size))
        self.convs = nn.ModuleList(
            nn.Conv2d(width, style_dim, kernel_size=3, stride=2, padding=1) for width in widths[:-1]
        )
        self.linear = EqualizedLinear(style_dim, style_dim)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        for conv in self.convs:
            hidden_states = F.leaky_relu(conv(hidden_states), 0.01)
        return self.linear(hidden_states.flatten(1))


def add_enlarged(features: torch.Tensor, coarser: torch.Tensor) -> torch.Tensor:
    """Features, and coarser ones that are enlarged to their size."""
    return features + F.interpolate(coarser, features.shape[2:], mode="bilinear", align_corners=True)
