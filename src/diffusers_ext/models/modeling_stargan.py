"""StarGAN: one generator that translates images to any of several domains, and its discriminator."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from diffusers.utils import BaseOutput
from torch import nn

from .disk_offloading import DiskOffloadMixin
from .gan_checks import check_images, check_positive, height_and_width


@dataclass
class StarGANDiscriminatorOutput(BaseOutput):
    """
    The output of [`StarGANDiscriminator`].

    Args:
        logits (`torch.Tensor` of shape `(N, 1, h, w)`):
            A score for each of the overlapping patches: the higher, the more real.
        domain_logits (`torch.Tensor` of shape `(N, num_domains)`):
            The logits of the domains: of a softmax where an image has one domain, of sigmoids where it has several
            attributes.
    """

    logits: torch.Tensor
    domain_logits: torch.Tensor | None = None


class StarGANGenerator(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Translates an image to the domain of a label, by residual blocks at a quarter of its height and width.

    The generator of "StarGAN: Unified Generative Adversarial Networks for Multi-Domain Image-to-Image Translation"
    (Choi et al. 2018, table 4, https://huggingface.co/papers/1711.09020; `Generator` in
    https://github.com/yunjey/stargan). It differs from [`ResnetGenerator`] in the channels of the label, in kernels of
    4x4 between the sizes, in instance normalization with parameters, and in its padding by zeros: with padding by
    reflection, the label would be a constant that the normalization takes away.

    Height and width can be any multiples of [`~StarGANGenerator.stride`], at least twice the stride.

    Args:
        sample_size (`int` or `tuple[int, int]`, *optional*):
            Height and width of the training images, for information only: the network can process other sizes.
        channels (`int`, defaults to 3):
            Channels of the images.
        num_domains (`int`, defaults to 5):
            The length of a label: a number for each domain or attribute.
        base_channels (`int`, defaults to 64):
            Channels at full size. They double whenever the image is halved.
        num_downsamplings (`int`, defaults to 2):
            How often the image is halved.
        num_blocks (`int`, defaults to 6):
            The number of residual blocks.

    Raises:
        ValueError: if an argument is out of range.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["StarGANBlock"]
    _repeated_blocks = ["StarGANBlock"]

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] | None = None,
        channels: int = 3,
        num_domains: int = 5,
        base_channels: int = 64,
        num_downsamplings: int = 2,
        num_blocks: int = 6,
    ):
        super().__init__()
        check_positive(channels=channels, num_domains=num_domains, base_channels=base_channels)
        if min(num_downsamplings, num_blocks) < 0:
            raise ValueError(
                f"`num_downsamplings` and `num_blocks` must be at least 0, but are {num_downsamplings} and "
                f"{num_blocks}."
            )
        widths = [base_channels * 2**level for level in range(num_downsamplings + 1)]
        self.conv_in = nn.Conv2d(channels + num_domains, widths[0], 7, padding=3, bias=False)
        self.norm_in = nn.InstanceNorm2d(widths[0], affine=True)
        self.down_convs = nn.ModuleList(nn.Conv2d(w, 2 * w, 4, 2, padding=1, bias=False) for w in widths[:-1])
        self.down_norms = nn.ModuleList(nn.InstanceNorm2d(2 * w, affine=True) for w in widths[:-1])
        self.blocks = nn.ModuleList(StarGANBlock(widths[-1]) for _ in range(num_blocks))
        narrower = widths[-2::-1]
        self.up_convs = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 4, 2, padding=1, bias=False) for w in narrower)
        self.up_norms = nn.ModuleList(nn.InstanceNorm2d(w, affine=True) for w in narrower)
        self.conv_out = nn.Conv2d(widths[0], channels, 7, padding=3, bias=False)

        self.gradient_checkpointing = False

    @property
    def stride(self) -> int:
        """Height and width must be multiples of this."""
        return 2**self.config.num_downsamplings

    @property
    def smallest_side(self) -> int:
        """The smallest height and width: maps of one pixel can't be normalized."""
        return 2 * self.stride

    def forward(
        self, sample: torch.Tensor, domain_labels: torch.Tensor, return_dict: bool = True
    ) -> UNet2DOutput | tuple[torch.Tensor]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, channels, H, W)`):
                The images to translate, in `[-1, 1]`.
            domain_labels (`torch.Tensor` of shape `(N, num_domains)`):
                What the results should be: 1 for the domain, or for each attribute that a result has, otherwise 0.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`~models.unets.unet_2d.UNet2DOutput`] instead of a tuple.

        Returns:
            [`~models.unets.unet_2d.UNet2DOutput`] or `tuple`: the `sample` `(N, channels, H, W)`, in `[-1, 1]`.

        Raises:
            ValueError: for images or labels of other shapes, and if height or width is not a multiple of `stride`, or
                too small.
        """
        channels, num_domains = self.config.channels, self.config.num_domains
        if sample.ndim != 4 or sample.shape[1] != channels:
            raise ValueError(f"`sample` must be of the shape (N, {channels}, H, W), but is of {tuple(sample.shape)}.")
        if domain_labels.shape != (len(sample), num_domains):
            raise ValueError(
                f"`domain_labels` must be of the shape ({len(sample)}, {num_domains}), but are of "
                f"{tuple(domain_labels.shape)}."
            )
        height, width = sample.shape[-2:]
        if height % self.stride != 0 or width % self.stride != 0 or min(height, width) < self.smallest_side:
            raise ValueError(
                f"`sample` must have a height and a width that are multiples of {self.stride} and at least "
                f"{self.smallest_side}, but is of the size {(height, width)}."
            )

        labels = domain_labels.to(sample.dtype)[:, :, None, None].expand(-1, -1, height, width)
        hidden_states = F.relu(self.norm_in(self.conv_in(torch.cat([sample, labels], dim=1))))
        for conv, norm in zip(self.down_convs, self.down_norms, strict=True):
            hidden_states = F.relu(norm(conv(hidden_states)))
        for block in self.blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                hidden_states = self._gradient_checkpointing_func(block, hidden_states)
            else:
                hidden_states = block(hidden_states)
        for conv, norm in zip(self.up_convs, self.up_norms, strict=True):
            hidden_states = F.relu(norm(conv(hidden_states)))
        sample = torch.tanh(self.conv_out(hidden_states))

        if not return_dict:
            return (sample,)
        return UNet2DOutput(sample=sample)


class StarGANDiscriminator(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Scores the patches of an image, and classifies its domain.

    The discriminator of StarGAN (Choi et al. 2018, table 5, https://huggingface.co/papers/1711.09020; `Discriminator`
    in https://github.com/yunjey/stargan): no normalization, which suits the gradient penalty of its training.

    Args:
        sample_size (`int` or `tuple[int, int]`, defaults to 128):
            Height and width of the images, at least `2**num_layers`.
        channels (`int`, defaults to 3):
            Channels of the images.
        num_domains (`int`, defaults to 5):
            The number of domains or attributes.
        base_channels (`int`, defaults to 64):
            Channels of the first layer. They double in each layer.
        num_layers (`int`, defaults to 6):
            The number of layers, each of which halves the image.

    Raises:
        ValueError: if an argument is out of range, or the images are too small for the layers.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] = 128,
        channels: int = 3,
        num_domains: int = 5,
        base_channels: int = 64,
        num_layers: int = 6,
    ):
        super().__init__()
        check_positive(channels=channels, num_domains=num_domains, base_channels=base_channels, num_layers=num_layers)
        size = height_and_width(sample_size)
        if min(size) < 2**num_layers:
            raise ValueError(
                f"`sample_size` must be at least {2**num_layers} for `num_layers={num_layers}`, but is {sample_size}."
            )
        widths = [channels, *(base_channels * 2**layer for layer in range(num_layers))]
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 4, 2, padding=1) for before, after in zip(widths[:-1], widths[1:], strict=True)
        )
        self.conv_out = nn.Conv2d(widths[-1], 1, 3, padding=1, bias=False)
        self.domain_head = nn.Conv2d(widths[-1], num_domains, [side >> num_layers for side in size], bias=False)

    def forward(
        self, sample: torch.Tensor, return_dict: bool = True
    ) -> StarGANDiscriminatorOutput | tuple[torch.Tensor, torch.Tensor]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, channels, H, W)`):
                Images of the size `sample_size`, in `[-1, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`StarGANDiscriminatorOutput`] instead of a tuple.

        Returns:
            [`StarGANDiscriminatorOutput`] or `tuple`: the logits of the patches `(N, 1, h, w)`, and those of the
            domains `(N, num_domains)`.

        Raises:
            ValueError: for images of another shape.
        """
        check_images(sample, (self.config.channels, *height_and_width(self.config.sample_size)))
        hidden_states = sample
        for conv in self.convs:
            hidden_states = F.leaky_relu(conv(hidden_states), 0.01)
        logits, domain_logits = self.conv_out(hidden_states), self.domain_head(hidden_states).flatten(1)

        if not return_dict:
            return (logits, domain_logits)
        return StarGANDiscriminatorOutput(logits=logits, domain_logits=domain_logits)


class StarGANBlock(nn.Module):
    """
    Two convolutions whose result is added to their input.

    Args:
        channels (`int`): The channels of the map.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.InstanceNorm2d(channels, affine=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.InstanceNorm2d(channels, affine=True)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """From `(N, channels, H, W)` to the same shape."""
        residual = F.relu(self.norm1(self.conv1(hidden_states)))
        return hidden_states + self.norm2(self.conv2(residual))
