"""StyleGAN2: a generator whose convolutions are modulated by styles, and a residual discriminator."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn

from .disk_offloading import DiskOffloadMixin
from .equalized_layers import (
    EQUALIZED_ACTIVATIONS,
    NORM_EPSILON,
    EqualizedConv2d,
    EqualizedLinear,
    activate,
    append_minibatch_stddev,
)
from .gan_checks import check_choice, check_images, check_positive, resolution_widths
from .resampling_filters import blur_images, double_images, halve_images, normalized_taps
from .style_mapping import StyleMapping, check_style_labels
from .style_space import StyleSpaceMixin


@dataclass
class StyleGAN2GeneratorOutput(BaseOutput):
    """
    The output of [`StyleGAN2Generator`].

    Args:
        sample (`torch.Tensor` of shape `(N, out_channels, H, W)`):
            Images, mostly in `[-1, 1]`.
        styles (`torch.Tensor` of shape `(N, num_styles, style_dim)`):
            The style of each layer, from coarse to fine.
    """

    sample: torch.Tensor
    styles: torch.Tensor


@dataclass
class StyleGAN2DiscriminatorOutput(BaseOutput):
    """
    The output of [`StyleGAN2Discriminator`].

    Args:
        logits (`torch.Tensor` of shape `(N,)`):
            Scores before any sigmoid: the higher, the more real.
    """

    logits: torch.Tensor


class StyleGAN2Generator(StyleSpaceMixin, DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Generates images from styles, which modulate the weights of each convolution.

    The generator of "Analyzing and Improving the Image Quality of StyleGAN" (Karras et al. 2020,
    https://huggingface.co/papers/1912.04958), with the options of the reference implementation of StyleGAN2-ADA,
    NVlabs/stylegan2-ada-pytorch. A mapping network turns latents z into styles w. The synthesis starts from a learned
    constant of 4x4 and doubles it up to the image. Each resolution has two convolutions (the first has one) and,
    depending on the `architecture`, adds to the image.

    Args:
        sample_size (`int`, defaults to 256):
            Height and width of the images: a power of two, at least 8.
        out_channels (`int`, defaults to 3):
            Channels of the images.
        latent_dim (`int`, defaults to 512):
            The length of a latent z.
        style_dim (`int`, defaults to 512):
            The length of a style w.
        block_out_channels (`tuple[int, ...]`, *optional*):
            The channels of the features of each resolution, from 4x4 to `sample_size`; by default those of the paper's
            configuration F, `min(512, 32768 / resolution)`.
        architecture (`str`, defaults to `"skip"`):
            How the image arises (figure 7 of the paper): `"skip"`, as the sum of an image per resolution; `"resnet"`,
            from the last features of residual blocks; `"orig"`, from the last features of plain blocks.
        num_mapping_layers (`int`, defaults to 8):
            The dense layers of the mapping network.
        mapping_dim (`int`, *optional*, defaults to `style_dim`):
            The width of those before the last.
        mapping_lr_multiplier (`float`, defaults to 0.01):
            How fast they learn, compared with other layers.
        num_classes (`int`, *optional*):
            The number of classes of a conditional generator, or the length of a label of real numbers.
        class_embed_dim (`int`, *optional*, defaults to `style_dim`):
            The length of the embedding of a label.
        use_noise (`bool`, defaults to `True`):
            Whether noise is added to features, scaled by a learned number for each layer.
        activation, mapping_activation (`str`, defaults to `"lrelu"`):
            The activation of the convolutions and of the mapping: one of `EQUALIZED_ACTIVATIONS`.
        conv_clamp (`float`, *optional*):
            The largest size of features and of the images of `"skip"`, with which the reference trains in float16.
        resample_filter (`tuple[float, ...]`, defaults to `(1, 3, 3, 1)`):
            The low-pass filter of the doublings, in each direction.

        demodulates_scaled_weights (`bool`, defaults to `False`):
            Whether weights are divided by the root of their number of inputs before they are demodulated, as in
            https://github.com/rosinality/stylegan2-pytorch. It matters only beside the small number that keeps the
            division by deviations finite.

    Raises:
        ValueError: if the arguments do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 256,
        out_channels: int = 3,
        latent_dim: int = 512,
        style_dim: int = 512,
        block_out_channels: tuple[int, ...] | None = None,
        architecture: str = "skip",
        num_mapping_layers: int = 8,
        mapping_dim: int | None = None,
        mapping_lr_multiplier: float = 0.01,
        num_classes: int | None = None,
        class_embed_dim: int | None = None,
        use_noise: bool = True,
        activation: str = "lrelu",
        mapping_activation: str = "lrelu",
        conv_clamp: float | None = None,
        resample_filter: tuple[float, ...] = (1, 3, 3, 1),
        demodulates_scaled_weights: bool = False,
    ):
        super().__init__()
        check_positive(out_channels=out_channels, latent_dim=latent_dim, style_dim=style_dim)
        check_choice("architecture", architecture, ARCHITECTURES)
        check_choice("activation", activation, EQUALIZED_ACTIVATIONS)
        check_choice("mapping_activation", mapping_activation, EQUALIZED_ACTIVATIONS)
        widths = resolution_widths(sample_size, block_out_channels, CHANNEL_BASE)

        self.register_buffer("filter_taps", normalized_taps(resample_filter))
        self.register_buffer("style_average", torch.zeros(style_dim))
        self.mapping = StyleMapping(
            latent_dim,
            style_dim,
            num_mapping_layers,
            mapping_dim,
            num_classes,
            class_embed_dim,
            mapping_lr_multiplier,
            mapping_activation,
        )
        self.constant = nn.Parameter(torch.randn(widths[0], SMALLEST_SIZE, SMALLEST_SIZE))
        self.blocks = nn.ModuleList()
        for level, width in enumerate(widths):
            is_last = level == len(widths) - 1
            self.blocks.append(
                StyleGAN2SynthesisBlock(
                    None if level == 0 else widths[level - 1],
                    width,
                    style_dim,
                    SMALLEST_SIZE * 2**level,
                    image_channels=out_channels if is_last or architecture == "skip" else None,
                    is_residual=architecture == "resnet" and level > 0,
                    use_noise=use_noise,
                    activation=activation,
                    clamp=conv_clamp,
                    scaled=demodulates_scaled_weights,
                )
            )

    @property
    def num_styles(self) -> int:
        """The number of styles of an image: one for each convolution of 3x3, and one for the last image."""
        return 2 * len(self.blocks)

    @property
    def noise_shapes(self) -> list[tuple[int, int, int]]:
        """The shape of a map of noise of each layer, `(1, height, width)`; none without noise."""
        return [(1, *conv.noise.shape) for block in self.blocks for conv in block.convs if conv.noise is not None]

    def forward(
        self,
        latents: torch.Tensor | None = None,
        class_labels: torch.Tensor | None = None,
        styles: torch.Tensor | None = None,
        noise: str | list[torch.Tensor] = "constant",
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        return_dict: bool = True,
    ) -> StyleGAN2GeneratorOutput | tuple[torch.Tensor, torch.Tensor]:
        r"""
        Args:
            latents (`torch.Tensor` of shape `(N, latent_dim)` or `(N, num_styles, latent_dim)`, *optional*):
                Latents z: one for all layers, or one for each layer (style mixing).
            class_labels (`torch.Tensor` of shape `(N,)` or `(N, num_classes)`, *optional*):
                The class of each image, or a label of real numbers, for a conditional generator with `latents`.
            styles (`torch.Tensor` of shape `(N, style_dim)` or `(N, num_styles, style_dim)`, *optional*):
                Styles w, instead of `latents`: one for all layers (the space W), or one for each layer (W+).
            noise (`str` or `list[torch.Tensor]`, defaults to `"constant"`):
                `"constant"`, the maps that are stored with the network; `"none"`; or a map for each layer,
                `(N, *shape)` or `(1, *shape)` for the shapes in `noise_shapes`.
            truncation_psi (`float`, defaults to 1.0), truncation_cutoff (`int`, *optional*):
                How far styles are moved to their average, see [`~StyleSpaceMixin.truncate`].
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`StyleGAN2GeneratorOutput`] instead of a tuple.

        Returns:
            [`StyleGAN2GeneratorOutput`] or `tuple`: the images `(N, out_channels, H, W)` and their styles.

        Raises:
            ValueError: if the inputs do not fit the network.
        """
        styles = self.layer_styles(latents, class_labels, styles)
        if truncation_psi != 1:
            styles = self.truncate(styles, truncation_psi, truncation_cutoff)
        maps = self.layer_noise(noise, styles.shape[0])

        hidden_states = self.constant[None].expand(styles.shape[0], -1, -1, -1)
        image, position = None, 0
        for block in self.blocks:
            number = len(block.convs)
            hidden_states, image = block(
                hidden_states,
                image,
                styles[:, position : position + number + 1],
                maps[position : position + number],
                self.filter_taps,
            )
            position += number

        if not return_dict:
            return (image, styles)
        return StyleGAN2GeneratorOutput(sample=image, styles=styles)


class StyleGAN2Discriminator(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Distinguishes real images from generated ones by blocks, each of which halves height and width.

    The discriminator of StyleGAN2 (Karras et al. 2020, https://huggingface.co/papers/1912.04958), with the options of
    the reference implementation of StyleGAN2-ADA, NVlabs/stylegan2-ada-pytorch. Before the last convolution it sees
    how much the images of a batch differ, so that scores depend on the batch. A conditional one adds no class to its
    input, but multiplies its last features by a mapping of the class (Miyato & Koyama 2018,
    https://huggingface.co/papers/1802.05637).

    Args:
        sample_size (`int`, defaults to 256):
            Height and width of the images: a power of two, at least 8.
        in_channels (`int`, defaults to 3):
            Channels of the images.
        block_out_channels (`tuple[int, ...]`, *optional*):
            The channels of the features of each resolution, from 4x4 to `sample_size`, as in [`StyleGAN2Generator`].
        architecture (`str`, defaults to `"resnet"`):
            `"resnet"`, residual blocks; `"skip"`, each block sees the image in its resolution; `"orig"`, plain blocks.
        num_classes (`int`, *optional*):
            The number of classes of a conditional discriminator, or the length of a label of real numbers.
        projection_dim (`int`, *optional*, defaults to the channels at 4x4):
            The length of the mapping of a class.
        num_mapping_layers, mapping_dim, mapping_lr_multiplier, class_embed_dim, mapping_activation:
            Those of the mapping of classes, as in [`StyleGAN2Generator`]; the widths are `projection_dim` by default.
        stddev_group_size (`int`, *optional*, defaults to 4):
            How many images of a batch are compared; `None` for all.
        num_stddev_channels (`int`, defaults to 1):
            How many groups of features have a standard deviation of their own; 0 for none.
        activation (`str`, defaults to `"lrelu"`):
            One of `EQUALIZED_ACTIVATIONS`.
        conv_clamp (`float`, *optional*):
            The largest size of features.
        resample_filter (`tuple[float, ...]`, defaults to `(1, 3, 3, 1)`):
            The low-pass filter of the halvings, in each direction.

    Raises:
        ValueError: if the arguments do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 256,
        in_channels: int = 3,
        block_out_channels: tuple[int, ...] | None = None,
        architecture: str = "resnet",
        num_classes: int | None = None,
        projection_dim: int | None = None,
        num_mapping_layers: int = 8,
        mapping_dim: int | None = None,
        mapping_lr_multiplier: float = 0.01,
        class_embed_dim: int | None = None,
        mapping_activation: str = "lrelu",
        stddev_group_size: int | None = 4,
        num_stddev_channels: int = 1,
        activation: str = "lrelu",
        conv_clamp: float | None = None,
        resample_filter: tuple[float, ...] = (1, 3, 3, 1),
    ):
        super().__init__()
        check_positive(in_channels=in_channels)
        check_choice("architecture", architecture, ARCHITECTURES)
        check_choice("activation", activation, EQUALIZED_ACTIVATIONS)
        check_choice("mapping_activation", mapping_activation, EQUALIZED_ACTIVATIONS)
        coarsest, *finer = resolution_widths(sample_size, block_out_channels, CHANNEL_BASE)
        if num_stddev_channels > 0 and coarsest % num_stddev_channels != 0:
            raise ValueError(
                f"`num_stddev_channels` must divide the {coarsest} channels at 4x4, but is {num_stddev_channels}."
            )
        is_skip = architecture == "skip"

        self.register_buffer("filter_taps", normalized_taps(resample_filter))
        self.blocks = nn.ModuleList()
        width = finer[-1]
        for level, out_width in enumerate(reversed([coarsest, *finer[:-1]])):
            image_channels = in_channels if level == 0 or is_skip else None
            is_residual = architecture == "resnet"
            self.blocks.append(
                StyleGAN2DiscriminatorBlock(width, out_width, image_channels, is_residual, activation, conv_clamp)
            )
            width = out_width
        self.from_rgb = EqualizedConv2d(in_channels, coarsest, kernel_size=1) if is_skip else None
        self.conv_out = EqualizedConv2d(coarsest + num_stddev_channels, coarsest, kernel_size=3)
        self.linear = EqualizedLinear(coarsest * SMALLEST_SIZE**2, coarsest)
        if num_classes is None:
            self.linear_out = EqualizedLinear(coarsest, 1)
        else:
            projection_dim = projection_dim or coarsest
            self.linear_out = EqualizedLinear(coarsest, projection_dim)
            self.mapping = StyleMapping(
                0,
                projection_dim,
                num_mapping_layers,
                mapping_dim,
                num_classes,
                class_embed_dim,
                mapping_lr_multiplier,
                mapping_activation,
            )

    def forward(
        self, sample: torch.Tensor, class_labels: torch.Tensor | None = None, return_dict: bool = True
    ) -> StyleGAN2DiscriminatorOutput | tuple[torch.Tensor]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                Images in `[-1, 1]`. N is a multiple of `stddev_group_size`, or smaller.
            class_labels (`torch.Tensor` of shape `(N,)` or `(N, num_classes)`, *optional*):
                The class of each image, or a label of real numbers, for a conditional discriminator.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`StyleGAN2DiscriminatorOutput`] instead of a tuple.

        Returns:
            [`StyleGAN2DiscriminatorOutput`] or `tuple`: the scores `(N,)`.

        Raises:
            ValueError: if the images or the labels do not fit the network.
        """
        config = self.config
        check_images(sample, (config.in_channels, config.sample_size, config.sample_size))
        check_style_labels(class_labels, sample.shape[0], config.num_classes)

        image, hidden_states = sample, None
        for block in self.blocks:
            hidden_states = block(hidden_states, image, self.filter_taps)
            if config.architecture == "skip":
                image = halve_images(image, self.filter_taps)
        if self.from_rgb is not None:
            hidden_states = hidden_states + activate(self.from_rgb(image), config.activation)
        if config.num_stddev_channels > 0:
            hidden_states = append_minibatch_stddev(
                hidden_states, config.stddev_group_size, config.num_stddev_channels
            )
        hidden_states = activate(self.conv_out(hidden_states), config.activation, clamp=config.conv_clamp)
        hidden_states = activate(self.linear(hidden_states.flatten(1)), config.activation)
        logits = self.linear_out(hidden_states)
        if config.num_classes is not None:
            projection = self.mapping(class_labels=class_labels)
            logits = (logits * projection).sum(dim=1, keepdim=True) / math.sqrt(projection.shape[1])
        logits = logits[:, 0]

        if not return_dict:
            return (logits,)
        return StyleGAN2DiscriminatorOutput(logits=logits)


