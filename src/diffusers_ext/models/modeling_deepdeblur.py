"""DeepDeblur: residual networks that sharpen an image at several sizes, from the coarsest to the finest."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn

from .restoration_layers import check_restoration_input


PYRAMID_RADIUS = 3  # of the Gaussian that goes before each halving
PYRAMID_SIGMA = 2 / 3


@dataclass
class DeepDeblurOutput(BaseOutput):
    """
    The output of [`DeepDeblurNet`].

    Args:
        sample (`torch.Tensor` of shape `(N, out_channels, H, W)`):
            The sharp images.
        coarser (`tuple[torch.Tensor, ...]`):
            The sharp images at a half of this size, at a quarter, and so on.
    """

    sample: torch.Tensor
    coarser: tuple[torch.Tensor, ...] | None = None


class DeepDeblurNet(ModelMixin, ConfigMixin):
    r"""
    Sharpens images: the result at each size is enlarged, and helps at the next larger one.

    "Deep Multi-scale Convolutional Neural Network for Dynamic Scene Deblurring" (Nah et al. 2017, section 3 and figure
    3, https://huggingface.co/papers/1612.02177), in the form of `MSResNet` in
    https://github.com/SeungjunNah/DeepDeblur-PyTorch. Its loss is the sum over all sizes.

    Height and width can be any multiples of [`~DeepDeblurNet.stride`].

    Args:
        in_channels, out_channels (`int`, defaults to 3):
            Channels of the images. They must be equal, because one is joined with the other.
        base_channels (`int`, defaults to 64):
            Channels of all hidden layers.
        num_blocks (`int`, defaults to 19):
            The number of residual blocks at each size.
        num_scales (`int`, defaults to 3):
            The number of sizes.
        kernel_size (`int`, defaults to 5):
            Of all convolutions; odd.

    Raises:
        ValueError: if an argument is out of range.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["DeepDeblurBlock"]
    _repeated_blocks = ["DeepDeblurBlock"]

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        base_channels: int = 64,
        num_blocks: int = 19,
        num_scales: int = 3,
        kernel_size: int = 5,
    ):
        super().__init__()
        if min(in_channels, base_channels, num_scales) < 1 or num_blocks < 0:
            raise ValueError(
                "`in_channels`, `base_channels` and `num_scales` must be positive and `num_blocks` at least 0, but "
                f"are {in_channels}, {base_channels}, {num_scales} and {num_blocks}."
            )
        if in_channels != out_channels:
            raise ValueError(
                f"`in_channels` and `out_channels` must be equal, but are {in_channels} and {out_channels}."
            )
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"`kernel_size` must be a positive odd number, but is {kernel_size}.")

        # The finest size first, as in the original
        self.bodies = nn.ModuleList(
            DeepDeblurBody(
                in_channels if scale == num_scales - 1 else 2 * in_channels,
                out_channels,
                base_channels,
                num_blocks,
                kernel_size,
            )
            for scale in range(num_scales)
        )
        self.up_convs = nn.ModuleList(
            nn.Conv2d(out_channels, 4 * out_channels, kernel_size, padding=kernel_size // 2)
            for _ in range(num_scales - 1)
        )
        self.gradient_checkpointing = False

    @property
    def stride(self) -> int:
        """Height and width must be multiples of this."""
        return 2 ** (self.config.num_scales - 1)

    def forward(
        self,
        sample: torch.Tensor,
        coarser: tuple[torch.Tensor, ...] | None = None,
        return_dict: bool = True,
    ) -> DeepDeblurOutput | tuple:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                The blurred images, in `[0, 1]`.
            coarser (`tuple[torch.Tensor, ...]`, *optional*):
                The same images at a half of this size, at a quarter, and so on; by default [`halve`] makes them.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`DeepDeblurOutput`] instead of a tuple.

        Returns:
            [`DeepDeblurOutput`] or `tuple`: the `sample` `(N, out_channels, H, W)`, about in `[0, 1]`, and the
            `coarser` results.

        Raises:
            ValueError: for another number of channels, if height or width is not a multiple of `stride`, and for
                another number of `coarser` images.
        """
        check_restoration_input(sample, self.config.in_channels, self.stride)
        pyramid = [sample]
        if coarser is None:
            for _ in self.up_convs:
                pyramid.append(halve(pyramid[-1]))
        elif len(coarser) == len(self.up_convs):
            pyramid += coarser
        else:
            raise ValueError(f"`coarser` must be {len(self.up_convs)} batches of images, but is {len(coarser)}.")

        outputs = []
        for scale in reversed(range(self.config.num_scales)):
            hidden_states = pyramid[scale] - 0.5
            if outputs:
                enlarged = F.pixel_shuffle(self.up_convs[scale](outputs[0]), 2)
                hidden_states = torch.cat([hidden_states, enlarged], dim=1)
            body = self.bodies[scale]
            hidden_states = body.conv_in(hidden_states)
            for block in body.blocks:
                if torch.is_grad_enabled() and self.gradient_checkpointing:
                    hidden_states = self._gradient_checkpointing_func(block, hidden_states)
                else:
                    hidden_states = block(hidden_states)
            outputs.insert(0, body.conv_out(hidden_states))
        sample, *coarser = (output + 0.5 for output in outputs)

        if not return_dict:
            return (sample, tuple(coarser))
        return DeepDeblurOutput(sample=sample, coarser=tuple(coarser))


class DeepDeblurBody(nn.Module):
    """
    The layers of one size, which the network calls.

    Args:
        in_channels, out_channels, channels (`int`): The channels before, after and between.
        num_blocks (`int`): The number of residual blocks.
        kernel_size (`int`): Of all convolutions.
    """

    def __init__(self, in_channels: int, out_channels: int, channels: int, num_blocks: int, kernel_size: int):
        super().__init__()
        self.conv_in = nn.Conv2d(in_channels, channels, kernel_size, padding=kernel_size // 2)
        self.blocks = nn.ModuleList(DeepDeblurBlock(channels, kernel_size) for _ in range(num_blocks))
        self.conv_out = nn.Conv2d(channels, out_channels, kernel_size, padding=kernel_size // 2)


class DeepDeblurBlock(nn.Module):
    """
    Two convolutions, without normalization, whose result is added to their input.

    Args:
        channels (`int`): The channels of the map.
        kernel_size (`int`): Of the convolutions.
    """

    def __init__(self, channels: int, kernel_size: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """From `(N, channels, H, W)` to the same shape."""
        return hidden_states + self.conv2(F.relu(self.conv1(hidden_states)))


def halve(images: torch.Tensor) -> torch.Tensor:
    """
    Images at half their height and width: a Gaussian of 2/3 pixels, then the means of 2x2 pixels.

    As `pyramid_gaussian` of scikit-image for even sizes, which the original uses; beyond the borders, images are
    mirrored.

    Args:
        images (`torch.Tensor` of shape `(N, C, H, W)`): with even sides of at least 2.

    Returns:
        `torch.Tensor` of shape `(N, C, H / 2, W / 2)`.
    """
    offsets = torch.arange(-PYRAMID_RADIUS, PYRAMID_RADIUS + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-0.5 * (offsets / PYRAMID_SIGMA) ** 2)
    weights = (weights / weights.sum()).expand(images.shape[1], 1, 1, -1)
    for _ in range(2):  # along the width, then along the height
        padded = images[..., mirrored_positions(images.shape[-1], PYRAMID_RADIUS)]
        images = F.conv2d(padded, weights, groups=images.shape[1]).transpose(2, 3)
    return F.avg_pool2d(images, 2)


def mirrored_positions(size: int, radius: int) -> list[int]:
    """The positions from `-radius` to `size + radius`, those outside mirrored at the border: 1 0 0 1 2 ..."""
    period = [*range(size), *reversed(range(size))]
    return [period[position % (2 * size)] for position in range(-radius, size + radius)]
