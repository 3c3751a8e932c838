"""SinGAN: a pyramid of small generators that learns the patches of one image, and the critic of one of its scales."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn

from .disk_offloading import DiskOffloadMixin
from .gan_checks import check_choice, check_positive


SINGAN_SLOPE = 0.2  # of the leaky ReLUs
SINGAN_NORMS = ("instance", "batch")


@dataclass
class SinGANGeneratorOutput(BaseOutput):
    """
    The output of [`SinGANGenerator`] and [`SinGANScale`].

    Args:
        sample (`torch.Tensor` of shape `(N, C, H, W)`):
            Images, mostly in `[-1, 1]`.
    """

    sample: torch.Tensor


@dataclass
class SinGANDiscriminatorOutput(BaseOutput):
    """
    The output of [`SinGANDiscriminator`].

    Args:
        logits (`torch.Tensor` of shape `(N, 1, H', W')`):
            A score for each patch: the higher, the more real.
    """

    logits: torch.Tensor


class PatchLayers(nn.Module):
    """Convolutions without padding, each but the last with a normalization and a leaky ReLU: an output per patch."""

    def __init__(
        self, in_channels: int, layer_channels: Sequence[int], out_channels: int, kernel_size: int, norm: str
    ):
        super().__init__()
        check_positive(in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size)
        check_choice("normalization", norm, SINGAN_NORMS)
        if len(layer_channels) == 0 or min(layer_channels) < 1:
            raise ValueError(f"`layer_channels` must be positive numbers, but is {tuple(layer_channels)}.")
        if kernel_size % 2 == 0:
            raise ValueError(f"`kernel_size` must be odd, but is {kernel_size}.")
        widths = [in_channels, *layer_channels]
        self.convs = nn.ModuleList(
            [nn.Conv2d(a, b, kernel_size) for a, b in zip(widths[:-1], widths[1:], strict=True)]
        )
        norm_class = {"instance": SampleNorm, "batch": nn.BatchNorm2d}[norm]
        self.norms = nn.ModuleList([norm_class(width) for width in layer_channels])
        self.conv_out = nn.Conv2d(widths[-1], out_channels, kernel_size)
        for conv in (*self.convs, self.conv_out):
            nn.init.normal_(conv.weight, std=0.02)
        for layer in self.norms:
            nn.init.normal_(layer.weight, mean=1.0, std=0.02)

    @property
    def margin(self) -> int:
        """By how many pixels the output is smaller than the input, at each side."""
        return (self.conv_out.kernel_size[0] - 1) // 2 * (len(self.convs) + 1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            hidden_states = F.leaky_relu(norm(conv(hidden_states)), SINGAN_SLOPE)
        return self.conv_out(hidden_states)


class SampleNorm(nn.InstanceNorm2d):
    """Batch normalization of a batch of one, in training: each image is normalized by its own statistics."""

    def __init__(self, num_channels: int):
        super().__init__(num_channels, affine=True)


class SinGANScale(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    The generator of one scale of [`SinGANGenerator`]: it adds details to the enlarged image of the scale before.

    Equation 3 of "SinGAN: Learning a Generative Model from a Single Natural Image" (Shaham et al. 2019,
    https://huggingface.co/papers/1905.01164), as `GeneratorConcatSkip2CleanAdd` of
    https://github.com/tamarott/SinGAN.

    Args:
        num_channels (`int`, defaults to 3):
            Channels of the images.
        layer_channels (`tuple[int, ...]`, defaults to `(32, 32, 32, 32)`):
            The channels of each layer but the last.
        kernel_size (`int`, defaults to 3):
            Of the convolutions, odd.
        normalization (`str`, defaults to `"instance"`):
            `"instance"`: each image by its own statistics, which is what batch normalization does in training with one
            image, in which mode the original also samples. `"batch"`: with running statistics.

    Raises:
        ValueError: if the arguments do not make a network.
    """

    @register_to_config
    def __init__(
        self,
        num_channels: int = 3,
        layer_channels: tuple[int, ...] = (32, 32, 32, 32),
        kernel_size: int = 3,
        normalization: str = "instance",
    ):
        super().__init__()
        self.layers = PatchLayers(num_channels, layer_channels, num_channels, kernel_size, normalization)

    def forward(
        self, noise: torch.Tensor, previous: torch.Tensor, return_dict: bool = True
    ) -> SinGANGeneratorOutput | tuple[torch.Tensor]:
        r"""
        Args:
            noise (`torch.Tensor` of shape `(N, num_channels, H, W)`):
                Noise of this scale's amplitude.
            previous (`torch.Tensor` of shape `(N, num_channels, H, W)`):
                The image of the scale before, enlarged, in `[-1, 1]`; zeros at the coarsest one.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`SinGANGeneratorOutput`] instead of a tuple.

        Returns:
            [`SinGANGeneratorOutput`] or `tuple`: the images.

        Raises:
            ValueError: if the inputs do not fit the network.
        """
        if noise.shape != previous.shape or noise.ndim != 4 or noise.shape[1] != self.config.num_channels:
            raise ValueError(
                f"`noise` and `previous` must both be (N, {self.config.num_channels}, H, W), but are "
                f"{tuple(noise.shape)} and {tuple(previous.shape)}."
            )
        padded = F.pad(noise + previous, [self.layers.margin] * 4)
        sample = torch.tanh(self.layers(padded)) + previous
        if not return_dict:
            return (sample,)
        return SinGANGeneratorOutput(sample=sample)