SMALLEST_SIZE = 4  # of the features where the synthesis starts and the discriminator ends
ARCHITECTURES = ("skip", "resnet", "orig")
CHANNEL_BASE = 32768  # configuration F of the paper
HALF_VARIANCE = math.sqrt(0.5)  # the factor of each of two features that are added


class StyleGAN2SynthesisBlock(nn.Module):
    """The layers of a resolution: it doubles features, unless it is the first, and perhaps adds to the image."""

    def __init__(
        self,
        in_channels: int | None,
        channels: int,
        style_dim: int,
        size: int,
        image_channels: int | None,
        is_residual: bool,
        use_noise: bool,
        activation: str,
        clamp: float | None,
        scaled: bool,
    ):
        super().__init__()
        shared = (style_dim, size, use_noise, activation, clamp, scaled)
        self.convs = nn.ModuleList([StyledConv2d(channels, channels, *shared)])
        if in_channels is not None:
            self.convs.insert(0, StyledConv2d(in_channels, channels, *shared, is_doubling=True))
        self.to_rgb = None
        if image_channels is not None:
            self.to_rgb = StyledImage(channels, image_channels, style_dim, clamp)
        self.skip = EqualizedConv2d(in_channels, channels, kernel_size=1, bias=False) if is_residual else None

    def forward(
        self,
        hidden_states: torch.Tensor,
        image: torch.Tensor | None,
        styles: torch.Tensor,
        maps: list[torch.Tensor | None],
        taps: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        residual = None
        if self.skip is not None:
            residual = double_images(self.skip(hidden_states), taps) * HALF_VARIANCE
        for position, (conv, noise) in enumerate(zip(self.convs, maps, strict=True)):
            is_added = residual is not None and position == len(self.convs) - 1
            gain = HALF_VARIANCE if is_added else 1.0
            hidden_states = conv(hidden_states, styles[:, position], noise, taps, gain)
        if residual is not None:
            hidden_states = residual + hidden_states
        if image is not None:
            image = double_images(image, taps)
        if self.to_rgb is not None:
            added = self.to_rgb(hidden_states, styles[:, len(self.convs)])
            image = added if image is None else image + added
        return hidden_states, image


class StyledConv2d(nn.Module):
    """A convolution of 3x3 whose weights are modulated by a style, with noise and an activation.

    Args:
        scaled (`bool`): whether weights are divided by the root of their number of inputs before they are demodulated.
        is_doubling (`bool`, defaults to `False`): whether it doubles height and width, to `size`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        style_dim: int,
        size: int,
        use_noise: bool,
        activation: str,
        clamp: float | None,
        scaled: bool,
        is_doubling: bool = False,
    ):
        super().__init__()
        self.affine = EqualizedLinear(style_dim, in_channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("noise", torch.randn(size, size) if use_noise else None)
        self.noise_strength = nn.Parameter(torch.zeros(())) if use_noise else None
        self.activation, self.clamp, self.is_doubling = activation, clamp, is_doubling
        # Smaller weights beside the same epsilon are the same as these beside a larger one.
        self.epsilon = NORM_EPSILON * (self.weight[0].numel() if scaled else 1)

    def forward(
        self,
        hidden_states: torch.Tensor,
        style: torch.Tensor,
        noise: torch.Tensor | None,
        taps: torch.Tensor,
        gain: float = 1.0,
    ) -> torch.Tensor:
        scales = self.affine(style)
        hidden_states = modulated_conv2d(hidden_states, self.weight, scales, self.epsilon, self.is_doubling)
        if self.is_doubling:  # of size 2H + 1, because a transposed convolution pads nothing
            before, after = (len(taps) + 1) // 2 - 1, (len(taps) - 2) // 2
            hidden_states = blur_images(hidden_states, taps, before, after, gain=4.0)
        # In place, because these are new tensors that no gradient needs, and memory is what this costs.
        if noise is not None:
            hidden_states = hidden_states.add_(noise * self.noise_strength)
        hidden_states = hidden_states.add_(self.bias[:, None, None])
        return activate(hidden_states, self.activation, gain, self.clamp)


class StyledImage(nn.Module):
    """A convolution of 1x1 from features to an image, whose weights are modulated by a style."""

    def __init__(self, in_channels: int, out_channels: int, style_dim: int, clamp: float | None):
        super().__init__()
        self.affine = EqualizedLinear(style_dim, in_channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.clamp, self.weight_gain = clamp, 1 / math.sqrt(in_channels)

    def forward(self, hidden_states: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        scales = self.affine(style) * self.weight_gain
        image = modulated_conv2d(hidden_states, self.weight, scales, epsilon=None)
        return activate(image + self.bias[:, None, None], "linear", clamp=self.clamp)


def modulated_conv2d(
    hidden_states: torch.Tensor,
    weight: torch.Tensor,
    scales: torch.Tensor,
    epsilon: float | None,
    is_doubling: bool = False,
) -> torch.Tensor:
    r"""
    A convolution whose input channels are scaled for each image, and whose outputs are scaled back to unit variance
    (Karras et al. 2020, eq. 1 and 3).

    Args:
        hidden_states (`torch.Tensor` of shape `(N, I, H, W)`): features.
        weight (`torch.Tensor` of shape `(O, I, k, k)`): the weights of all images.
        scales (`torch.Tensor` of shape `(N, I)`): the factors of the input channels.
        epsilon (`float`, *optional*): added to the variances of outputs before these are scaled back; without it
            they are not.
        is_doubling (`bool`): whether the convolution is a transposed one, from H to 2H + 1.
    """
    backs = None
    if epsilon is not None:
        # In float32, because squares leave the range of half precision.
        squares = weight.float().square().sum(dim=(2, 3))
        backs = (F.linear(scales.float().square(), squares) + epsilon).rsqrt().to(weight.dtype)
    # For a single image, it is the same to scale the weights or the features: the smaller ones are less work.
    scales_weights = hidden_states.shape[0] == 1 and weight.numel() < hidden_states.numel()
    if scales_weights:
        weight = weight * scales[0][:, None, None]
        weight = weight if backs is None else weight * backs[0][:, None, None, None]
    else:
        hidden_states = hidden_states * scales[:, :, None, None]
    if is_doubling:
        hidden_states = F.conv_transpose2d(hidden_states, weight.transpose(0, 1), stride=2)
    else:
        hidden_states = F.conv2d(hidden_states, weight, padding=weight.shape[-1] // 2)
    return hidden_states if scales_weights or backs is None else hidden_states * backs[:, :, None, None]


class StyleGAN2DiscriminatorBlock(nn.Module):
    """Two convolutions of a resolution, the second of which halves height and width."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        image_channels: int | None,
        is_residual: bool,
        activation: str,
        clamp: float | None,
    ):
        super().__init__()
        self.from_rgb = None if image_channels is None else EqualizedConv2d(image_channels, channels, kernel_size=1)
        self.conv0 = EqualizedConv2d(channels, channels, kernel_size=3)
        self.conv1 = EqualizedConv2d(channels, out_channels, kernel_size=3)
        self.skip = EqualizedConv2d(channels, out_channels, kernel_size=1, bias=False) if is_residual else None
        self.activation, self.clamp = activation, clamp

    def forward(self, hidden_states: torch.Tensor | None, image: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
        if self.from_rgb is not None:
            seen = activate(self.from_rgb(image), self.activation, clamp=self.clamp)
            hidden_states = seen if hidden_states is None else hidden_states + seen
        residual, gain = None, 1.0
        if self.skip is not None:
            residual, gain = self.skip(halve_images(hidden_states, taps)) * HALF_VARIANCE, HALF_VARIANCE
        hidden_states = activate(self.conv0(hidden_states), self.activation, clamp=self.clamp)
        # one pixel more around than `halve_images` takes, for the convolution of 3x3
        hidden_states = blur_images(hidden_states, taps, (len(taps) + 1) // 2, len(taps) // 2)
        hidden_states = activate(self.conv1(hidden_states, stride=2, padding=0), self.activation, gain, self.clamp)
        return hidden_states if residual is None else residual + hidden_states
