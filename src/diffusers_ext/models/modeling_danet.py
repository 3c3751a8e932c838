"""DANet: a U-Net that removes noise from images or adds it to them, and the critic of clean and noisy pairs."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from diffusers.utils import BaseOutput
from torch import nn

from .restoration_layers import check_restoration_input


class DANetUNet(ModelMixin, ConfigMixin):
    r"""
    A U-Net without normalization, whose output is added to the image.

    The denoiser of "Dual Adversarial Network" (Yue et al. 2020, section 4.1, https://huggingface.co/papers/2007.05946)
    and, with `noise_channels`, its generator of noise. The original denoiser subtracts its output; here the last layer
    has the opposite sign.

    Height and width must be multiples of [`~DANetUNet.stride`].

    Args:
        in_channels, out_channels (`int`, defaults to 3):
            Channels of the images. They must be equal, because one is added to the other.
        noise_channels (`int`, defaults to 0):
            Channels of standard normal noise that the network sees beside the image: 1 for the generator.
        base_channels (`int`, defaults to 32):
            Channels of the first level; they double from each level to the next.
        num_levels (`int`, defaults to 5):
            The number of levels, each half as high and wide as the one before.

    Raises:
        ValueError: if an argument is out of range.
    """

    _no_split_modules = ["DANetBlock", "DANetUpBlock"]

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        noise_channels: int = 0,
        base_channels: int = 32,
        num_levels: int = 5,
    ):
        super().__init__()
        if min(in_channels, base_channels, num_levels) < 1 or noise_channels < 0:
            raise ValueError(
                "`in_channels`, `base_channels` and `num_levels` must be positive and `noise_channels` not negative, "
                f"but are {in_channels}, {base_channels}, {num_levels} and {noise_channels}."
            )
        if in_channels != out_channels:
            raise ValueError(
                f"`in_channels` and `out_channels` must be equal, but are {in_channels} and {out_channels}."
            )
        widths = [base_channels * 2**level for level in range(num_levels)]
        self.down_blocks = nn.ModuleList(
            DANetBlock(before, width)
            for before, width in zip([in_channels + noise_channels, *widths[:-1]], widths, strict=True)
        )
        self.downsamplers = nn.ModuleList(nn.Conv2d(width, width, 4, 2, 1, bias=False) for width in widths[:-1])
        self.up_blocks = nn.ModuleList(DANetUpBlock(2 * width, width) for width in widths[-2::-1])
        self.conv_out = nn.Conv2d(base_channels, out_channels, 3, padding=1)

    @property
    def stride(self) -> int:
        """Height and width must be multiples of this."""
        return 2 ** (self.config.num_levels - 1)

    def forward(
        self, sample: torch.Tensor, noise: torch.Tensor | None = None, return_dict: bool = True
    ) -> UNet2DOutput | tuple[torch.Tensor]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                The images, in `[0, 1]`.
            noise (`torch.Tensor` of shape `(N, noise_channels, H, W)`, *optional*):
                Standard normal noise, for a network with `noise_channels`.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`~models.unets.unet_2d.UNet2DOutput`] instead of a tuple.

        Returns:
            [`~models.unets.unet_2d.UNet2DOutput`] or `tuple`: the `sample` without or with its noise, about in
            `[0, 1]`.

        Raises:
            ValueError: for another number of channels, and if height or width is not a multiple of `stride`.
        """
        check_restoration_input(sample, self.config.in_channels, self.stride)
        expected, hidden_states = (len(sample), self.config.noise_channels, *sample.shape[2:]), sample
        if (noise is None) != (self.config.noise_channels == 0) or (noise is not None and noise.shape != expected):
            found = "missing" if noise is None else f"of the shape {tuple(noise.shape)}"
            raise ValueError(
                f"`noise` must be of the shape {expected}, or missing without `noise_channels`, but is {found}."
            )
        if noise is not None:
            hidden_states = torch.cat([sample, noise], dim=1)

        skipped = []
        for block, downsampler in zip(self.down_blocks[:-1], self.downsamplers, strict=True):
            skipped.append(block(hidden_states))
            hidden_states = downsampler(skipped[-1])
        hidden_states = self.down_blocks[-1](hidden_states)
        for block in self.up_blocks:
            hidden_states = block(hidden_states, skipped.pop())
        sample = sample + self.conv_out(hidden_states)

        if not return_dict:
            return (sample,)
        return UNet2DOutput(sample=sample)


@dataclass
class DANetCriticOutput(BaseOutput):
    """
    The output of [`DANetCritic`].

    Args:
        logits (`torch.Tensor` of shape `(N,)`):
            A score for each pair: the higher, the more real.
    """

    logits: torch.Tensor


class DANetCritic(ModelMixin, ConfigMixin):
    r"""
    Scores pairs of a clean and a noisy image, joined in the channels.

    The discriminator of "Dual Adversarial Network" (Yue et al. 2020, https://huggingface.co/papers/2007.05946), with a
    mean over the positions where images are larger than [`~DANetCritic.smallest_side`], 128 by default.

    Args:
        in_channels (`int`, defaults to 6):
            Channels of both images together.
        base_channels (`int`, defaults to 64):
            Channels of the first layer; they double from each layer to the next.
        num_levels (`int`, defaults to 5):
            How often the images are halved.

    Raises:
        ValueError: if an argument is out of range.
    """

    @register_to_config
    def __init__(self, in_channels: int = 6, base_channels: int = 64, num_levels: int = 5):
        super().__init__()
        if min(in_channels, base_channels, num_levels) < 1:
            raise ValueError(
                f"`in_channels`, `base_channels` and `num_levels` must be positive, but are {in_channels}, "
                f"{base_channels} and {num_levels}."
            )
        widths = [base_channels * 2**level for level in range(num_levels + 1)]
        self.down_layers = nn.ModuleList(
            nn.Conv2d(before, width, 4, 2, 1, bias=False)
            for before, width in zip([in_channels, *widths[:-2]], widths[:-1], strict=True)
        )
        self.conv_out = nn.Conv2d(widths[-2], widths[-1], 4, bias=False)
        self.fc = nn.Linear(widths[-1], 1)
        self.apply(_initialize_critic)

    @property
    def smallest_side(self) -> int:
        """The smallest height and width."""
        return 4 * 2**self.config.num_levels

    def forward(self, sample: torch.Tensor, return_dict: bool = True) -> DANetCriticOutput | tuple[torch.Tensor]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                The clean and the noisy images, in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`DANetCriticOutput`] instead of a tuple.

        Returns:
            [`DANetCriticOutput`] or `tuple`: the `logits` `(N,)`.

        Raises:
            ValueError: for another number of channels, and for images below `smallest_side`.
        """
        check_restoration_input(sample, self.config.in_channels)
        if min(sample.shape[2:]) < self.smallest_side:
            raise ValueError(
                f"`sample` must have a height and a width of at least {self.smallest_side}, but is of the size "
                f"{tuple(sample.shape[2:])}."
            )

        hidden_states = sample
        for layer in self.down_layers:
            hidden_states = F.leaky_relu(layer(hidden_states), 0.2)
        hidden_states = F.leaky_relu(self.conv_out(hidden_states), 0.2)
        logits = self.fc(hidden_states.mean(dim=(2, 3))).squeeze(1)

        if not return_dict:
            return (logits,)
        return DANetCriticOutput(logits=logits)


class DANetBlock(nn.Module):
    """
    Two convolutions of 3x3 pixels, each with a leaky ReLU.

    Args:
        in_channels, out_channels (`int`): The channels before and after.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """From `(N, in_channels, H, W)` to `(N, out_channels, H, W)`."""
        hidden_states = F.leaky_relu(self.conv1(hidden_states), 0.2)
        return F.leaky_relu(self.conv2(hidden_states), 0.2)


class DANetUpBlock(nn.Module):
    """
    Doubles a map, and joins it with the map of this size on the way down.

    Args:
        in_channels, out_channels (`int`): The channels before and after; the former are twice the latter.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.upsampler = nn.ConvTranspose2d(in_channels, out_channels, 2, 2)
        self.block = DANetBlock(in_channels, out_channels)

    def forward(self, hidden_states: torch.Tensor, skipped: torch.Tensor) -> torch.Tensor:
        """From `(N, in_channels, H, W)` and `(N, out_channels, 2H, 2W)` to the shape of the latter."""
        return self.block(torch.cat([self.upsampler(hidden_states), skipped], dim=1))


def _initialize_critic(module: nn.Module) -> None:
    """Normal weights with a deviation of 0.02, and zero biases."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.normal_(module.weight, 0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
