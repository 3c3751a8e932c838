"""The discriminator of FactorVAE: it distinguishes latent vectors of images from vectors with shuffled coordinates."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn


@dataclass
class LatentDiscriminatorOutput(BaseOutput):
    """
    The output of [`LatentDiscriminator`].

    Args:
        logits (`torch.Tensor` of shape `(N,)`):
            The log odds that a latent vector is not shuffled: positive where q(z) > prod_j q(z_j).
    """

    logits: torch.Tensor


class LatentDiscriminator(ModelMixin, ConfigMixin):
    r"""
    The discriminator of "Disentangling by Factorising" (Kim & Mnih 2018, https://huggingface.co/papers/1802.05983).

    It is trained to distinguish samples of q(z) from samples of prod_j q(z_j). Then its logit is log q(z) -
    log prod_j q(z_j), whose mean over q(z) is the total correlation (eq. 3). The discriminator in the paper has two
    outputs, but only their difference matters.

    Args:
        latent_dim (`int`, defaults to 10):
            The length of a latent vector.
        hidden_dim (`int`, defaults to 1000):
            The width of a hidden layer.
        num_hidden_layers (`int`, defaults to 5):
            The number of hidden layers.
        negative_slope (`float`, defaults to 0.2):
            The slope of the leaky ReLU after each hidden layer.

    Raises:
        ValueError: if a number is not positive.
    """

    @register_to_config
    def __init__(
        self,
        latent_dim: int = 10,
        hidden_dim: int = 1000,
        num_hidden_layers: int = 5,
        negative_slope: float = 0.2,
    ):
        super().__init__()
        if min(latent_dim, hidden_dim, num_hidden_layers) < 1:
            raise ValueError(
                f"`latent_dim`, `hidden_dim` and `num_hidden_layers` must be positive, but are {latent_dim}, "
                f"{hidden_dim} and {num_hidden_layers}."
            )
        widths = [latent_dim] + [hidden_dim] * num_hidden_layers
        self.layers = nn.ModuleList(map(nn.Linear, widths[:-1], widths[1:]))
        self.to_logits = nn.Linear(hidden_dim, 1)
        for layer in self.layers:
            nn.init.kaiming_uniform_(layer.weight, a=negative_slope)

    def forward(
        self, latents: torch.Tensor, return_dict: bool = True
    ) -> LatentDiscriminatorOutput | tuple[torch.Tensor]:
        r"""
        Args:
            latents (`torch.Tensor` of shape `(N, latent_dim)`):
                Latent vectors.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`LatentDiscriminatorOutput`] instead of a tuple.

        Returns:
            [`LatentDiscriminatorOutput`] or `tuple`: the logits `(N,)`.

        Raises:
            ValueError: if the latents have another length.
        """
        if latents.ndim != 2 or latents.shape[1] != self.config.latent_dim:
            raise ValueError(
                f"`latents` must be of the shape (N, {self.config.latent_dim}), but is of {tuple(latents.shape)}."
            )
        hidden_states = latents
        for layer in self.layers:
            hidden_states = F.leaky_relu(layer(hidden_states), self.config.negative_slope)
        logits = self.to_logits(hidden_states).squeeze(1)
        return LatentDiscriminatorOutput(logits=logits) if return_dict else (logits,)
