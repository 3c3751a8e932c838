"""The generator of ESRGAN and Real-ESRGAN: residual-in-residual dense blocks."""

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import nn

from .restoration_layers import check_restoration_input, initialize_small


RESIDUAL_SCALE = 0.2


class RRDBNet(ModelMixin, ConfigMixin):
    r"""
    Enlarges images by dense blocks whose outputs, scaled down, are added at three levels.

    "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks" (Wang et al. 2018, section 3.1,
    https://huggingface.co/papers/1809.00219), and `RRDBNet` in https://github.com/XPixelGroup/BasicSR. Real-ESRGAN
    (Wang et al. 2021, section 3.3, https://huggingface.co/papers/2107.10833) adds the `unshuffle_factor`, by which the
    same network enlarges by less at less cost.

    Args:
        in_channels, out_channels (`int`, defaults to 3):
            Channels of the small and the large images.
        base_channels (`int`, defaults to 64):
            Channels of the hidden layers.
        growth_channels (`int`, defaults to 32):
            Channels that each convolution of a dense block adds.
        num_blocks (`int`, defaults to 23):
            The number of residual-in-residual blocks, of three dense blocks each.
        num_upsamplings (`int`, defaults to 2):
            How often maps are doubled after the blocks.
        unshuffle_factor (`int`, defaults to 1):
            The image is first made smaller by this factor, and its pixels become channels. Height and width must be
            multiples of it.

    Raises:
        ValueError: if an argument is out of range.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["ResidualInResidualBlock"]
    _repeated_blocks = ["ResidualInResidualBlock"]

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        base_channels: int = 64,
        growth_channels: int = 32,
        num_blocks: int = 23,
        num_upsamplings: int = 2,
        unshuffle_factor: int = 1,
    ):
        super().__init__()
        if min(in_channels, out_channels, base_channels, growth_channels) < 1 or min(num_blocks, num_upsamplings) < 0:
            raise ValueError(
                "`in_channels`, `out_channels`, `base_channels` and `growth_channels` must be positive, `num_blocks` "
                f"and `num_upsamplings` at least 0, but are {in_channels}, {out_channels}, {base_channels}, "
                f"{growth_channels}, {num_blocks} and {num_upsamplings}."
            )
        if unshuffle_factor < 1 or 2**num_upsamplings % unshuffle_factor != 0:
            raise ValueError(
                f"`unshuffle_factor` must divide the enlargement after the blocks, {2**num_upsamplings}, but is "
                f"{unshuffle_factor}."
            )

        self.conv_in = nn.Conv2d(in_channels * unshuffle_factor**2, base_channels, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualInResidualBlock(base_channels, growth_channels) for _ in range(num_blocks))
        self.conv_mid = nn.Conv2d(base_channels, base_channels, 3, padding=1)
        self.up_convs = nn.ModuleList(
            nn.Conv2d(base_channels, base_channels, 3, padding=1) for _ in range(num_upsamplings)
        )
        self.conv_hr = nn.Conv2d(base_channels, base_channels, 3, padding=1)
        self.conv_out = nn.Conv2d(base_channels, out_channels, 3, padding=1)

        self.gradient_checkpointing = False
        self.blocks.apply(initialize_small)

    @property
    def scale(self) -> int:
        """How many times as high and wide images become."""
        return 2**self.config.num_upsamplings // self.config.unshuffle_factor

    @property
    def stride(self) -> int:
        """Height and width must be multiples of this."""
        return self.config.unshuffle_factor

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
            ValueError: for another number of channels, and if height or width is not a multiple of `stride`.
        """
        check_restoration_input(sample, self.config.in_channels, self.stride)

        if self.stride > 1:
            sample = F.pixel_unshuffle(sample, self.stride)
        shallow = self.conv_in(sample)
        hidden_states = shallow
        for block in self.blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                hidden_states = self._gradient_checkpointing_func(block, hidden_states)
            else:
                hidden_states = block(hidden_states)
        hidden_states = shallow + self.conv_mid(hidden_states)
        for conv in self.up_convs:
            hidden_states = F.leaky_relu(conv(F.interpolate(hidden_states, scale_factor=2.0)), 0.2)
        sample = self.conv_out(F.leaky_relu(self.conv_hr(hidden_states), 0.2))

        if not return_dict:
            return (sample,)
        return UNet2DOutput(sample=sample)


class ResidualInResidualBlock(nn.Module):
    """
    Three dense blocks, whose output is scaled by 0.2 and added to their input.

    Args:
        channels (`int`): The channels of the map.
        growth_channels (`int`): What each convolution of a dense block adds.
    """

    def __init__(self, channels: int, growth_channels: int):
        super().__init__()
        self.dense_blocks = nn.ModuleList(ResidualDenseBlock(channels, growth_channels) for _ in range(3))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """From `(N, channels, H, W)` to the same shape."""
        residual = hidden_states
        for block in self.dense_blocks:
            residual = block(residual)
        return hidden_states + RESIDUAL_SCALE * residual


class ResidualDenseBlock(nn.Module):
    """
    Five convolutions, each of which sees the outputs of all before it; the last is scaled by 0.2 and added.

    Args:
        channels (`int`): The channels of the map.
        growth_channels (`int`): What each convolution but the last one adds.
    """

    def __init__(self, channels: int, growth_channels: int):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels + index * growth_channels, growth_channels, 3, padding=1) for index in range(4)
        )
        self.conv_out = nn.Conv2d(channels + 4 * growth_channels, channels, 3, padding=1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """From `(N, channels, H, W)` to the same shape."""
        seen = hidden_states
        for conv in self.convs:
            seen = torch.cat([seen, F.leaky_relu(conv(seen), 0.2)], dim=1)
        return hidden_states + RESIDUAL_SCALE * self.conv_out(seen)
