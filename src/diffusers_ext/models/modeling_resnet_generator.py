"""The generator of CycleGAN: a residual network from images to images."""

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import nn

from .disk_offloading import DiskOffloadMixin
from .translation_layers import NORMALIZATIONS, initialize_weights, normalization_layer


PADDING_MODES = ("reflect", "replicate", "zeros")


class ResnetGenerator(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Generates an image from an image of the same size, by residual blocks at a quarter of its height and width.

    The generator of CycleGAN: "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks" (Zhu
    et al. 2017, section 4 and appendix 7.2, https://huggingface.co/papers/1703.10593, after Johnson et al. 2016;
    `ResnetGenerator` in https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix). The paper has 9 blocks for images of
    256 pixels and more, and 6 blocks for 128 pixels.

    Height and width can be any multiples of [`~ResnetGenerator.stride`], at least twice the stride.

    Args:
        sample_size (`int` or `tuple[int, int]`, *optional*):
            Height and width of the training images, for information only: the network can process other sizes.
        in_channels, out_channels (`int`, defaults to 3):
            Channels of the input and output images.
        base_channels (`int`, defaults to 64):
            Channels at full size. They double whenever the image is halved.
        num_downsamplings (`int`, defaults to 2):
            How often the image is halved.
        num_blocks (`int`, defaults to 9):
            The number of residual blocks.
        normalization (`str`, defaults to `"instance"`):
            `"batch"`, `"instance"` (without parameters) or `"none"`.
        padding_mode (`str`, defaults to `"reflect"`):
            How maps are padded in the residual blocks: `"reflect"`, `"replicate"` or `"zeros"`. The first and the last
            convolution always use `"reflect"`.
        dropout (`float`, defaults to 0.0):
            The dropout probability in the residual blocks.
        residual (`bool`, defaults to `False`):
            Whether the output is added to the input, and clamped to `[-1, 1]`, as in DeblurGAN (Kupyn et al. 2018,
            section 3.2, https://huggingface.co/papers/1711.07064). It then needs as many channels as the input.

    Raises:
        ValueError: if an argument is out of range.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["ResidualBlock"]
    _repeated_blocks = ["ResidualBlock"]

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] | None = None,
        in_channels: int = 3,
        out_channels: int = 3,
        base_channels: int = 64,
        num_downsamplings: int = 2,
        num_blocks: int = 9,
        normalization: str = "instance",
        padding_mode: str = "reflect",
        dropout: float = 0.0,
        residual: bool = False,
    ):
        super().__init__()
        if min(in_channels, out_channels, base_channels) < 1 or num_downsamplings < 0 or num_blocks < 0:
            raise ValueError(
                "`in_channels`, `out_channels` and `base_channels` must be positive, `num_downsamplings` and "
                f"`num_blocks` at least 0, but are {in_channels}, {out_channels}, {base_channels}, "
                f"{num_downsamplings} and {num_blocks}."
            )
        if normalization not in NORMALIZATIONS:
            raise ValueError(f"`normalization` must be one of {NORMALIZATIONS}, but is {normalization!r}.")
        if padding_mode not in PADDING_MODES:
            raise ValueError(f"`padding_mode` must be one of {PADDING_MODES}, but is {padding_mode!r}.")
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` must be in [0, 1), but is {dropout}.")
        if residual and in_channels != out_channels:
            raise ValueError(
                f"`residual` needs as many output as input channels, but they are {out_channels} and {in_channels}."
            )

        widths = [base_channels * 2**level for level in range(num_downsamplings + 1)]
        self.layer_in = ConvLayer(in_channels, widths[0], 7, 1, "reflect", normalization)
        self.down_layers = nn.ModuleList(
            ConvLayer(width, 2 * width, 3, 2, "zeros", normalization) for width in widths[:-1]
        )
        self.blocks = nn.ModuleList(
            ResidualBlock(widths[-1], padding_mode, normalization, dropout) for _ in range(num_blocks)
        )
        self.up_layers = nn.ModuleList(UpLayer(2 * width, width, normalization) for width in reversed(widths[:-1]))
        self.conv_out = nn.Conv2d(widths[0], out_channels, 7, padding=3, padding_mode="reflect")

        self.gradient_checkpointing = False
        self.apply(initialize_weights)

    @property
    def stride(self) -> int:
        """Height and width must be multiples of this."""
        return 2**self.config.num_downsamplings

    @property
    def smallest_side(self) -> int:
        """The smallest height and width: maps of one pixel can be neither normalized nor padded by reflection."""
        return max(2 * self.stride, 4)

    def forward(self, sample: torch.Tensor, return_dict: bool = True) -> UNet2DOutput | tuple[torch.Tensor]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                The images to translate, in `[-1, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`~models.unets.unet_2d.UNet2DOutput`] instead of a tuple.

        Returns:
            [`~models.unets.unet_2d.UNet2DOutput`] or `tuple`: the `sample` `(N, out_channels, H, W)`, in `[-1, 1]`.

        Raises:
            ValueError: for another number of channels, and if height or width is not a multiple of `stride`, or is too
                small to be padded by reflection.
        """
        if sample.ndim != 4 or sample.shape[1] != self.config.in_channels:
            raise ValueError(
                f"`sample` must be of the shape (N, {self.config.in_channels}, H, W), but is of {tuple(sample.shape)}."
            )
        height, width = sample.shape[-2:]
        if height % self.stride != 0 or width % self.stride != 0 or min(height, width) < self.smallest_side:
            raise ValueError(
                f"`sample` must have a height and a width that are multiples of {self.stride} and at least "
                f"{self.smallest_side}, but is of the size {(height, width)}."
            )

        hidden_states = F.relu(self.layer_in(sample))
        for layer in self.down_layers:
            hidden_states = F.relu(layer(hidden_states))
        for block in self.blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                hidden_states = self._gradient_checkpointing_func(block, hidden_states)
            else:
                hidden_states = block(hidden_states)
        for layer in self.up_layers:
            hidden_states = F.relu(layer(hidden_states))
        output = torch.tanh(self.conv_out(hidden_states))
        sample = (sample + output).clamp(-1, 1) if self.config.residual else output

        if not return_dict:
            return (sample,)
        return UNet2DOutput(sample=sample)


class ConvLayer(nn.Module):
    """
    Convolution and normalization.

    Args:
        in_channels, out_channels (`int`): The channels before and after.
        kernel_size, stride (`int`): The arguments of the convolution. Its padding is `kernel_size // 2`.
        padding_mode (`str`): How maps are padded: `"reflect"`, `"replicate"` or `"zeros"`.
        normalization (`str`): `"batch"`, `"instance"` or `"none"`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        padding_mode: str,
        normalization: str,
    ):
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding=kernel_size // 2,
            padding_mode=padding_mode,
            bias=normalization == "none",  # a normalization would cancel a bias
        )
        self.norm = normalization_layer(normalization, out_channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """From `(N, in_channels, H, W)` to `(N, out_channels, H / stride, W / stride)`."""
        return self.norm(self.conv(hidden_states))


class UpLayer(nn.Module):
    """
    A transposed convolution that doubles a map, and normalization.

    Args:
        in_channels, out_channels (`int`): The channels before and after.
        normalization (`str`): `"batch"`, `"instance"` or `"none"`.
    """

    def __init__(self, in_channels: int, out_channels: int, normalization: str):
        super().__init__()
        self.conv = nn.ConvTranspose2d(
            in_channels, out_channels, 3, stride=2, padding=1, output_padding=1, bias=normalization == "none"
        )
        self.norm = normalization_layer(normalization, out_channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """From `(N, in_channels, H, W)` to `(N, out_channels, 2 * H, 2 * W)`."""
        return self.norm(self.conv(hidden_states))


class ResidualBlock(nn.Module):
    """
    Two convolutions whose result is added to their input.

    Args:
        channels (`int`): The channels of the map.
        padding_mode (`str`): How maps are padded: `"reflect"`, `"replicate"` or `"zeros"`.
        normalization (`str`): `"batch"`, `"instance"` or `"none"`.
        dropout (`float`): The probability that a value between the convolutions is dropped.
    """

    def __init__(self, channels: int, padding_mode: str, normalization: str, dropout: float):
        super().__init__()
        self.layer1 = ConvLayer(channels, channels, 3, 1, padding_mode, normalization)
        self.dropout = nn.Dropout(dropout)
        self.layer2 = ConvLayer(channels, channels, 3, 1, padding_mode, normalization)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """From `(N, channels, H, W)` to the same shape."""
        return hidden_states + self.layer2(self.dropout(F.relu(self.layer1(hidden_states))))
