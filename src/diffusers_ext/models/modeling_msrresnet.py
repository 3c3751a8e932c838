"""The residual network of BasicSR, which adds details to the image that bilinear interpolation makes."""

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import nn

from .restoration_layers import check_restoration_input, initialize_small


# The pixel shuffles of each scale
MSRRESNET_FACTORS = {1: (), 2: (2,), 3: (3,), 4: (2, 2)}


class MSRResNet(ModelMixin, ConfigMixin):
    r"""
    Enlarges images by residual blocks without normalization; its output is added to a bilinear enlargement.

    `MSRResNet` in https://github.com/XPixelGroup/BasicSR, a modified SRResNet (Ledig et al. 2017,
    https://huggingface.co/papers/1609.04802).

    Images of any size can be enlarged.

    Args:
        in_channels, out_channels (`int`, defaults to 3):
            Channels of the small and the large images. They must be equal, or those of the small images 1, because one
            is added to the other.
        base_channels (`int`, defaults to 64):
            Channels of all hidden layers.
        num_blocks (`int`, defaults to 16):
            The number of residual blocks.
        scale (`int`, defaults to 4):
            How many times as high and wide images become: 1, 2, 3 or 4. The original does not have 1, which is for
            restoration without enlargement.

    Raises:
        ValueError: if an argument is out of range.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["PlainResidualBlock"]
    _repeated_blocks = ["PlainResidualBlock"]

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        base_channels: int = 64,
        num_blocks: int = 16,
        scale: int = 4,
    ):
        super().__init__()
        if min(in_channels, out_channels, base_channels) < 1 or num_blocks < 0:
            raise ValueError(
                "`in_channels`, `out_channels` and `base_channels` must be positive and `num_blocks` at least 0, but "
                f"are {in_channels}, {out_channels}, {base_channels} and {num_blocks}."
            )
        if in_channels not in (1, out_channels):
            raise ValueError(f"`in_channels` must be 1 or `out_channels`, {out_channels}, but is {in_channels}.")
        if scale not in MSRRESNET_FACTORS:
            raise ValueError(f"`scale` must be one of {tuple(MSRRESNET_FACTORS)}, but is {scale!r}.")

        self.conv_in = nn.Conv2d(in_channels, base_channels, 3, padding=1)
        self.blocks = nn.ModuleList(PlainResidualBlock(base_channels) for _ in range(num_blocks))
        self.up_convs = nn.ModuleList(
            nn.Conv2d(base_channels, base_channels * factor**2, 3, padding=1) for factor in MSRRESNET_FACTORS[scale]
        )
        self.conv_mid = nn.Conv2d(base_channels, base_channels, 3, padding=1)
        self.conv_out = nn.Conv2d(base_channels, out_channels, 3, padding=1)

        self.gradient_checkpointing = False
        self.apply(initialize_small)

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
            about in `[0, 1]`.

        Raises:
            ValueError: for another number of channels.
        """
        check_restoration_input(sample, self.config.in_channels)

        hidden_states = F.leaky_relu(self.conv_in(sample), 0.1)
        for block in self.blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                hidden_states = self._gradient_checkpointing_func(block, hidden_states)
            else:
                hidden_states = block(hidden_states)
        for conv, factor in zip(self.up_convs, MSRRESNET_FACTORS[self.scale], strict=True):
            hidden_states = F.leaky_relu(F.pixel_shuffle(conv(hidden_states), factor), 0.1)
        details = self.conv_out(F.leaky_relu(self.conv_mid(hidden_states), 0.1))
        if self.scale > 1:
            sample = F.interpolate(sample, scale_factor=self.scale, mode="bilinear", align_corners=False)
        sample = sample + details

        if not return_dict:
            return (sample,)
        return UNet2DOutput(sample=sample)


class PlainResidualBlock(nn.Module):
    """
    Two convolutions, without normalization, whose result is added to their input.

    Args:
        channels (`int`): The channels of the map.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """From `(N, channels, H, W)` to the same shape."""
        return hidden_states + self.conv2(F.relu(self.conv1(hidden_states)))
