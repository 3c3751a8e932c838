"""PatchGAN: the discriminator of pix2pix and CycleGAN, which scores images patch by patch."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn

from .disk_offloading import DiskOffloadMixin
from .spectral_normalization import with_spectral_norm
from .translation_layers import NORMALIZATIONS, initialize_weights, normalization_layer


@dataclass
class PatchDiscriminatorOutput(BaseOutput):
    """
    The output of [`PatchDiscriminator`].

    Args:
        logits (`torch.Tensor` of shape `(N, 1, h, w)`):
            A score for each of the overlapping patches, before any sigmoid: the higher, the more real.
        hidden_states (`tuple[torch.Tensor]`):
            The features `(N, C, H', W')` after each layer but the last, the finest first, for feature matching.
    """

    logits: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...] | None = None


@dataclass
class MultiScalePatchDiscriminatorOutput(BaseOutput):
    """
    The output of [`MultiScalePatchDiscriminator`].

    Args:
        logits (`tuple[torch.Tensor]`):
            A map `(N, 1, h, w)` for each scale, the finest scale first.
        hidden_states (`tuple[tuple[torch.Tensor]]`):
            The features of each scale, see [`PatchDiscriminatorOutput`].
    """

    logits: tuple[torch.Tensor, ...]
    hidden_states: tuple[tuple[torch.Tensor, ...], ...] | None = None


class PatchDiscriminator(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Scores every patch of an image separately, with the same weights.

    It is the PatchGAN of "Image-to-Image Translation with Conditional Adversarial Networks" (Isola et al. 2017,
    section 3.2.2 and appendix 6.1.2, https://huggingface.co/papers/1611.07004; `NLayerDiscriminator` and
    `PixelDiscriminator` in https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix). The input of a conditional
    discriminator is the condition and the image, joined in the channels: `in_channels` counts both.

    | `num_layers` | 0 | 1 | 2 | 3 | 4 | 5 |
    |---|---|---|---|---|---|---|
    | patch, in pixels a side | 1 | 16 | 34 | 70 | 142 | 286 |

    If a patch covers the whole image, it is an ordinary discriminator: 286 is the "ImageGAN" of the paper, for images
    of 256 pixels.

    Args:
        in_channels (`int`, defaults to 3):
            Channels of the images, and of the condition if there is one.
        base_channels (`int`, defaults to 64):
            Channels of the first layer; the widest layer has up to eight times as many.
        num_layers (`int`, defaults to 3):
            The number of layers that halve the image; 0 for patches of single pixels.
        normalization (`str`, defaults to `"batch"`):
            `"batch"`, `"instance"` (without parameters, as in CycleGAN) or `"none"`. A gradient penalty needs one that
            does not mix the samples of a batch.
        spectral_norm (`bool` or `str`, defaults to `False`):
            Whether the weights of every convolution are divided by their spectral norm (Miyato et al. 2018,
            https://huggingface.co/papers/1802.05957). With `"blocks"` the first and the last convolution keep theirs,
            as in https://github.com/NVlabs/SPADE.
        padding (`int`, defaults to 1):
            How many zeros are added on each side before each convolution, 1 or 2; for `num_layers=0` always none. The
            discriminators of pix2pixHD and SPADE have 2.

    Raises:
        ValueError: if an argument is out of range.
    """

    _no_split_modules = ["PatchBlock"]

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        base_channels: int = 64,
        num_layers: int = 3,
        normalization: str = "batch",
        spectral_norm: bool | str = False,
        padding: int = 1,
    ):
        super().__init__()
        if in_channels < 1 or base_channels < 1 or num_layers < 0:
            raise ValueError(
                f"`in_channels` and `base_channels` must be positive and `num_layers` at least 0, but are "
                f"{in_channels}, {base_channels} and {num_layers}."
            )
        if normalization not in NORMALIZATIONS:
            raise ValueError(f"`normalization` must be one of {NORMALIZATIONS}, but is {normalization!r}.")
        if spectral_norm not in (False, True, "blocks"):
            raise ValueError(f"`spectral_norm` must be True, False or 'blocks', but is {spectral_norm!r}.")
        if padding not in (1, 2):
            raise ValueError(f"`padding` must be 1 or 2, but is {padding}.")

        kernel_size, padding = (1, 0) if num_layers == 0 else (4, padding)
        stride = 1 if num_layers == 0 else 2
        widths = [base_channels * min(2**layer, MAX_MULTIPLIER) for layer in range(max(num_layers, 1) + 1)]
        self.conv_in = nn.Conv2d(in_channels, widths[0], kernel_size, stride, padding)
        self.blocks = nn.ModuleList()
        for layer in range(1, len(widths)):
            last = layer == len(widths) - 1
            self.blocks.append(
                PatchBlock(
                    widths[layer - 1], widths[layer], kernel_size, 1 if last else stride, padding, normalization
                )
            )
        self.conv_out = nn.Conv2d(widths[-1], 1, kernel_size, 1, padding)

        self.apply(initialize_weights)
        if spectral_norm:
            normalized = self.blocks if spectral_norm == "blocks" else self
            for module in list(normalized.modules()):
                if isinstance(module, nn.Conv2d):
                    with_spectral_norm(module)

    @property
    def patch_size(self) -> int:
        """The side of the patch that a logit depends on, in pixels."""
        size = 1
        for conv in (self.conv_out, *(block.conv for block in reversed(self.blocks)), self.conv_in):
            size = (size - 1) * conv.stride[0] + conv.kernel_size[0]
        return size

    def _check_sample(self, sample: torch.Tensor) -> None:
        """Refuses images with other channels, and images that are too small for the last layers."""
        if sample.ndim != 4 or sample.shape[1] != self.config.in_channels:
            raise ValueError(
                f"`sample` must be of the shape (N, {self.config.in_channels}, H, W), but is of {tuple(sample.shape)}."
            )
        # Before the last convolution there must be two pixels or more, which a normalization needs too.
        least = 1 if self.config.num_layers == 0 else 2 if self.config.padding == 2 else 3 * 2**self.config.num_layers
        if min(sample.shape[-2:]) < least:
            raise ValueError(
                f"`sample` of the size {tuple(sample.shape[-2:])} is too small for `num_layers="
                f"{self.config.num_layers}`: each side must have at least {least} pixels."
            )

    def forward(
        self, sample: torch.Tensor, return_dict: bool = True
    ) -> PatchDiscriminatorOutput | tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                The images in `[-1, 1]`, joined with their conditions if there are any.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`PatchDiscriminatorOutput`] instead of a tuple.

        Returns:
            [`PatchDiscriminatorOutput`] or `tuple`: the logits `(N, 1, h, w)`, and the features before them.

        Raises:
            ValueError: if the images have another number of channels, or are too small.
        """
        self._check_sample(sample)
        hidden_states = (F.leaky_relu(self.conv_in(sample), 0.2),)
        for block in self.blocks:
            hidden_states += (block(hidden_states[-1]),)
        logits = self.conv_out(hidden_states[-1])

        if not return_dict:
            return (logits, hidden_states)
        return PatchDiscriminatorOutput(logits=logits, hidden_states=hidden_states)


class MultiScalePatchDiscriminator(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Several [`PatchDiscriminator`]s of the same architecture. Each sees the image at half the size that the one before
    it sees.

    The coarse scales judge the whole image, and the fine ones its details: "High-Resolution Image Synthesis and
    Semantic Manipulation with Conditional GANs" (Wang et al. 2018, section 3.2,
    https://huggingface.co/papers/1711.11585).

    Args:
        num_scales (`int`, defaults to 3):
            The number of discriminators.
        in_channels, base_channels, num_layers, normalization, spectral_norm, padding:
            See [`PatchDiscriminator`].

    Raises:
        ValueError: if an argument is out of range.
    """

    _no_split_modules = ["PatchBlock"]

    @register_to_config
    def __init__(
        self,
        num_scales: int = 3,
        in_channels: int = 3,
        base_channels: int = 64,
        num_layers: int = 3,
        normalization: str = "instance",
        spectral_norm: bool | str = False,
        padding: int = 1,
    ):
        super().__init__()
        if num_scales < 1:
            raise ValueError(f"`num_scales` must be at least 1, but is {num_scales}.")
        self.discriminators = nn.ModuleList(
            PatchDiscriminator(in_channels, base_channels, num_layers, normalization, spectral_norm, padding)
            for _ in range(num_scales)
        )

    @property
    def patch_size(self) -> int:
        """The side of the patch that a logit of the coarsest scale depends on, in pixels of the image."""
        return self.discriminators[-1].patch_size * 2 ** (self.config.num_scales - 1)

    def forward(
        self, sample: torch.Tensor, return_dict: bool = True
    ) -> MultiScalePatchDiscriminatorOutput | tuple[tuple, tuple]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                The images in `[-1, 1]`, joined with their conditions if there are any.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`MultiScalePatchDiscriminatorOutput`] instead of a tuple.

        Returns:
            [`MultiScalePatchDiscriminatorOutput`] or `tuple`: a map of logits `(N, 1, h, w)` for each scale, the
            finest first, and the features of each scale.

        Raises:
            ValueError: if the images have another number of channels, or are too small for the coarsest scale.
        """
        logits, hidden_states = (), ()
        for scale, discriminator in enumerate(self.discriminators):
            if scale > 0:
                sample = F.avg_pool2d(sample, kernel_size=3, stride=2, padding=1, count_include_pad=False)
            output = discriminator(sample)
            logits += (output.logits,)
            hidden_states += (output.hidden_states,)

        if not return_dict:
            return (logits, hidden_states)
        return MultiScalePatchDiscriminatorOutput(logits=logits, hidden_states=hidden_states)


MAX_MULTIPLIER = 8  # the widest layer has at most this many times the channels of the first


class PatchBlock(nn.Module):
    """
    Convolution, normalization and leaky ReLU.

    Without a bias if there is a normalization, which would cancel it.

    Args:
        in_channels, out_channels (`int`): The channels before and after.
        kernel_size, stride, padding (`int`): The arguments of the convolution.
        normalization (`str`): `"batch"`, `"instance"` or `"none"`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, padding: int, normalization: str
    ):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=normalization == "none")
        self.norm = normalization_layer(normalization, out_channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """From `(N, in_channels, H, W)` to `(N, out_channels, H', W')`."""
        return F.leaky_relu(self.norm(self.conv(hidden_states)), 0.2)