class SinGANGenerator(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    All scales of a SinGAN, which draws images that have the patches of one image, of any size.

    The pyramid of Shaham et al. 2019 (https://huggingface.co/papers/1905.01164, figure 4). Each scale enlarges the
    image of the one before and adds details of its own noise.

    Args:
        sizes (`tuple[tuple[int, int], ...]`):
            Height and width of the image at each scale, from the coarsest to the finest.
        num_channels (`int`, defaults to 3):
            Channels of the images.
        layer_channels (`tuple[tuple[int, ...], ...]`, *optional*):
            The channels of the layers of each scale; by default the original's, 4 layers of 32, and twice as many
            after every fourth scale up to 128.
        kernel_size (`int`, defaults to 3):
            Of the convolutions, odd.
        normalization (`str`, defaults to `"instance"`):
            See [`SinGANScale`].

    Buffers:
        noise_amplitudes (`torch.Tensor` of shape `(num_scales,)`): the standard deviation of the noise of each scale.
        fixed_noise (`torch.Tensor` of shape `(1, 1, H, W)`): the noise of the coarsest scale that gives the image back
            (section 2.3).

    Raises:
        ValueError: if the arguments do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        sizes: tuple[tuple[int, int], ...] = ((25, 25), (34, 34), (48, 48)),
        num_channels: int = 3,
        layer_channels: tuple[tuple[int, ...], ...] | None = None,
        kernel_size: int = 3,
        normalization: str = "instance",
    ):
        super().__init__()
        if len(sizes) == 0 or any(len(size) != 2 or min(size) < 1 for size in sizes):
            raise ValueError(f"`sizes` must be the height and width of each scale, but is {sizes}.")
        if any(
            a > b
            for before, after in zip(sizes[:-1], sizes[1:], strict=True)
            for a, b in zip(before, after, strict=True)
        ):
            raise ValueError(f"`sizes` must grow from scale to scale, but is {sizes}.")
        widths = singan_widths(len(sizes)) if layer_channels is None else layer_channels
        if len(widths) != len(sizes):
            raise ValueError(
                f"`layer_channels` must have an entry for each of {len(sizes)} scales, not {len(widths)}."
            )
        self.scales = nn.ModuleList(
            [SinGANScale(num_channels, own_widths, kernel_size, normalization) for own_widths in widths]
        )
        self.register_buffer("noise_amplitudes", torch.ones(len(sizes)))
        self.register_buffer("fixed_noise", torch.zeros(1, 1, *sizes[0]))

    @classmethod
    def from_scales(cls, scales: Sequence[SinGANScale], sizes: Sequence[tuple[int, int]]) -> "SinGANGenerator":
        """A generator of these scales, whose weights it shares, on their device.

        Args:
            scales (`list[SinGANScale]`): from the coarsest to the finest.
            sizes (`list[tuple[int, int]]`): height and width of the image at each of them.
        """
        config, device = scales[0].config, scales[0].device
        widths = tuple(tuple(scale.config.layer_channels) for scale in scales)
        with torch.device("meta"):
            generator = cls(tuple(sizes), config.num_channels, widths, config.kernel_size, config.normalization)
        generator.scales = nn.ModuleList(scales)
        generator.noise_amplitudes = torch.ones(len(sizes), device=device)
        generator.fixed_noise = torch.zeros(1, 1, *sizes[0], device=device)
        return generator

    @property
    def num_scales(self) -> int:
        return len(self.scales)

    def sizes_for(self, height: int, width: int) -> list[tuple[int, int]]:
        """Height and width at each scale of an image whose finest size is `height` and `width`.

        Raises:
            ValueError: if the coarsest scale would have no pixels.
        """
        full_height, full_width = self.config.sizes[-1]
        sizes = [(round(h * height / full_height), round(w * width / full_width)) for h, w in self.config.sizes]
        if min(sizes[0]) < 1:
            raise ValueError(f"An image of {height}x{width} pixels has none at the coarsest scale.")
        return [*sizes[:-1], (height, width)]

    def noise_shapes(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """The shape (C, H, W) of the noise of each scale: one map for all channels at the coarsest scale."""
        sizes = self.sizes_for(height, width)
        return [(1 if scale == 0 else self.config.num_channels, *size) for scale, size in enumerate(sizes)]

    def reconstruction_noise(self, num_scales: int | None = None) -> list[torch.Tensor]:
        """The noise that gives the image back: the fixed map, and none at all finer scales."""
        sizes = self.config.sizes[: self.num_scales if num_scales is None else num_scales]
        return [self.fixed_noise, *(self.fixed_noise.new_zeros(1, 1, *size) for size in sizes[1:])]

    def forward(
        self,
        noise: Sequence[torch.Tensor],
        previous: torch.Tensor | None = None,
        first_scale: int = 0,
        return_dict: bool = True,
    ) -> SinGANGeneratorOutput | tuple[torch.Tensor]:
        r"""
        Args:
            noise (`list[torch.Tensor]`):
                Standard normal noise `(N, 1 or num_channels, h, w)` of successive scales, whose sizes are those of the
                images.
            previous (`torch.Tensor` of shape `(N, num_channels, h, w)`, *optional*):
                The image of the scale before `first_scale`, of any size, in `[-1, 1]`.
            first_scale (`int`, defaults to 0):
                The scale of the first entry of `noise`.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`SinGANGeneratorOutput`] instead of a tuple.

        Returns:
            [`SinGANGeneratorOutput`] or `tuple`: the images of the last of these scales.

        Raises:
            ValueError: if the inputs do not fit the network.
        """
        channels = self.config.num_channels
        if len(noise) == 0 or not 0 <= first_scale <= self.num_scales - len(noise):
            raise ValueError(
                f"`noise` must be for scales from 0 to {self.num_scales - 1}, but has {len(noise)} from {first_scale}."
            )
        if (previous is None) != (first_scale == 0):
            raise ValueError("`previous` must be given exactly where `first_scale` is not 0.")
        for scale, own in enumerate(noise, start=first_scale):
            own = own.expand(-1, channels, -1, -1) * self.noise_amplitudes[scale]
            previous = torch.zeros_like(own) if previous is None else resize_images(previous, own.shape[2:])
            previous = self.scales[scale](own, previous).sample
        if not return_dict:
            return (previous,)
        return SinGANGeneratorOutput(sample=previous)


class SinGANDiscriminator(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Scores all patches of an image at one scale, as `WDiscriminator` of https://github.com/tamarott/SinGAN.

    Args:
        num_channels (`int`, defaults to 3):
            Channels of the images.
        layer_channels (`tuple[int, ...]`, defaults to `(32, 32, 32, 32)`):
            The channels of each layer but the last.
        kernel_size (`int`, defaults to 3):
            Of the convolutions, odd. With 5 of 3x3, a patch has 11x11 pixels.
        normalization (`str`, defaults to `"instance"`):
            See [`SinGANScale`].

    Raises:
        ValueError: if the arguments do not make a network.
    """

    @register_to_config
    def __init__(
        self,
        num_channels: int = 3,
        layer_channels: tuple[int, ...] = (32, 32, 32, 32),
        kernel_size: int = 3,
        normalization: str = "instance",
    ):
        super().__init__()
        self.layers = PatchLayers(num_channels, layer_channels, 1, kernel_size, normalization)

    @property
    def patch_size(self) -> int:
        """The side of the patches in pixels."""
        return 2 * self.layers.margin + 1

    def forward(
        self, sample: torch.Tensor, return_dict: bool = True
    ) -> SinGANDiscriminatorOutput | tuple[torch.Tensor]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, num_channels, H, W)`):
                Images in `[-1, 1]`, no smaller than a patch.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`SinGANDiscriminatorOutput`] instead of a tuple.

        Returns:
            [`SinGANDiscriminatorOutput`] or `tuple`: the scores `(N, 1, H', W')` of the patches.

        Raises:
            ValueError: if the images do not fit the network.
        """
        channels, smallest = self.config.num_channels, self.patch_size
        if sample.ndim != 4 or sample.shape[1] != channels or min(sample.shape[2:]) < smallest:
            raise ValueError(
                f"`sample` must be (N, {channels}, H, W) with sides of at least {smallest} pixels, but is "
                f"{tuple(sample.shape)}."
            )
        logits = self.layers(sample)
        if not return_dict:
            return (logits,)
        return SinGANDiscriminatorOutput(logits=logits)


def singan_widths(num_scales: int) -> list[tuple[int, ...]]:
    """The channels of the layers of each scale in the original: 32, doubled after every fourth scale up to 128."""
    return [(min(32 * 2 ** (scale // 4), 128),) * 4 for scale in range(num_scales)]


def resize_images(images: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Images of another height and width, by cubic interpolation without aliasing, in the range of `[-1, 1]`."""
    if tuple(images.shape[2:]) == tuple(size):
        return images
    # In float32, because the CPU has no antialiasing of bfloat16
    resized = F.interpolate(images.float(), size=tuple(size), mode="bicubic", antialias=True)
    return resized.clamp(-1, 1).to(images.dtype)
