"""The posterior distribution of variational autoencoders with one latent vector per image."""

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution


class DiagonalGaussian(DiagonalGaussianDistribution):
    """
    The posterior N(mean, diag(exp(logvar))) of each sample, where `mean` and `logvar` have the shape `(N,
    latent_dim)`.

    The class of diffusers is for maps of latents.
    """

    def __init__(self, mean: torch.Tensor, logvar: torch.Tensor):
        super().__init__(torch.cat([mean, logvar], dim=1))

    def kl(self) -> torch.Tensor:
        """The divergence KL(q(z | x) || N(0, I)) in nats, `(N,)` (Kingma & Welling 2014, appendix B)."""
        # With expm1, because the rounding error of exp() - 1 can be larger than a small divergence.
        return 0.5 * (self.logvar.expm1() - self.logvar + self.mean.square()).sum(dim=1)
