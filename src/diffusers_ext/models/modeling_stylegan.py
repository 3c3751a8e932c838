"""StyleGAN: a generator whose features are normalized, and then scaled and shifted by styles."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn

from .disk_offloading import DiskOffloadMixin
from .equalized_layers import SQRT2, EqualizedConv2d, EqualizedLinear
from .gan_checks import check_positive, resolution_widths
from .resampling_filters import blur_images, normalized_taps
from .style_mapping import StyleMapping
from .style_space import StyleSpaceMixin


@dataclass
class StyleGANGeneratorOutput(BaseOutput):
    """
    The output of [`StyleGANGenerator`].

    Args:
        sample (`torch.Tensor` of shape `(N, out_channels, H, W)`):
            Images, mostly in `[-1, 1]`.
        styles (`torch.Tensor` of shape `(N, num_styles, style_dim)`):
            The style of each layer, from coarse to fine.
    """

    sample: torch.Tensor
    styles: torch.Tensor


class StyleGANGenerator(StyleSpaceMixin, DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Generates images from styles, which set the mean and the deviation of the features of each layer.

    The generator of "A Style-Based Generator Architecture for Generative Adversarial Networks" (Karras et al. 2019,
    https://huggingface.co/papers/1812.04948, figure 1 b). A mapping network turns latents z into styles w. The
    synthesis starts from a learned constant of 4x4 and doubles it up to the image. Each resolution has two layers:
    noise, an activation, and adaptive instance normalization (eq. 1), behind a convolution except in the first one.

    Its counterpart is a [`StyleGAN2Discriminator`] with `architecture="orig"` and `resample_filter=(1, 2, 1)`.

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
            The channels of each resolution, from 4x4 to `sample_size`; by default the paper's,
            `min(512, 16384 / resolution)`.
        num_mapping_layers (`int`, defaults to 8):
            The dense layers of the mapping network.
        mapping_lr_multiplier (`float`, defaults to 0.01):
            How fast they learn, compared with other layers.
        num_classes (`int`, *optional*):
            The number of classes of a conditional generator, or the length of a label of real numbers.
        class_embed_dim (`int`, *optional*, defaults to `style_dim`):
            The length of the embedding of a label.

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
        num_mapping_layers: int = 8,
        mapping_lr_multiplier: float = 0.01,
        num_classes: int | None = None,
        class_embed_dim: int | None = None,
    ):
        super().__init__()
        check_positive(out_channels=out_channels, latent_dim=latent_dim, style_dim=style_dim)
        widths = resolution_widths(sample_size, block_out_channels, STYLEGAN_BASE)
        self.register_buffer("filter_taps", normalized_taps((1, 2, 1)))
        self.register_buffer("style_average", torch.zeros(style_dim))
        self.mapping = StyleMapping(
            latent_dim,
            style_dim,
            num_mapping_layers,
            num_classes=num_classes,
            class_embed_dim=class_embed_dim,
            lr_multiplier=mapping_lr_multiplier,
        )
        self.constant = nn.Parameter(torch.ones(widths[0], FIRST_SIZE, FIRST_SIZE))
        self.blocks = nn.ModuleList()
        for level, width in enumerate(widths):
            before = None if level == 0 else widths[level - 1]
            self.blocks.append(StyleGANBlock(before, width, style_dim, FIRST_SIZE * 2**level))
        self.conv_out = EqualizedConv2d(widths[-1], out_channels, 1)

    @property
    def num_styles(self) -> int:
        """The number of styles of an image: one for each layer."""
        return 2 * len(self.blocks)

    @property
    def noise_shapes(self) -> list[tuple[int, int, int]]:
        """The shape of a map of noise of each layer, `(1, height, width)`."""
        return [(1, *layer.noise.shape) for block in self.blocks for layer in block.convs]

    def forward(
        self,
        latents: torch.Tensor | None = None,
        class_labels: torch.Tensor | None = None,
        styles: torch.Tensor | None = None,
        noise: str | list[torch.Tensor] = "constant",
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        return_dict: bool = True,
    ) -> StyleGANGeneratorOutput | tuple[torch.Tensor, torch.Tensor]:
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
                Whether to return a [`StyleGANGeneratorOutput`] instead of a tuple.

        Returns:
            [`StyleGANGeneratorOutput`] or `tuple`: the images `(N, out_channels, H, W)` and their styles.

        Raises:
            ValueError: if the inputs do not fit the network.
        """
        styles = self.layer_styles(latents, class_labels, styles)
        if truncation_psi != 1:
            styles = self.truncate(styles, truncation_psi, truncation_cutoff)
        maps = self.layer_noise(noise, styles.shape[0])

        hidden_states = self.constant[None].expand(styles.shape[0], -1, -1, -1)
        for level, block in enumerate(self.blocks):
            layers = slice(2 * level, 2 * level + 2)
            hidden_states = block(hidden_states, styles[:, layers], maps[layers], self.filter_taps)
        sample = self.conv_out(hidden_states)

        if not return_dict:
            return (sample, styles)
        return StyleGANGeneratorOutput(sample=sample, styles=styles)


FIRST_SIZE = 4  # of the features where the synthesis starts
STYLEGAN_SLOPE = 0.2  # of the leaky ReLUs
STYLEGAN_BASE = 16384  # of the paper: the channels of a resolution times its size


class StyleGANBlock(nn.Module):
    """The two layers of a resolution, the first of which doubles features, unless they are the constant."""

    def __init__(self, in_channels: int | None, channels: int, style_dim: int, size: int):
        super().__init__()
        first = AdaptiveLayer(in_channels, channels, style_dim, size)
        self.convs = nn.ModuleList([first, AdaptiveLayer(channels, channels, style_dim, size)])
        self.to_rgb = None  # the image is made of the last features alone

    def forward(
        self,
        hidden_states: torch.Tensor,
        styles: torch.Tensor,
        maps: list[torch.Tensor | None],
        taps: torch.Tensor,
    ) -> torch.Tensor:
        first, second = self.convs
        if first.conv is not None:
            hidden_states = F.interpolate(hidden_states, scale_factor=2, mode="nearest")
            hidden_states = blur_images(first.conv(hidden_states), taps, 1, 1)
        hidden_states = first(hidden_states, styles[:, 0], maps[0])
        return second(second.conv(hidden_states), styles[:, 1], maps[1])


class AdaptiveLayer(nn.Module):
    """A convolution, and what follows it: noise, an activation, and adaptive instance normalization (eq. 1)."""

    def __init__(self, in_channels: int | None, channels: int, style_dim: int, size: int):
        super().__init__()
        self.conv = None if in_channels is None else EqualizedConv2d(in_channels, channels, 3, bias=False, gain=SQRT2)
        self.affine = EqualizedLinear(style_dim, 2 * channels)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("noise", torch.randn(size, size))
        self.noise_strength = nn.Parameter(torch.zeros(channels))

    def forward(self, hidden_states: torch.Tensor, style: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        """From the output of `conv`, which the block blurs first if it has doubled."""
        # In float32, because normalization enlarges what rounding leaves of features that hardly vary.
        dtype, hidden_states = hidden_states.dtype, hidden_states.float()
        if noise is not None:
            hidden_states = hidden_states + noise.float() * self.noise_strength.float()[:, None, None]
        hidden_states = F.leaky_relu(hidden_states + self.bias.float()[:, None, None], STYLEGAN_SLOPE)
        scale, shift = self.affine(style).float()[:, :, None, None].chunk(2, dim=1)
        return (F.instance_norm(hidden_states) * (1 + scale) + shift).to(dtype)
