"""The losses of energy-based models. Everything is computed in float32."""

import torch


def contrastive_divergence_loss(
    real_energy: torch.Tensor, fake_energy: torch.Tensor, energy_weight: float = 0.0
) -> torch.Tensor:
    """Lowers the energy of real images and raises that of images from chains, of shape (N,).

    Its gradient is that of maximum likelihood, if the chains draw from the model (Hinton 2002; Du and Mordatch 2019,
    eq. 3). The squared energies keep both near 0 (section 3.3 of the latter).

    Args:
        real_energy, fake_energy (`torch.Tensor` of shape (N,)): the energies.
        energy_weight (`float`): the weight of the squared energies.
    """
    real, fake = real_energy.float(), fake_energy.float()
    return real - fake + energy_weight * (real.square() + fake.square())


def denoising_score_matching_loss(
    energy_gradient: torch.Tensor, noise: torch.Tensor, noise_std: torch.Tensor | float, scale_std: float | None = None
) -> torch.Tensor:
    """How far a step down the energy of a noisy image is from the clean image, of shape (N,), mean over the values.

    Vincent 2011 (eq. 17): with one level of noise, the gradient of the energy of a noisy image is to be its noise,
    divided by the variance of the noise. With many levels (Li et al. 2019, "Learning Energy-Based Models in
    High-Dimensional Spaces with Multi-scale Denoising Score Matching", eq. 11), one energy for all is matched at the
    scale of `scale_std`. Both sides are multiplied by `scale_std**2 / noise_std`, so that each level counts alike.

    Args:
        energy_gradient (`torch.Tensor` of shape (N, ...)): the gradient of the energy with respect to the noisy image.
        noise (`torch.Tensor` of shape (N, ...)): the standard normal noise.
        noise_std (`torch.Tensor` of shape (N,), or `float`): its standard deviation in the image.
        scale_std (`float`, *optional*): the scale of the energy; by default `noise_std`, that of a single level.
    """
    gradient, noise = energy_gradient.float().flatten(1), noise.float().flatten(1)
    noise_std = torch.as_tensor(noise_std, dtype=torch.float32, device=noise.device).reshape(-1, 1)
    scale = noise_std if scale_std is None else scale_std**2 / noise_std
    return (scale * gradient - noise).square().mean(dim=1)
