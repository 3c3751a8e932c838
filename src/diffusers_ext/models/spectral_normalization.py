"""Spectral normalisation that costs nothing where there are no values."""

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize


class SpectralNorm(parametrizations._SpectralNorm):
    # While a model is loaded, its weights are on the meta device. There PyTorch would emulate the fifteen iterations
    # of the start in Python, 0.1 seconds for each layer, and the vectors are then read from the file all the same.
    def _power_method(self, weight_mat: torch.Tensor, n_power_iterations: int) -> None:
        if not weight_mat.is_meta:
            super()._power_method(weight_mat, n_power_iterations)


def with_spectral_norm(layer: nn.Module, eps: float = 1e-12) -> nn.Module:
    """Divides the weight of a layer by an estimate of its largest singular value (Miyato et al. 2018, algorithm 1).

    It is `torch.nn.utils.parametrizations.spectral_norm`, with the same vectors and names of weights, but makes no
    iterations on the meta device.

    Args:
        layer (`nn.Module`): a linear or convolutional layer, changed in place.
        eps (`float`, defaults to 1e-12): added to norms before vectors are divided by them.

    Returns:
        `nn.Module`: the same layer.
    """
    transposed = isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d))
    normalization = SpectralNorm(layer.weight, dim=int(transposed), eps=eps)
    parametrize.register_parametrization(layer, "weight", normalization)
    return layer
