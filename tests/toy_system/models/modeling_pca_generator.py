"""Images as linear functions of latents: the generator of probabilistic PCA."""

from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn


@dataclass
class PCAGeneratorOutput(BaseOutput):
    """
    Args:
        sample (`torch.Tensor` of shape `(N, C, H, W)`): the images.
    """

    sample: torch.Tensor


class PCAGenerator(ModelMixin, ConfigMixin):
    """
    x = W z + mu (Tipping & Bishop 1999, "Probabilistic Principal Component Analysis", eq. 1), without the noise.

    Args:
        sample_size (`int`): height and width of the images in pixels.
        out_channels (`int`): their channels.
        latent_dim (`int`): the size of z.
    """

    @register_to_config
    def __init__(self, sample_size: int = 8, out_channels: int = 1, latent_dim: int = 8):
        super().__init__()
        self.decoder = nn.Linear(latent_dim, out_channels * sample_size**2)
        self.log_variance = nn.Parameter(torch.zeros(()))  # ln sigma**2, of the noise that the images leave out

    def forward(self, latents: torch.Tensor, return_dict: bool = True) -> PCAGeneratorOutput | tuple:
        """`latents` (N, latent_dim), standard normal, to images (N, C, H, W) around [-1, 1]."""
        size = self.config.sample_size
        sample = self.decoder(latents).unflatten(1, (-1, size, size))
        return PCAGeneratorOutput(sample=sample) if return_dict else (sample,)
