"""The generator of SRGAN, a residual network that enlarges images."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import nn

from .disk_offloading import DiskOffloadMixin
from .restoration_layers import check_restoration_input


SRRESNET_NORMALIZATIONS = {"batch": nn.BatchNorm2d, "none": nn.Identity}
SRRESNET_OUTPUTS = ("tanh", "identity")


class SRResNet(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Enlarges images by residual blocks at their own size, and convolutions that each double it by pixel shuffling.

    "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network" (Ledig et al. 2017, figure
    4, https://huggingface.co/papers/1609.04802), and `Generator` in https://github.com/leftthomas/SRGAN, which has 5
    blocks, ends by (tanh + 1) / 2, and at first had PReLU where the paper has batch norm after the blocks.

    Images of any size can be enlarged.

    Args:
        in_channels, out_channels (`int`, defaults to 3):
            Channels of the small and the large images.
        base_channels (`int`, defaults to 64):
            Channels of all hidden layers.
        num_blocks (`int`, defaults to 16):
            The number of residual blocks.
        scale (`int`, defaults to 4):
            How many times as high and wide images become: 1, 2, 4, 8 ...
        normalization (`str`, defaults to `"batch"`):
            `"batch"`, or `"none"` as in later networks, which thus do not depend on the brightness of the training
            images.
        trunk_activation (`bool`, defaults to `False`):
            Whether the convolution after the blocks is followed by PReLU instead of the normalization.
        output_activation (`str`, defaults to `"identity"`):
            `"identity"`, or `"tanh"` for (tanh + 1) / 2.

    Raises:
        ValueError: if an argument is out of range.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["SRResidualBlock"]
    _repeated_blocks = ["SRResidualBlock"]

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        base_channels: int = 64,
        num_blocks: int = 16,
        scale: int = 4,
        normalization: str = "batch",
        trunk_activation: bool = False,
        output_activation: str = "identity",
    ):
        super().__init__()
        if min(in_channels, out_channels, base_channels) < 1 or num_blocks < 0:
            raise ValueError(
                "`in_channels`, `out_channels` and `base_channels` must be positive and `num_blocks` at least 0, but "
                f"are {in_channels}, {out_channels}, {base_channels} and {num_blocks}."
            )
        if scale < 1 or scale & (scale - 1) != 0:
            raise ValueError(f"`scale` must be a power of two, but is {scale}.")
        if normalization not in SRRESNET_NORMALIZATIONS:
            raise ValueError(
                f"`normalization` must be one of {tuple(SRRESNET_NORMALIZATIONS)}, but is {normalization!r}."
            )
        if output_activation not in SRRESNET_OUTPUTS:
            raise ValueError(f"`output_activation` must be one of {SRRESNET_OUTPUTS}, but is {output_activation!r}.")

        self.conv_in = nn.Conv2d(in_channels, base_channels, 9, padding=4)
        self.act_in = nn.PReLU()
        self.blocks = nn.ModuleList(SRResidualBlock(base_channels, normalization) for _ in range(num_blocks))
        self.conv_mid = nn.Conv2d(base_channels, base_channels, 3, padding=1)
        self.norm_mid = nn.PReLU() if trunk_activation else SRRESNET_NORMALIZATIONS[normalization](base_channels)
        self.up_layers = nn.ModuleList(PixelShuffleLayer(base_channels) for _ in range(scale.bit_length() - 1))
        self.conv_out = nn.Conv2d(base_channels, out_channels, 9, padding=4)

        self.gradient_checkpointing = False

    @property
    def scale(self) -> int:
        """How many times as high and wide images become."""
        return self.config.scale

    def forward(self, sample: torch.Tensor, return_dict: bool = True) -> UNet2DOutput | tuple[torch.Tensor]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                The small images, in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`~models.unets.unet_2d.UNet2DOutput`] instead of a tuple.

        Returns:
            [`~models.unets.unet_2d.UNet2DOutput`] or `tuple`: the `sample` `(N, out_channels, scale * H, scale * W)`,
            in `[0, 1]`, and without an output activation only about in this range.

        Raises:
            ValueError: for another number of channels.
        """
        check_restoration_input(sample, self.config.in_channels)

        shallow = self.act_in(self.conv_in(sample))
        hidden_states = shallow
        for block in self.blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                hidden_states = self._gradient_checkpointing_func(block, hidden_states)
            else:
                hidden_states = block(hidden_states)
        hidden_states = shallow + self.norm_mid(self.conv_mid(hidden_states))
        for layer in self.up_layers:
            hidden_states = layer(hidden_states)
        sample = self.conv_out(hidden_states)
        if self.config.output_activation == "tanh":
            sample = (torch.tanh(sample) + 1) / 2

        if not return_dict:
            return (sample,)
        return UNet2DOutput(sample=sample)


class SRResidualBlock(nn.Module):
    """
    Two convolutions whose result is added to their input.

    Args:
        channels (`int`): The channels of the map.
        normalization (`str`): `"batch"` or `"none"`.
    """

    def __init__(self, channels: int, normalization: str):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm1 = SRRESNET_NORMALIZATIONS[normalization](channels)
        self.act = nn.PReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = SRRESNET_NORMALIZATIONS[normalization](channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """From `(N, channels, H, W)` to the same shape."""
        residual = self.act(self.norm1(self.conv1(hidden_states)))
        return hidden_states + self.norm2(self.conv2(residual))


class PixelShuffleLayer(nn.Module):
    """
    A convolution that computes the four pixels that each pixel becomes, and PReLU.

    Args:
        channels (`int`): The channels of the map.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, 4 * channels, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)
        self.act = nn.PReLU()

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """From `(N, channels, H, W)` to `(N, channels, 2 * H, 2 * W)`."""
        return self.act(self.shuffle(self.conv(hidden_states)))
