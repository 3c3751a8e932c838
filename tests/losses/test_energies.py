import torch

from diffusers_ext.losses import contrastive_divergence_loss, denoising_score_matching_loss


def test_contrastive_divergence_by_hand():
    real, fake = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    torch.testing.assert_close(contrastive_divergence_loss(real, fake), torch.tensor([0.5, -5.0]))
    torch.testing.assert_close(contrastive_divergence_loss(real, fake, 0.1), torch.tensor([0.625, -3.7]))


def test_the_true_energy_of_noisy_points_has_no_score_matching_loss():
    """Of a single clean point x, noisy ones have the energy (y - x)^2 / 2 s^2."""
    noise, std = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0)), 0.3
    assert denoising_score_matching_loss(noise * std / std**2, noise, std).abs().max() < 1e-10
    stds = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    gradients = stds[:, None, None] * noise / 0.1**2  # of many levels, at the scale of the lowest
    assert denoising_score_matching_loss(gradients, noise, stds, scale_std=0.1).abs().max() < 1e-10
    zero = denoising_score_matching_loss(torch.zeros_like(noise), noise, stds, scale_std=0.1)
    torch.testing.assert_close(zero, noise.square().mean(dim=(1, 2)))
