"""EBGAN: a generator of images, and an autoencoder as discriminator, whose reconstruction error is an energy."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn

from .disk_offloading import DiskOffloadMixin
from .gan_checks import check_images, check_latents, check_positive


@dataclass
class EBGANGeneratorOutput(BaseOutput):
    """
    The output of [`EBGANGenerator`].

    Args:
        sample (`torch.Tensor` of shape `(N, out_channels, H, W)`):
            Images in `[-1, 1]`.
    """

    sample: torch.Tensor


@dataclass
class EBGANDiscriminatorOutput(BaseOutput):
    """
    The output of [`EBGANDiscriminator`].

    Args:
        energy (`torch.Tensor` of shape `(N,)`):
            The mean squared error of each reconstruction: the lower, the more real.
        sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
            The reconstructions.
        embedding (`torch.Tensor` of shape `(N, embedding_dim)`):
            What the autoencoder keeps of each image.
    """

    energy: torch.Tensor
    sample: torch.Tensor
    embedding: torch.Tensor


class EBGANGenerator(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Generates images from noise by two doublings.

    The generator of EBGAN (Zhao et al. 2017, https://huggingface.co/papers/1609.03126) as in
    eriklindernoren/PyTorch-GAN.

    Args:
        sample_size (`int`, defaults to 32):
            Height and width of the images: a multiple of 4.
        out_channels (`int`, defaults to 1):
            Channels of the images.
        latent_dim (`int`, defaults to 62):
            The length of a latent.
        block_out_channels (`tuple[int, int]`, defaults to `(128, 64)`):
            The channels before and after the second doubling.
        norm_eps (`float`, defaults to 1e-5):
            What batch normalizations add to variances. The reference has 0.8, where it means a momentum.

    Raises:
        ValueError: if the arguments do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 32,
        out_channels: int = 1,
        latent_dim: int = 62,
        block_out_channels: tuple[int, int] = (128, 64),
        norm_eps: float = 1e-5,
    ):
        super().__init__()
        check_size(sample_size, 4)
        check_positive(out_channels=out_channels, latent_dim=latent_dim)
        if len(block_out_channels) != 2 or min(block_out_channels) < 1:
            raise ValueError(f"`block_out_channels` must be two positive numbers, but is {block_out_channels}.")
        coarse, fine = block_out_channels
        self.linear_in = nn.Linear(latent_dim, coarse * (sample_size // 4) ** 2)
        self.convs = nn.ModuleList([nn.Conv2d(coarse, coarse, 3, padding=1), nn.Conv2d(coarse, fine, 3, padding=1)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(coarse, norm_eps), nn.BatchNorm2d(fine, norm_eps)])
        self.conv_out = nn.Conv2d(fine, out_channels, 3, padding=1)

    def forward(
        self, latents: torch.Tensor, class_labels: None = None, return_dict: bool = True
    ) -> EBGANGeneratorOutput | tuple[torch.Tensor]:
        r"""
        Args:
            latents (`torch.Tensor` of shape `(N, latent_dim)`):
                Normal noise.
            class_labels:
                None, because it has no classes.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`EBGANGeneratorOutput`] instead of a tuple.

        Returns:
            [`EBGANGeneratorOutput`] or `tuple`: the images `(N, out_channels, H, W)` in `[-1, 1]`.

        Raises:
            ValueError: if the inputs do not fit the network.
        """
        check_latents(latents, self.config.latent_dim)
        if class_labels is not None:
            raise ValueError("`class_labels` are given, but an EBGAN has no classes.")
        side = self.config.sample_size // 4
        hidden_states = self.linear_in(latents).unflatten(1, (-1, side, side))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            hidden_states = F.interpolate(hidden_states, scale_factor=2, mode="nearest")
            hidden_states = F.leaky_relu(norm(conv(hidden_states)), GENERATOR_SLOPE)
        sample = self.conv_out(hidden_states).tanh()

        if not return_dict:
            return (sample,)
        return EBGANGeneratorOutput(sample=sample)


class EBGANDiscriminator(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    An autoencoder with a narrow middle, which reconstructs real images better than generated ones.

    The discriminator of EBGAN (Zhao et al. 2017, https://huggingface.co/papers/1609.03126) as in
    eriklindernoren/PyTorch-GAN.

    Args:
        sample_size (`int`, defaults to 32):
            Height and width of the images: even.
        in_channels (`int`, defaults to 1):
            Channels of the images.
        channels (`int`, defaults to 64):
            Of the halved features.
        embedding_dim (`int`, defaults to 32):
            The width of the middle.
        norm_eps (`float`, defaults to 1e-5):
            What the batch normalization of the middle adds to variances; 0.8 in the reference.

    Raises:
        ValueError: if the arguments do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 32,
        in_channels: int = 1,
        channels: int = 64,
        embedding_dim: int = 32,
        norm_eps: float = 1e-5,
    ):
        super().__init__()
        check_size(sample_size, 2)
        check_positive(in_channels=in_channels, channels=channels, embedding_dim=embedding_dim)
        flat = channels * (sample_size // 2) ** 2
        self.conv_in = nn.Conv2d(in_channels, channels, 3, stride=2, padding=1)
        self.linear_in = nn.Linear(flat, embedding_dim)
        self.norm_in = nn.BatchNorm1d(embedding_dim, norm_eps)
        self.linear_out = nn.Linear(embedding_dim, flat)
        self.norm_out = nn.BatchNorm1d(flat)
        self.conv_out = nn.Conv2d(channels, in_channels, 3, padding=1)

    def forward(
        self, sample: torch.Tensor, return_dict: bool = True
    ) -> EBGANDiscriminatorOutput | tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                Images in `[-1, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`EBGANDiscriminatorOutput`] instead of a tuple.

        Returns:
            [`EBGANDiscriminatorOutput`] or `tuple`: the energies `(N,)`, the reconstructions, and the embeddings.

        Raises:
            ValueError: if the images do not fit the network.
        """
        config = self.config
        check_images(sample, (config.in_channels, config.sample_size, config.sample_size))
        features = self.conv_in(sample).relu()
        embedding = self.linear_in(features.flatten(1))
        decoded = self.linear_out(self.norm_in(embedding).relu())
        decoded = self.norm_out(decoded).relu().unflatten(1, features.shape[1:])
        reconstruction = self.conv_out(F.interpolate(decoded, scale_factor=2, mode="nearest"))
        energy = (reconstruction - sample).square().flatten(1).mean(dim=1)

        if not return_dict:
            return (energy, reconstruction, embedding)
        return EBGANDiscriminatorOutput(energy=energy, sample=reconstruction, embedding=embedding)


GENERATOR_SLOPE = 0.2  # of the leaky ReLUs


def check_size(sample_size: int, multiple: int) -> None:
    """Refuses sizes that can't be halved as often as the network needs it."""
    if not isinstance(sample_size, int) or sample_size < multiple or sample_size % multiple != 0:
        raise ValueError(f"`sample_size` must be a multiple of {multiple}, but is {sample_size}.")
