import torch

from diffusers_ext.models.diagonal_gaussian import DiagonalGaussian


def test_a_divergence_that_is_small_beside_one_is_kept():
    mean, logvar = torch.tensor([[1e-5, 0.0, 1e-4]]), torch.tensor([[0.0, 1e-3, -1e-3]])
    exact = 0.5 * (logvar.double().expm1() - logvar.double() + mean.double().square()).sum(dim=1)
    torch.testing.assert_close(DiagonalGaussian(mean, logvar).kl().double(), exact, rtol=1e-3, atol=0)
