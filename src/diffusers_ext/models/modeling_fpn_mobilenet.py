"""The generator of DeblurGAN-v2: a feature pyramid over MobileNetV2, whose output is added to the blurred image."""

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import nn

from .disk_offloading import DiskOffloadMixin
from .restoration_layers import check_restoration_input
from .translation_layers import NORMALIZATIONS, normalization_layer


# The stages of MobileNetV2 up to a 32nd of the image: expansion, number of blocks, stride of the first one. The last
# stage has a third block in MobileNetV2, which the pyramid does not use.
MOBILENET_STAGES = ((1, 1, 1), (6, 2, 2), (6, 3, 2), (6, 4, 2), (6, 3, 1), (6, 2, 2))
PYRAMID_STAGES = (1, 2, 3, 5)  # the stages that end at a 4th, 8th, 16th and 32nd of the image
BACKBONE_NORMALIZATIONS = ("batch", "instance")


class FPNMobileNet(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Sharpens images: features of MobileNetV2 at five sizes are joined from the coarsest to the finest.

    "DeblurGAN-v2: Deblurring (Orders-of-Magnitude) Faster and Better" (Kupyn et al. 2019, section 3.1 and figure 2,
    https://huggingface.co/papers/1908.03826; `FPNMobileNet` in https://github.com/VITA-Group/DeblurGANv2), with the
    backbone of MobileNetV2 (Sandler et al. 2018, table 2, https://huggingface.co/papers/1801.04381).

    Height and width can be any multiples of 32, at least 64.

    Args:
        in_channels, out_channels (`int`, defaults to 3):
            Channels of the images. They must be equal, because one is added to the other.
        backbone_channels (`tuple[int, ...]`, defaults to `(32, 16, 24, 32, 64, 96, 160)`):
            Channels of the first convolution and of the six stages of MobileNetV2.
        pyramid_channels (`int`, defaults to 128):
            Channels of the pyramid's maps, a multiple of 4; the later layers have a half and a quarter of them.
        backbone_normalization (`str`, defaults to `"batch"`):
            `"batch"`, or `"instance"`, with a weight and a bias per channel: the statistics of each image by itself.
        normalization (`str`, defaults to `"instance"`):
            Of the layers above the backbone: `"batch"`, `"instance"` (without parameters) or `"none"`.

    Raises:
        ValueError: if an argument is out of range.
    """

    _no_split_modules = ["InvertedResidual"]

    stride = 32  # height and width must be multiples of this
    smallest_side = 64  # maps of one pixel cannot be normalized

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        backbone_channels: tuple[int, ...] = (32, 16, 24, 32, 64, 96, 160),
        pyramid_channels: int = 128,
        backbone_normalization: str = "batch",
        normalization: str = "instance",
    ):
        super().__init__()
        if len(backbone_channels) != len(MOBILENET_STAGES) + 1 or min(*backbone_channels, in_channels) < 1:
            raise ValueError(
                f"`backbone_channels` must be {len(MOBILENET_STAGES) + 1} positive numbers, and `in_channels` "
                f"positive, but are {tuple(backbone_channels)} and {in_channels}."
            )
        if in_channels != out_channels:
            raise ValueError(
                f"`in_channels` and `out_channels` must be equal, but are {in_channels} and {out_channels}."
            )
        if pyramid_channels < 4 or pyramid_channels % 4 != 0:
            raise ValueError(f"`pyramid_channels` must be a positive multiple of 4, but is {pyramid_channels}.")
        if backbone_normalization not in BACKBONE_NORMALIZATIONS or normalization not in NORMALIZATIONS:
            raise ValueError(
                f"`backbone_normalization` must be one of {BACKBONE_NORMALIZATIONS} and `normalization` one of "
                f"{NORMALIZATIONS}, but are {backbone_normalization!r} and {normalization!r}."
            )

        stem, *widths = backbone_channels
        self.layer_in = MobileConv(in_channels, stem, 3, 2, 1, backbone_normalization)
        self.stages = nn.ModuleList()
        before = stem
        for width, (expansion, num_blocks, stride) in zip(widths, MOBILENET_STAGES, strict=True):
            stage = nn.ModuleList()
            for block in range(num_blocks):
                stage.append(
                    InvertedResidual(before, width, expansion, stride if block == 0 else 1, backbone_normalization)
                )
                before = width
            self.stages.append(stage)

        half, quarter = pyramid_channels // 2, pyramid_channels // 4
        self.lateral_in = nn.Conv2d(widths[0], half, 1, bias=False)
        self.laterals = nn.ModuleList(
            nn.Conv2d(widths[stage], pyramid_channels, 1, bias=False) for stage in PYRAMID_STAGES
        )
        self.top_down = nn.ModuleList(
            PyramidLayer(pyramid_channels, pyramid_channels, normalization) for _ in PYRAMID_STAGES[:-1]
        )
        self.heads = nn.ModuleList(PyramidHead(pyramid_channels, half) for _ in PYRAMID_STAGES)
        self.smooth1 = PyramidLayer(len(PYRAMID_STAGES) * half, half, normalization)
        self.smooth2 = PyramidLayer(half, quarter, normalization)
        self.conv_out = nn.Conv2d(quarter, out_channels, 3, padding=1)

    def forward(self, sample: torch.Tensor, return_dict: bool = True) -> UNet2DOutput | tuple[torch.Tensor]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                The blurred images, in `[-1, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`~models.unets.unet_2d.UNet2DOutput`] instead of a tuple.

        Returns:
            [`~models.unets.unet_2d.UNet2DOutput`] or `tuple`: the `sample` `(N, out_channels, H, W)`, in `[-1, 1]`.

        Raises:
            ValueError: for another number of channels, and if height or width is not a multiple of 32 or below 64.
        """
        check_restoration_input(sample, self.config.in_channels, self.stride)
        if min(sample.shape[2:]) < self.smallest_side:
            raise ValueError(
                f"`sample` must have a height and a width of at least {self.smallest_side}, but is of the size "
                f"{tuple(sample.shape[2:])}."
            )

        # 1. Bottom up: the maps at a half, 4th, 8th, 16th and 32nd of the image
        hidden_states, maps = F.relu6(self.layer_in(sample)), []
        for stage in self.stages:
            for block in stage:
                hidden_states = block(hidden_states)
            maps.append(hidden_states)
        finest = self.lateral_in(maps[0])
        laterals = [lateral(maps[stage]) for lateral, stage in zip(self.laterals, PYRAMID_STAGES, strict=True)]

        # 2. Top down
        pyramid = [laterals.pop()]
        for layer in self.top_down:
            pyramid.append(F.relu(layer(laterals.pop() + F.interpolate(pyramid[-1], scale_factor=2.0))))

        # 3. All levels at a 4th of the image, the coarsest first, then twice as large, and again
        levels = [
            F.interpolate(head(level), scale_factor=float(2**exponent))
            for head, level, exponent in zip(self.heads, pyramid, (3, 2, 1, 0), strict=True)
        ]
        hidden_states = F.relu(self.smooth1(torch.cat(levels, dim=1)))
        hidden_states = F.interpolate(hidden_states, scale_factor=2.0) + finest
        hidden_states = F.relu(self.smooth2(hidden_states))
        details = torch.tanh(self.conv_out(F.interpolate(hidden_states, scale_factor=2.0)))
        sample = (sample + details).clamp(-1, 1)

        if not return_dict:
            return (sample,)
        return UNet2DOutput(sample=sample)


class MobileConv(nn.Module):
    """
    A convolution without a bias, and normalization with a weight and a bias per channel.

    Args:
        in_channels, out_channels (`int`): The channels before and after.
        kernel_size, stride, groups (`int`): The arguments of the convolution.
        normalization (`str`): `"batch"` or `"instance"`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, groups: int, normalization: str
    ):
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=False
        )
        is_batch = normalization == "batch"
        self.norm = nn.BatchNorm2d(out_channels) if is_batch else nn.InstanceNorm2d(out_channels, affine=True)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """From `(N, in_channels, H, W)` to `(N, out_channels, H / stride, W / stride)`."""
        return self.norm(self.conv(hidden_states))


class InvertedResidual(nn.Module):
    """
    More channels, a convolution of each by itself, and fewer channels again (Sandler et al. 2018, figure 4).

    Args:
        in_channels, out_channels (`int`): The channels before and after.
        expansion (`int`): How many times as many channels there are between; 1 leaves out the first convolution.
        stride (`int`): 2 halves the map.
        normalization (`str`): `"batch"` or `"instance"`.
    """

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int, normalization: str):
        super().__init__()
        width = in_channels * expansion
        self.expand = None if expansion == 1 else MobileConv(in_channels, width, 1, 1, 1, normalization)
        self.depthwise = MobileConv(width, width, 3, stride, width, normalization)
        self.project = MobileConv(width, out_channels, 1, 1, 1, normalization)
        self.is_residual = stride == 1 and in_channels == out_channels

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """From `(N, in_channels, H, W)` to `(N, out_channels, H / stride, W / stride)`."""
        expanded = hidden_states if self.expand is None else F.relu6(self.expand(hidden_states))
        projected = self.project(F.relu6(self.depthwise(expanded)))
        return hidden_states + projected if self.is_residual else projected


class PyramidLayer(nn.Module):
    """
    A convolution and normalization.

    Args:
        in_channels, out_channels (`int`): The channels before and after.
        normalization (`str`): `"batch"`, `"instance"` or `"none"`.
    """

    def __init__(self, in_channels: int, out_channels: int, normalization: str):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=normalization == "none")
        self.norm = normalization_layer(normalization, out_channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """From `(N, in_channels, H, W)` to `(N, out_channels, H, W)`."""
        return self.norm(self.conv(hidden_states))


class PyramidHead(nn.Module):
    """
    Two convolutions with ReLU.

    Args:
        in_channels, out_channels (`int`): The channels before and after.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """From `(N, in_channels, H, W)` to `(N, out_channels, H, W)`."""
        return F.relu(self.conv2(F.relu(self.conv1(hidden_states))))
