"""The label maps of a latent diffusion model, in the size of its latents."""

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn


class SpatialRescaler(ModelMixin, ConfigMixin):
    r"""
    Halves maps several times, and then maps their channels by a convolution of size 1.

    The condition of semantic synthesis in "High-Resolution Image Synthesis with Latent Diffusion Models" (Rombach et
    al. 2022, section 4.3.2, https://huggingface.co/papers/2112.10752, https://github.com/CompVis/latent-diffusion),
    where it is trained together with the U-Net.

    Args:
        in_channels (`int`, defaults to 182):
            The channels of the maps, for one-hot maps the number of labels K.
        out_channels (`int`, *optional*):
            The channels C of the output. Without it there is no convolution, and C is `in_channels`.
        num_stages (`int`, defaults to 2):
            How often height and width are halved, by bilinear interpolation.
        bias (`bool`, defaults to `False`):
            Whether the convolution adds a bias.

    Raises:
        ValueError: if the numbers of channels are not positive, or that of the stages is negative.
    """

    @register_to_config
    def __init__(
        self, in_channels: int = 182, out_channels: int | None = None, num_stages: int = 2, bias: bool = False
    ):
        super().__init__()
        if in_channels < 1 or (out_channels is not None and out_channels < 1):
            raise ValueError(
                f"`in_channels` and `out_channels` must be positive, but are {in_channels} and {out_channels}."
            )
        if num_stages < 0:
            raise ValueError(f"`num_stages` must be at least 0, but is {num_stages}.")
        self.channel_mapper = None
        if out_channels is not None:
            self.channel_mapper = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=bias)

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                The maps, for labels as one-hot vectors of 0 and 1 in each pixel.

        Returns:
            `torch.Tensor`: the rescaled maps `(N, C, H / 2^num_stages, W / 2^num_stages)`. A U-Net takes them as
            further channels, after those of the noisy latents.

        Raises:
            ValueError: if the maps have another number of channels, or are too small to be halved.
        """
        smallest = 2**self.config.num_stages
        if sample.ndim != 4 or sample.shape[1] != self.config.in_channels or min(sample.shape[2:]) < smallest:
            raise ValueError(
                f"`sample` must be of the shape (N, {self.config.in_channels}, H, W) with H and W of at least "
                f"{smallest}, but is of {tuple(sample.shape)}."
            )
        for _ in range(self.config.num_stages):
            sample = F.interpolate(sample, scale_factor=0.5, mode="bilinear")
        return sample if self.channel_mapper is None else self.channel_mapper(sample)
