"""Makes an image from an image: the residual network of CycleGAN."""

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import nn


NORMALIZATIONS = ("batch", "instance", "none")
PADDING_MODES = ("reflect", "replicate", "zeros")


def normalization_layer(normalization: str, channels: int) -> nn.Module:
    layers = {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d, "none": nn.Identity}
    return layers[normalization](channels)


class ConvLayer(nn.Module):
    """
    Convolution and normalization.

    Args:
        in_channels, out_channels (`int`): The channels before and after.
        kernel_size, stride (`int`): Of the convolution, which is padded to its middle.
        padding_mode (`str`): What images are padded with.
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
            bias=normalization == "none",  # a normalization would take a bias away again
        )
        self.norm = normalization_layer(normalization, out_channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`(N, in_channels, H, W)` in, `(N, out_channels, H / stride, W / stride)` out."""
        return self.norm(self.conv(hidden_states))


class UpLayer(nn.Module):
    """
    Doubles a map by a transposed convolution, and normalizes it.

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
        """`(N, in_channels, H, W)` in, `(N, out_channels, 2 * H, 2 * W)` out."""
        return self.norm(self.conv(hidden_states))


class ResidualBlock(nn.Module):
    """
    Adds to a map what two convolutions make of it.

    Args:
        channels (`int`): The channels of the map.
        padding_mode (`str`): What it is padded with.
        normalization (`str`): `"batch"`, `"instance"` or `"none"`.
        dropout (`float`): The probability that a value between the convolutions is dropped.
    """

    def __init__(self, channels: int, padding_mode: str, normalization: str, dropout: float):
        super().__init__()
        self.layer1 = ConvLayer(channels, channels, 3, 1, padding_mode, normalization)
        self.dropout = nn.Dropout(dropout)
        self.layer2 = ConvLayer(channels, channels, 3, 1, padding_mode, normalization)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`(N, channels, H, W)` in and out."""
        return hidden_states + self.layer2(self.dropout(F.relu(self.layer1(hidden_states))))


class ResnetGenerator(ModelMixin, ConfigMixin):
    r"""
    Makes an image from an image of the same size, by residual blocks at a quarter of its height and width.

    The generator of CycleGAN: "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks" (Zhu
    et al. 2017, section 4 and appendix 7.2, https://huggingface.co/papers/1703.10593, after Johnson et al. 2016;
    `ResnetGenerator` of https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix). The paper has 9 blocks for images of
    256 pixels and more, 6 for 128.

    Height and width may be any multiples of [`~ResnetGenerator.stride`], from twice that on.

    Args:
        sample_size (`int` or `tuple[int, int]`, *optional*):
            Height and width of the images it was trained on. It is for readers; the network takes other sizes too.
        in_channels, out_channels (`int`, defaults to 3):
            Channels of the images that it sees and makes.
        base_channels (`int`, defaults to 64):
            Channels at full size. They double wherever the image is halved.
        num_downsamplings (`int`, defaults to 2):
            How often it is halved.
        num_blocks (`int`, defaults to 9):
            The number of residual blocks.
        normalization (`str`, defaults to `"instance"`):
            `"batch"`, `"instance"` (without parameters) or `"none"`.
        padding_mode (`str`, defaults to `"reflect"`):
            What images are padded with in the residual blocks: `"reflect"`, `"replicate"` or `"zeros"`. The first and
            the last convolution reflect in any case.
        dropout (`float`, defaults to 0.0):
            How much the residual blocks drop in training.

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
        self.apply(_initialize)

    @property
    def stride(self) -> int:
        """What height and width must be multiples of."""
        return 2**self.config.num_downsamplings

    @property
    def smallest_side(self) -> int:
        """What height and width must be at least: maps of one pixel can't be normalized, nor padded by reflection."""
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
            ValueError: for another number of channels, and if height or width is no multiple of `stride`, or too small
                to be padded by reflection.
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
        sample = torch.tanh(self.conv_out(hidden_states))

        if not return_dict:
            return (sample,)
        return UNet2DOutput(sample=sample)


def _initialize(module: nn.Module) -> None:
    """Weights as in the paper, appendix 7.1: normal, of standard deviation 0.02."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
