"""Our spectral norm is PyTorch's, and makes no iterations without values."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from diffusers_ext.models.spectral_normalization import SpectralNorm, with_spectral_norm


LAYERS = [lambda: nn.Linear(5, 3), lambda: nn.Conv2d(3, 4, 3), lambda: nn.ConvTranspose2d(3, 4, 3)]


@pytest.mark.parametrize("make", LAYERS, ids=["linear", "convolution", "transposed convolution"])
def test_it_is_that_of_pytorch(make):
    states = []
    for normalize in (with_spectral_norm, parametrizations.spectral_norm):
        torch.manual_seed(0)
        layer = normalize(make(), eps=1e-6)
        _ = layer.weight  # in training, each use of the weight makes an iteration
        states.append(layer.state_dict() | {"weight": layer.weight})
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_no_iteration_is_made_without_values(monkeypatch):
    calls = []
    monkeypatch.setattr(parametrizations._SpectralNorm, "_power_method", lambda *arguments: calls.append(arguments))
    with torch.device("meta"):
        layer = with_spectral_norm(nn.Conv2d(3, 4, 3))
    assert layer.weight.is_meta and layer.weight.shape == (4, 3, 3, 3) and not calls
    with_spectral_norm(nn.Conv2d(3, 4, 3))
    assert calls and isinstance(layer.parametrizations.weight[0], SpectralNorm)
