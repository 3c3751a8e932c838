"""The context encoder, which fills in the centre of an image from what surrounds it."""

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import nn

from .disk_offloading import DiskOffloadMixin
from .restoration_layers import check_restoration_input
from .translation_layers import initialize_weights


class ContextEncoder(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Fills in the centre of images: half of the height and of the width, from a code of the whole image.

    "Context Encoders: Feature Learning by Inpainting" (Pathak et al. 2016, section 3 and figure 9a,
    https://huggingface.co/papers/1604.07379), in the form of https://github.com/BoyuanJiang/context_encoder_pytorch,
    whose output is the centre alone. The other pixels stay as they are.

    Height and width can be any multiples of [`~ContextEncoder.stride`], at least [`~ContextEncoder.smallest_side`],
    for which the code is a single vector.

    Args:
        in_channels, out_channels (`int`, defaults to 3):
            Channels of the images. They must be equal, because one is put into the other.
        base_channels (`int`, defaults to 64):
            Channels of the first and the last hidden layer; they double from the second level on.
        bottleneck_channels (`int`, defaults to 4000):
            Channels of the code.
        num_levels (`int`, defaults to 5):
            How often the image is halved before the code, at least 2.
        overlap (`int`, defaults to 0):
            How wide a margin of the centre is known, and stays as it is: 4 in the original's training.

    Raises:
        ValueError: if an argument is out of range.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        base_channels: int = 64,
        bottleneck_channels: int = 4000,
        num_levels: int = 5,
        overlap: int = 0,
    ):
        super().__init__()
        if min(in_channels, base_channels, bottleneck_channels) < 1 or num_levels < 2:
            raise ValueError(
                "`in_channels`, `base_channels` and `bottleneck_channels` must be positive and `num_levels` at least "
                f"2, but are {in_channels}, {base_channels}, {bottleneck_channels} and {num_levels}."
            )
        if in_channels != out_channels:
            raise ValueError(
                f"`in_channels` and `out_channels` must be equal, but are {in_channels} and {out_channels}."
            )
        if not 0 <= overlap < 2**num_levels:
            raise ValueError(f"`overlap` must be at least 0 and below {2**num_levels}, but is {overlap}.")
        widths = [base_channels * 2 ** max(level - 1, 0) for level in range(num_levels)]
        self.conv_in = nn.Conv2d(in_channels, widths[0], 4, 2, 1, bias=False)
        self.down_layers = nn.ModuleList(
            ContextLayer(nn.Conv2d, before, after, 2) for before, after in zip(widths[:-1], widths[1:], strict=True)
        )
        self.bottleneck_in = ContextLayer(nn.Conv2d, widths[-1], bottleneck_channels, 1)
        self.bottleneck_out = ContextLayer(nn.ConvTranspose2d, bottleneck_channels, widths[-1], 1)
        self.up_layers = nn.ModuleList(
            ContextLayer(nn.ConvTranspose2d, before, after, 2)
            for before, after in zip(widths[:1:-1], widths[-2:0:-1], strict=True)
        )
        self.conv_out = nn.ConvTranspose2d(base_channels, out_channels, 4, 2, 1, bias=False)
        self.apply(initialize_weights)

    @property
    def stride(self) -> int:
        """Height and width must be multiples of this."""
        return 2**self.config.num_levels

    @property
    def smallest_side(self) -> int:
        """The smallest height and width: the code comes from 4x4 positions."""
        return 4 * self.stride

    def predict_centre(self, sample: torch.Tensor) -> torch.Tensor:
        """The centre `(N, out_channels, H / 2, W / 2)` of images `(N, in_channels, H, W)`, both in `[-1, 1]`."""
        hidden_states = F.leaky_relu(self.conv_in(sample), 0.2)
        for layer in self.down_layers:
            hidden_states = F.leaky_relu(layer(hidden_states), 0.2)
        hidden_states = F.leaky_relu(self.bottleneck_in(hidden_states), 0.2)
        hidden_states = F.relu(self.bottleneck_out(hidden_states))
        for layer in self.up_layers:
            hidden_states = F.relu(layer(hidden_states))
        return torch.tanh(self.conv_out(hidden_states))

    def forward(self, sample: torch.Tensor, return_dict: bool = True) -> UNet2DOutput | tuple[torch.Tensor]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                The images, in `[-1, 1]`, with their centre filled by one colour.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`~models.unets.unet_2d.UNet2DOutput`] instead of a tuple.

        Returns:
            [`~models.unets.unet_2d.UNet2DOutput`] or `tuple`: the `sample` with a new centre.

        Raises:
            ValueError: for another number of channels, and if height or width is not a multiple of `stride` or below
                `smallest_side`.
        """
        check_restoration_input(sample, self.config.in_channels, self.stride)
        height, width = sample.shape[2:]
        if min(height, width) < self.smallest_side:
            raise ValueError(
                f"`sample` must have a height and a width of at least {self.smallest_side}, but is of the size "
                f"{(height, width)}."
            )

        overlap = self.config.overlap
        centre = self.predict_centre(sample)
        centre = centre[..., overlap : height // 2 - overlap, overlap : width // 2 - overlap]
        top, left = height // 4 + overlap, width // 4 + overlap
        sample = sample.clone()
        sample[..., top : top + centre.shape[2], left : left + centre.shape[3]] = centre

        if not return_dict:
            return (sample,)
        return UNet2DOutput(sample=sample)


class ContextLayer(nn.Module):
    """
    A convolution of 4x4 pixels without a bias, and batch norm.

    Args:
        convolution (`type`): `Conv2d` or `ConvTranspose2d`.
        in_channels, out_channels (`int`): The channels before and after.
        stride (`int`): 2 halves or doubles the map; 1 joins 4x4 positions, or makes them of one.
    """

    def __init__(self, convolution: type[nn.Module], in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv = convolution(in_channels, out_channels, 4, stride, padding=stride - 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """From `(N, in_channels, H, W)` to `(N, out_channels, H', W')`."""
        return self.norm(self.conv(hidden_states))
