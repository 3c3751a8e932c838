"""Progressive GAN: a generator and a discriminator that grow from 4x4 pixels, a resolution at a time."""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn

from .equalized_layers import SQRT2, EqualizedConv2d, EqualizedLinear, append_minibatch_stddev
from .gan_checks import check_images, check_latents, check_positive, resolution_widths
from .style_mapping import check_style_labels


@dataclass
class ProgressiveGeneratorOutput(BaseOutput):
    """
    The output of [`ProgressiveGenerator`].

    Args:
        sample (`torch.Tensor` of shape `(N, out_channels, R, R)`):
            Images of the resolution R, mostly in `[-1, 1]`.
    """

    sample: torch.Tensor


@dataclass
class ProgressiveDiscriminatorOutput(BaseOutput):
    """
    The output of [`ProgressiveDiscriminator`].

    Args:
        logits (`torch.Tensor` of shape `(N,)`):
            Scores: the higher, the more real.
        class_logits (`torch.Tensor` of shape `(N, num_classes)`, *optional*):
            Unnormalised log-probabilities of the classes.
    """

    logits: torch.Tensor
    class_logits: torch.Tensor | None = None


class ProgressiveGenerator(ModelMixin, ConfigMixin):
    r"""
    Generates images of each resolution from 4x4 to `sample_size`, of which training adds one at a time.

    The generator of "Progressive Growing of GANs for Improved Quality, Stability, and Variation" (Karras et al. 2018,
    https://huggingface.co/papers/1710.10196) as in mmgeneration. Each resolution doubles features by repeating pixels,
    has two convolutions of 3x3, each followed by a leaky ReLU and a normalization of the features of each pixel, and a
    convolution of 1x1 to an image of its own.

    Args:
        sample_size (`int`, defaults to 256):
            Height and width of the largest images: a power of two, at least 4.
        out_channels (`int`, defaults to 3):
            Channels of the images.
        latent_dim (`int`, defaults to 512):
            The length of a latent.
        block_out_channels (`tuple[int, ...]`, *optional*):
            The channels of each resolution, from 4x4 to `sample_size`; by default the paper's,
            `min(512, 16384 / resolution)`.
        num_classes (`int`, *optional*):
            The number of classes, which enter as one-hot vectors beside the latents, or the length of a label of real
            numbers.

    Raises:
        ValueError: if the arguments do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 256,
        out_channels: int = 3,
        latent_dim: int = 512,
        block_out_channels: tuple[int, ...] | None = None,
        num_classes: int | None = None,
    ):
        super().__init__()
        check_positive(out_channels=out_channels, latent_dim=latent_dim)
        widths = resolution_widths(sample_size, block_out_channels, PROGRESSIVE_BASE, smallest=4)
        coarsest = widths[0]
        self.linear_in = EqualizedLinear(latent_dim + (num_classes or 0), 16 * coarsest, bias=None, gain=SQRT2 / 4)
        self.bias_in = nn.Parameter(torch.zeros(coarsest))
        self.blocks = nn.ModuleList([nn.ModuleList([EqualizedConv2d(coarsest, coarsest, 3, gain=SQRT2)])])
        for before, width in pairwise(widths):
            convs = [EqualizedConv2d(before, width, 3, gain=SQRT2), EqualizedConv2d(width, width, 3, gain=SQRT2)]
            self.blocks.append(nn.ModuleList(convs))
        self.to_rgb = nn.ModuleList([EqualizedConv2d(width, out_channels, 1) for width in widths])

    def forward(
        self,
        latents: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        resolution: int | None = None,
        fade: float | torch.Tensor = 1.0,
        return_dict: bool = True,
    ) -> ProgressiveGeneratorOutput | tuple[torch.Tensor]:
        r"""
        Args:
            latents (`torch.Tensor` of shape `(N, latent_dim)`):
                Normal noise.
            class_labels (`torch.Tensor` of shape `(N,)` or `(N, num_classes)`, *optional*):
                The class of each image, or a label of real numbers, for a conditional generator.
            resolution (`int`, *optional*, defaults to `sample_size`):
                The size of the images: 4, 8, ... `sample_size`.
            fade (`float` or `torch.Tensor`, defaults to 1.0):
                The weight of this resolution; the rest is the enlarged image of the one before (figure 2).
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`ProgressiveGeneratorOutput`] instead of a tuple.

        Returns:
            [`ProgressiveGeneratorOutput`] or `tuple`: the images `(N, out_channels, resolution, resolution)`.

        Raises:
            ValueError: if the inputs do not fit the network.
        """
        config = self.config
        check_latents(latents, config.latent_dim)
        check_style_labels(class_labels, latents.shape[0], config.num_classes)
        num_blocks = count_resolutions(config.sample_size if resolution is None else resolution, config.sample_size)
        if config.num_classes is not None:
            if not class_labels.is_floating_point():
                class_labels = F.one_hot(class_labels.long(), config.num_classes)
            latents = torch.cat([latents, class_labels.to(latents.dtype)], dim=1)

        hidden_states = self.linear_in(divide_by_length(latents, LATENT_EPSILON))
        hidden_states = hidden_states.unflatten(1, (-1, 4, 4)) + self.bias_in[:, None, None]
        hidden_states = divide_by_length(F.leaky_relu(hidden_states, PROGRESSIVE_SLOPE))
        coarser = None
        for level, convs in enumerate(self.blocks[:num_blocks]):
            if level > 0:
                if level == num_blocks - 1:
                    coarser = self.to_rgb[level - 1](hidden_states)
                hidden_states = F.interpolate(hidden_states, scale_factor=2, mode="nearest")
            for conv in convs:
                hidden_states = divide_by_length(F.leaky_relu(conv(hidden_states), PROGRESSIVE_SLOPE))
        sample = self.to_rgb[num_blocks - 1](hidden_states)
        if coarser is not None:
            sample = torch.lerp(F.interpolate(coarser, scale_factor=2, mode="nearest"), sample, fade)

        if not return_dict:
            return (sample,)
        return ProgressiveGeneratorOutput(sample=sample)

    def up_to(self, resolution: int) -> "ProgressiveGenerator":
        """The generator of images of `resolution`: the first blocks of this one, with the same weights.

        Raises:
            ValueError: if there is no such resolution.
        """
        config = self.config
        widths = resolution_widths(config.sample_size, config.block_out_channels, PROGRESSIVE_BASE, smallest=4)
        first = widths[: count_resolutions(resolution, config.sample_size)]
        with torch.device("meta"):
            smaller = ProgressiveGenerator(
                resolution, config.out_channels, config.latent_dim, tuple(first), config.num_classes
            )
        weights = self.state_dict()
        smaller.load_state_dict({name: weights[name] for name in smaller.state_dict()}, assign=True)
        return smaller.train(self.training)


class ProgressiveDiscriminator(ModelMixin, ConfigMixin):
    r"""
    Distinguishes real images of each resolution from generated ones; it mirrors [`ProgressiveGenerator`].

    The discriminator of Karras et al. 2018 (https://huggingface.co/papers/1710.10196) as in mmgeneration. Before its
    last layers it sees how much the images of a batch differ, so that scores depend on the batch.

    Args:
        sample_size (`int`, defaults to 256):
            Height and width of the largest images: a power of two, at least 4.
        in_channels (`int`, defaults to 3):
            Channels of the images.
        block_out_channels (`tuple[int, ...]`, *optional*):
            The channels of each resolution, from 4x4 to `sample_size`, as in [`ProgressiveGenerator`].
        hidden_dim (`int`, *optional*, defaults to the channels at 4x4):
            The width of the layer before the last.
        num_classes (`int`, *optional*):
            The number of classes that it predicts besides (AC-GAN).
        pools_first (`bool`, defaults to `True`):
            Whether the features of a halving are averaged before their activation, as by convolutions that are fused
            with the average, or after it.
        stddev_group_size (`int`, *optional*, defaults to 4):
            How many images of a batch are compared; `None` for all.

    Raises:
        ValueError: if the arguments do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 256,
        in_channels: int = 3,
        block_out_channels: tuple[int, ...] | None = None,
        hidden_dim: int | None = None,
        num_classes: int | None = None,
        pools_first: bool = True,
        stddev_group_size: int | None = 4,
    ):
        super().__init__()
        check_positive(in_channels=in_channels)
        widths = resolution_widths(sample_size, block_out_channels, PROGRESSIVE_BASE, smallest=4)
        self.from_rgb = nn.ModuleList([EqualizedConv2d(in_channels, width, 1, gain=SQRT2) for width in widths])
        self.blocks = nn.ModuleList()
        for after, width in pairwise(widths):
            convs = [EqualizedConv2d(width, width, 3, gain=SQRT2), EqualizedConv2d(width, after, 3, gain=SQRT2)]
            self.blocks.append(nn.ModuleList(convs))
        hidden_dim = hidden_dim or widths[0]
        self.linear = EqualizedLinear(16 * (widths[0] + 1), hidden_dim, gain=SQRT2)
        self.linear_out = EqualizedLinear(hidden_dim, 1 + (num_classes or 0))

    def forward(
        self, sample: torch.Tensor, fade: float | torch.Tensor = 1.0, return_dict: bool = True
    ) -> ProgressiveDiscriminatorOutput | tuple[torch.Tensor, ...]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, R, R)`):
                Images of a resolution R of 4, 8, ... `sample_size`, in `[-1, 1]`.
            fade (`float` or `torch.Tensor`, defaults to 1.0):
                The weight of this resolution; the rest are the features of the halved image.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`ProgressiveDiscriminatorOutput`] instead of a tuple.

        Returns:
            [`ProgressiveDiscriminatorOutput`] or `tuple`: the scores `(N,)`, and the class logits if there are any.

        Raises:
            ValueError: if the images do not fit the network.
        """
        config, size = self.config, sample.shape[-1]
        num_blocks = count_resolutions(size, config.sample_size)
        check_images(sample, (config.in_channels, size, size))

        hidden_states = F.leaky_relu(self.from_rgb[num_blocks - 1](sample), PROGRESSIVE_SLOPE)
        for level in reversed(range(num_blocks - 1)):
            conv, conv_down = self.blocks[level]
            hidden_states = F.leaky_relu(conv(hidden_states), PROGRESSIVE_SLOPE)
            if config.pools_first:
                hidden_states = F.leaky_relu(F.avg_pool2d(conv_down(hidden_states), 2), PROGRESSIVE_SLOPE)
            else:
                hidden_states = F.avg_pool2d(F.leaky_relu(conv_down(hidden_states), PROGRESSIVE_SLOPE), 2)
            if level == num_blocks - 2:
                seen = F.leaky_relu(self.from_rgb[level](F.avg_pool2d(sample, 2)), PROGRESSIVE_SLOPE)
                hidden_states = torch.lerp(seen, hidden_states, fade)
        hidden_states = append_minibatch_stddev(hidden_states, config.stddev_group_size)
        hidden_states = F.leaky_relu(self.linear(hidden_states.flatten(1)), PROGRESSIVE_SLOPE)
        outputs = self.linear_out(hidden_states)
        logits, class_logits = outputs[:, 0], outputs[:, 1:] if config.num_classes is not None else None

        if not return_dict:
            return (logits,) if class_logits is None else (logits, class_logits)
        return ProgressiveDiscriminatorOutput(logits=logits, class_logits=class_logits)


PROGRESSIVE_BASE = 16384  # of the paper: the channels of a resolution times its size
PROGRESSIVE_SLOPE = 0.2  # of the leaky ReLUs
LATENT_EPSILON, FEATURE_EPSILON = 1e-6, 1e-5  # what is added to lengths before a division by them


def divide_by_length(hidden_states: torch.Tensor, epsilon: float = FEATURE_EPSILON) -> torch.Tensor:
    """Vectors along dimension 1, divided by the root of their mean square (section 4.2), as in mmgeneration."""
    return hidden_states / (hidden_states.square().mean(dim=1, keepdim=True).sqrt() + epsilon)


def count_resolutions(size: int, largest: int) -> int:
    """How many resolutions there are from 4x4 to `size`.

    Raises:
        ValueError: if the network has no such resolution.
    """
    if not 4 <= size <= largest or size & (size - 1):
        raise ValueError(f"The resolution must be 4, 8 ... or {largest}, but is {size}.")
    return size.bit_length() - 2
