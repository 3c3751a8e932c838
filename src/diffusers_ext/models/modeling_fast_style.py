"""The feed-forward network of style transfer, which paints any image in the one style that it was trained for."""

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import nn


class FastStyleNet(ModelMixin, ConfigMixin):
    r"""
    Paints an image in a style, by residual blocks at a quarter of its height and width.

    "Perceptual Losses for Real-Time Style Transfer and Super-Resolution" (Johnson et al. 2016,
    https://huggingface.co/papers/1603.08155), in the form of `TransformerNet` in https://github.com/pytorch/examples:
    with instance norm, reflection padding, and nearest-neighbour enlargement.

    Args:
        in_channels, out_channels (`int`, defaults to 3):
            Channels of the images.
        block_out_channels (`tuple[int, ...]`, defaults to `(32, 64, 128)`):
            Channels at full size, and after each halving.
        num_blocks (`int`, defaults to 5):
            The number of residual blocks.

    Raises:
        ValueError: if an argument is out of range.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["StyleResidualBlock"]
    _repeated_blocks = ["StyleResidualBlock"]

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        block_out_channels: tuple[int, ...] = (32, 64, 128),
        num_blocks: int = 5,
    ):
        super().__init__()
        if min(in_channels, out_channels, *block_out_channels) < 1 or num_blocks < 0 or not block_out_channels:
            raise ValueError(
                "`in_channels`, `out_channels` and `block_out_channels` must be positive and `num_blocks` at least 0, "
                f"but are {in_channels}, {out_channels}, {tuple(block_out_channels)} and {num_blocks}."
            )
        widths = list(block_out_channels)
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.layer_in = StyleConvLayer(in_channels, widths[0], 9)
        self.down_layers = nn.ModuleList(StyleConvLayer(before, after, 3, stride=2) for before, after in pairs)
        self.blocks = nn.ModuleList(StyleResidualBlock(widths[-1]) for _ in range(num_blocks))
        self.up_layers = nn.ModuleList(StyleConvLayer(after, before, 3) for before, after in reversed(pairs))
        self.conv_out = nn.Conv2d(widths[0], out_channels, 9, padding=4, padding_mode="reflect")

        self.gradient_checkpointing = False

    @property
    def smallest_side(self) -> int:
        """The smallest height and width that can be padded by reflection and normalized at each level."""
        return max(5, 2 ** (len(self.config.block_out_channels) - 1) + 1)

    def forward(self, sample: torch.Tensor, return_dict: bool = True) -> UNet2DOutput | tuple[torch.Tensor]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                The images, in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`~models.unets.unet_2d.UNet2DOutput`] instead of a tuple.

        Returns:
            [`~models.unets.unet_2d.UNet2DOutput`] or `tuple`: the `sample` `(N, out_channels, H', W')`, about in
            `[0, 1]`. H' and W' are H and W, rounded up to multiples of 4 with the usual two halvings; what is added is
            at the right and below.

        Raises:
            ValueError: for another number of channels, and for images smaller than `smallest_side`.
        """
        if sample.ndim != 4 or sample.shape[1] != self.config.in_channels:
            raise ValueError(
                f"`sample` must be of the shape (N, {self.config.in_channels}, H, W), but is of {tuple(sample.shape)}."
            )
        if min(sample.shape[2:]) < self.smallest_side:
            raise ValueError(
                f"`sample` must have a height and a width of at least {self.smallest_side}, but is of the size "
                f"{tuple(sample.shape[2:])}."
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
            hidden_states = F.relu(layer(F.interpolate(hidden_states, scale_factor=2.0)))
        sample = self.conv_out(hidden_states)

        if not return_dict:
            return (sample,)
        return UNet2DOutput(sample=sample)


class StyleConvLayer(nn.Module):
    """
    A convolution, padded by reflection, and instance norm with a weight and a bias per channel.

    Args:
        in_channels, out_channels (`int`): The channels before and after.
        kernel_size, stride (`int`): The arguments of the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, padding_mode="reflect"
        )
        self.norm = nn.InstanceNorm2d(out_channels, affine=True)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """From `(N, in_channels, H, W)` to `(N, out_channels, H / stride, W / stride)`, rounded up."""
        return self.norm(self.conv(hidden_states))


class StyleResidualBlock(nn.Module):
    """
    Two convolutions whose result is added to their input.

    Args:
        channels (`int`): The channels of the map.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.layer1 = StyleConvLayer(channels, channels, 3)
        self.layer2 = StyleConvLayer(channels, channels, 3)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """From `(N, channels, H, W)` to the same shape."""
        return hidden_states + self.layer2(F.relu(self.layer1(hidden_states)))
