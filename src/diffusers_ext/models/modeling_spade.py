"""SPADE: the generator of GauGAN, which makes an image of a label map, and the encoder of an image's style."""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from diffusers.utils import BaseOutput
from torch import nn

from .diagonal_gaussian import DiagonalGaussian
from .disk_offloading import DiskOffloadMixin
from .gan_checks import check_choice, check_positive
from .spectral_normalization import with_spectral_norm
from .translation_layers import NORMALIZATIONS, normalization_layer


SPADE_NORMALIZATIONS = ("batch", "instance")
SMALLEST_MAP = 4  # the height and width of the maps that the encoder flattens


class SPADEGenerator(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Makes an image of a label map, which scales and shifts all of its layers pixel by pixel.

    The generator of "Semantic Image Synthesis with Spatially-Adaptive Normalization" (Park et al. 2019, section 3 and
    appendix A, https://huggingface.co/papers/1903.07291; `SPADEGenerator` in https://github.com/NVlabs/SPADE). It
    starts from small maps, which come from the label map itself or, with `latent_dim`, from a latent that sets the
    style, and doubles them `num_upsamplings` times. The paper has 5 for 256 pixels; there are `num_upsamplings + 2`
    residual blocks, at most 8.

    Args:
        sample_size (`int` or `tuple[int, int]`, defaults to 256):
            Height and width of the images, multiples of `2**num_upsamplings`. Without `latent_dim` the network can
            process other multiples, too.
        num_labels (`int`, defaults to 36):
            The number of labels, with the one for pixels of no label if the maps have it.
        instance_edges (`bool`, defaults to `False`):
            Whether the label map has one more channel, which is 1 where objects meet and otherwise 0.
        out_channels (`int`, defaults to 3):
            Channels of the images.
        base_channels (`int`, defaults to 64):
            Channels at full size. They double with each halving, up to sixteen times as many.
        num_upsamplings (`int`, defaults to 5):
            How often maps are doubled, from 1 to 7. 6 and 7 are "more" and "most" of the reference implementation: 6
            doubles maps between the middle blocks, 7 also adds a last block of half as many channels.
        latent_dim (`int`, *optional*):
            The length of the latent that sets the style; without it, a label map has one image.
        normalization (`str`, defaults to `"batch"`):
            What is scaled and shifted: `"batch"` or `"instance"` norm without parameters.
        modulation_channels (`int`, defaults to 128):
            Channels between a label map and the scales and shifts that are made of it.
        modulation_kernel_size (`int`, defaults to 3):
            The size of the convolutions that do so; an odd number.
        spectral_norm (`bool`, defaults to `True`):
            Whether the weights of the blocks' convolutions are divided by their spectral norms (Miyato et al. 2018).

    Raises:
        ValueError: if the arguments do not fit together.
    """

    _no_split_modules = ["SPADEResnetBlock"]
    _repeated_blocks = ["SPADEResnetBlock"]

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] = 256,
        num_labels: int = 36,
        instance_edges: bool = False,
        out_channels: int = 3,
        base_channels: int = 64,
        num_upsamplings: int = 5,
        latent_dim: int | None = None,
        normalization: str = "batch",
        modulation_channels: int = 128,
        modulation_kernel_size: int = 3,
        spectral_norm: bool = True,
    ):
        super().__init__()
        check_positive(
            num_labels=num_labels,
            out_channels=out_channels,
            base_channels=base_channels,
            modulation_channels=modulation_channels,
            latent_dim=1 if latent_dim is None else latent_dim,
        )
        check_choice("normalization", normalization, SPADE_NORMALIZATIONS)
        if modulation_kernel_size < 1 or modulation_kernel_size % 2 == 0:
            raise ValueError(f"`modulation_kernel_size` must be an odd number, but is {modulation_kernel_size}.")
        if not 1 <= num_upsamplings <= 7:
            raise ValueError(f"`num_upsamplings` must be from 1 to 7, but is {num_upsamplings}.")
        self.start_size = tuple(side // self.stride for side in self.image_size)
        if any(side < self.stride or side % self.stride for side in self.image_size):
            raise ValueError(
                f"`sample_size` must be a multiple of {self.stride} for `num_upsamplings={num_upsamplings}`, but is "
                f"{sample_size}."
            )

        levels = min(num_upsamplings, 5) - 1
        widths = [base_channels * 2**level for level in range(levels, -1, -1)]
        if num_upsamplings == 7:
            widths.append(max(base_channels // 2, 1))
        label_channels, width = num_labels + instance_edges, widths[0]
        modulation = (label_channels, modulation_channels, modulation_kernel_size, normalization)
        if latent_dim is None:
            self.conv_in = nn.Conv2d(label_channels, width, kernel_size=3, padding=1)
        else:
            self.linear_in = nn.Linear(latent_dim, width * self.start_size[0] * self.start_size[1])
        self.head_block = SPADEResnetBlock(width, width, *modulation)
        self.middle_blocks = nn.ModuleList(SPADEResnetBlock(width, width, *modulation) for _ in range(2))
        self.up_blocks = nn.ModuleList(
            SPADEResnetBlock(wide, narrow, *modulation) for wide, narrow in pairwise(widths)
        )
        self.conv_out = nn.Conv2d(widths[-1], out_channels, kernel_size=3, padding=1)

        self.apply(initialize_spade)
        if spectral_norm:
            for block in (self.head_block, *self.middle_blocks, *self.up_blocks):
                for conv in (block.conv1, block.conv2, block.conv_shortcut):
                    if conv is not None:
                        with_spectral_norm(conv)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the training images."""
        size = self.config.sample_size
        return (size, size) if isinstance(size, int) else tuple(size)

    @property
    def stride(self) -> int:
        """Height and width must be multiples of this."""
        return 2**self.config.num_upsamplings

    def forward(
        self, segmentation: torch.Tensor, latents: torch.Tensor | None = None, return_dict: bool = True
    ) -> UNet2DOutput | tuple[torch.Tensor]:
        r"""
        Args:
            segmentation (`torch.Tensor` of shape `(N, num_labels, H, W)`):
                The label maps, one-hot: 1 in the channel of a pixel's label and otherwise 0. With `instance_edges`
                there is one channel more.
            latents (`torch.Tensor` of shape `(N, latent_dim)`, *optional*):
                The styles, standard normal; for networks with `latent_dim`.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`~models.unets.unet_2d.UNet2DOutput`] instead of a tuple.

        Returns:
            [`~models.unets.unet_2d.UNet2DOutput`] or `tuple`: the `sample` `(N, out_channels, H, W)`, in `[-1, 1]`.

        Raises:
            ValueError: for maps or latents of another shape.
        """
        self._check_inputs(segmentation, latents)
        if latents is None:
            start_size = [side // self.stride for side in segmentation.shape[2:]]
            hidden_states = self.conv_in(F.interpolate(segmentation, size=start_size, mode="nearest"))
        else:
            hidden_states = self.linear_in(latents).unflatten(1, (-1, *self.start_size))

        hidden_states = self.head_block(hidden_states, segmentation)
        hidden_states = self.middle_blocks[0](double(hidden_states), segmentation)
        if self.config.num_upsamplings >= 6:
            hidden_states = double(hidden_states)
        hidden_states = self.middle_blocks[1](hidden_states, segmentation)
        for block in self.up_blocks:
            hidden_states = block(double(hidden_states), segmentation)
        sample = torch.tanh(self.conv_out(F.leaky_relu(hidden_states, 0.2)))

        if not return_dict:
            return (sample,)
        return UNet2DOutput(sample=sample)

    def _check_inputs(self, segmentation: torch.Tensor, latents: torch.Tensor | None) -> None:
        channels, latent_dim = self.config.num_labels + self.config.instance_edges, self.config.latent_dim
        if segmentation.ndim != 4 or segmentation.shape[1] != channels:
            raise ValueError(
                f"`segmentation` must be of the shape (N, {channels}, H, W), but is of {tuple(segmentation.shape)}."
            )
        size = tuple(segmentation.shape[2:])
        if latent_dim is None:
            if latents is not None:
                raise ValueError("`latents` is for a network with `latent_dim`, but this one has none.")
            if any(side % self.stride for side in size):
                raise ValueError(f"`segmentation` must have sides that are multiples of {self.stride}, not {size}.")
        else:
            if latents is None or tuple(latents.shape) != (len(segmentation), latent_dim):
                found = None if latents is None else tuple(latents.shape)
                raise ValueError(
                    f"`latents` must be of the shape ({len(segmentation)}, {latent_dim}), but is {found}."
                )
            if size != self.image_size:
                raise ValueError(f"`segmentation` must have the size {self.image_size}, but has {size}.")


@dataclass
class SPADEEncoderOutput(BaseOutput):
    """
    The output of [`SPADEEncoder`].

    Args:
        latent_dist ([`DiagonalGaussian`]):
            The distribution of each image's style, of `latent_dim` numbers.
    """

    latent_dist: DiagonalGaussian


class SPADEEncoder(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Encodes an image as the distribution of a latent from which a [`SPADEGenerator`] takes the style.

    The image encoder of Park et al. (2019, section 3 and figure 14, https://huggingface.co/papers/1903.07291;
    `ConvEncoder` in https://github.com/NVlabs/SPADE). Convolutions halve the image until 4x4 pixels are left. Images
    of other sizes are resized to `sample_size`.

    Args:
        sample_size (`int`, defaults to 256):
            Height and width to which images are resized: a power of two, at least 8.
        in_channels (`int`, defaults to 3):
            Channels of the images.
        base_channels (`int`, defaults to 64):
            Channels of the first layer. They double from layer to layer, up to eight times as many.
        latent_dim (`int`, defaults to 256):
            The length of the latent.
        spectral_norm (`bool`, defaults to `True`):
            Whether the weights of the convolutions are divided by their spectral norms.
        normalization (`str`, defaults to `"instance"`):
            `"instance"` (without parameters), `"batch"` or `"none"`. Instance norm takes away how bright and colourful
            an image is as a whole.

    Raises:
        ValueError: if an argument is out of range.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 256,
        in_channels: int = 3,
        base_channels: int = 64,
        latent_dim: int = 256,
        spectral_norm: bool = True,
        normalization: str = "instance",
    ):
        super().__init__()
        check_positive(in_channels=in_channels, base_channels=base_channels, latent_dim=latent_dim)
        check_choice("normalization", normalization, NORMALIZATIONS)
        num_layers = sample_size.bit_length() - SMALLEST_MAP.bit_length()
        if num_layers < 1 or sample_size & (sample_size - 1):
            raise ValueError(f"`sample_size` must be a power of two, at least 8, but is {sample_size}.")
        widths = [in_channels, *(base_channels * min(2**layer, 8) for layer in range(num_layers))]
        self.convs = nn.ModuleList(
            # a normalization would cancel a bias
            nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1, bias=normalization == "none")
            for before, after in pairwise(widths)
        )
        self.norms = nn.ModuleList(normalization_layer(normalization, width) for width in widths[1:])
        self.linear_mean = nn.Linear(widths[-1] * SMALLEST_MAP**2, latent_dim)
        self.linear_logvar = nn.Linear(widths[-1] * SMALLEST_MAP**2, latent_dim)

        self.apply(initialize_spade)
        if spectral_norm:
            for conv in self.convs:
                with_spectral_norm(conv)

    def forward(self, sample: torch.Tensor, return_dict: bool = True) -> SPADEEncoderOutput | tuple[DiagonalGaussian]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                Images in `[-1, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`SPADEEncoderOutput`] instead of a tuple.

        Returns:
            [`SPADEEncoderOutput`] or `tuple`: the distribution of the latents `(N, latent_dim)`.

        Raises:
            ValueError: if the images have another number of channels.
        """
        if sample.ndim != 4 or sample.shape[1] != self.config.in_channels:
            raise ValueError(
                f"`sample` must be of the shape (N, {self.config.in_channels}, H, W), but is of {tuple(sample.shape)}."
            )
        size = (self.config.sample_size, self.config.sample_size)
        hidden_states = sample
        if tuple(sample.shape[2:]) != size:
            hidden_states = F.interpolate(sample, size=size, mode="bilinear")
        for conv, norm in zip(self.convs, self.norms, strict=True):
            hidden_states = F.leaky_relu(norm(conv(hidden_states)), 0.2)
        hidden_states = hidden_states.flatten(1)
        latent_dist = DiagonalGaussian(self.linear_mean(hidden_states), self.linear_logvar(hidden_states))

        if not return_dict:
            return (latent_dist,)
        return SPADEEncoderOutput(latent_dist=latent_dist)


class SPADEResnetBlock(nn.Module):
    """
    Two convolutions with spatially-adaptive normalization, whose result is added to the input.

    Args:
        in_channels, out_channels (`int`): The channels before and after.
        modulation: The arguments of [`SPADENorm`] after its channels.
    """

    def __init__(self, in_channels: int, out_channels: int, *modulation):
        super().__init__()
        width = min(in_channels, out_channels)
        self.norm1 = SPADENorm(in_channels, *modulation)
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=3, padding=1)
        self.norm2 = SPADENorm(width, *modulation)
        self.conv2 = nn.Conv2d(width, out_channels, kernel_size=3, padding=1)
        self.norm_shortcut, self.conv_shortcut = None, None
        if in_channels != out_channels:
            self.norm_shortcut = SPADENorm(in_channels, *modulation)
            self.conv_shortcut = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)

    def forward(self, hidden_states: torch.Tensor, segmentation: torch.Tensor) -> torch.Tensor:
        """From `(N, in_channels, H, W)` to `(N, out_channels, H, W)`."""
        residual = hidden_states
        if self.conv_shortcut is not None:
            residual = self.conv_shortcut(self.norm_shortcut(hidden_states, segmentation))
        hidden_states = self.conv1(F.leaky_relu(self.norm1(hidden_states, segmentation), 0.2))
        hidden_states = self.conv2(F.leaky_relu(self.norm2(hidden_states, segmentation), 0.2))
        return residual + hidden_states


class SPADENorm(nn.Module):
    """
    Spatially-adaptive normalization (Park et al. 2019, eq. 1): the scale and the shift of a pixel depend on the labels
    around it.

    Args:
        channels (`int`): The channels that are normalized.
        label_channels (`int`): The channels of the label map.
        hidden_channels (`int`): The channels between the label map and the scales and shifts.
        kernel_size (`int`): The size of the convolutions.
        normalization (`str`): `"batch"` or `"instance"`.
    """

    def __init__(self, channels: int, label_channels: int, hidden_channels: int, kernel_size: int, normalization: str):
        super().__init__()
        norm_class = nn.BatchNorm2d if normalization == "batch" else nn.InstanceNorm2d
        self.norm = norm_class(channels, affine=False)
        self.conv_shared = nn.Conv2d(label_channels, hidden_channels, kernel_size, padding=kernel_size // 2)
        self.conv_scale = nn.Conv2d(hidden_channels, channels, kernel_size, padding=kernel_size // 2)
        self.conv_shift = nn.Conv2d(hidden_channels, channels, kernel_size, padding=kernel_size // 2)

    def forward(self, hidden_states: torch.Tensor, segmentation: torch.Tensor) -> torch.Tensor:
        """The normalized `(N, channels, H, W)`, under a label map `(N, label_channels, H', W')` of any size."""
        segmentation = F.interpolate(segmentation, size=hidden_states.shape[2:], mode="nearest")
        labels = F.relu(self.conv_shared(segmentation))
        return self.norm(hidden_states) * (1 + self.conv_scale(labels)) + self.conv_shift(labels)


def double(hidden_states: torch.Tensor) -> torch.Tensor:
    return F.interpolate(hidden_states, scale_factor=2.0, mode="nearest")


def initialize_spade(module: nn.Module) -> None:
    """Glorot's normal weights, as Park et al. (2019, section 4) have, but with a gain of 0.02 as in their code."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.xavier_normal_(module.weight, gain=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
