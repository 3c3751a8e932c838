import pytest
import torch

from diffusers_ext.models.modeling_autoencoder_mlp import ACTIVATIONS, AutoencoderMLP
from tests.models.autoencoders import AutoencoderTesterMixin
from tests.models.testing import ModelTesterConfig, ModelTrainingTesterMixin


class MLPConfig(ModelTesterConfig):
    model_class = AutoencoderMLP
    output_shape = (2, 3, 6, 8)

    def get_init_dict(self):
        return {"sample_size": (6, 8), "in_channels": 3, "latent_dim": 5, "hidden_dims": (24, 16)}

    def get_inputs(self):
        return {"sample": torch.rand((2, 3, 6, 8), generator=torch.Generator().manual_seed(0))}


class SampledMLPConfig(MLPConfig):
    """With sampled latents, because otherwise the log variances have no gradient."""

    def get_inputs(self):
        return super().get_inputs() | {"sample_posterior": True, "generator": torch.Generator().manual_seed(0)}


class TestMLP(MLPConfig, AutoencoderTesterMixin):
    pass


class TestSampledMLP(SampledMLPConfig, ModelTrainingTesterMixin):
    pass


@torch.no_grad()
def test_without_hidden_layers_it_is_linear():
    model = AutoencoderMLP(
        8, hidden_dims=(), variational=False, output_activation="identity", sample_range=(-1.0, 1.0)
    )
    first, second = torch.randn(2, 4, 1, 8, 8)
    zero = model(torch.zeros(1, 1, 8, 8)).sample
    both = model(first + second).sample - zero
    torch.testing.assert_close(both, model(first).sample + model(second).sample - 2 * zero, rtol=1e-4, atol=1e-5)


def test_a_linear_autoencoder_learns_what_pca_finds():
    torch.manual_seed(0)
    images = torch.randn(200, 2) @ torch.randn(2, 16) + 0.05 * torch.randn(200, 16)
    images = images - images.mean(dim=0)
    singular = torch.linalg.svdvals(images)
    best = singular[2:].square().sum() / images.numel()  # two principal components
    options = {"hidden_dims": (), "variational": False, "output_activation": "identity"}
    model = AutoencoderMLP(4, latent_dim=2, **options)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        error = (model(images.view(-1, 1, 4, 4)).sample.flatten(1) - images).square().mean()
        error.backward()
        return error

    optimizer.step(loss)
    assert 0.9999 * best <= loss() < 1.01 * best  # never better than the optimum, except by rounding


def test_a_deep_one_is_its_own_mirror():
    model = AutoencoderMLP(8, hidden_dims=(32, 16, 8), latent_dim=2)
    widths = [tuple(layer.weight.shape) for layer in (*model.encoder_layers, model.to_mean)]
    assert widths == [(32, 64), (16, 32), (8, 16), (2, 8)]
    widths = [tuple(layer.weight.shape) for layer in (*model.decoder_layers, model.to_sample)]
    assert widths == [(8, 2), (16, 8), (32, 16), (64, 32)]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation):
    assert AutoencoderMLP(8, activation=activation)(torch.rand(1, 1, 8, 8)).sample.shape == (1, 1, 8, 8)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"latent_dim": 0}, "must be positive, but are 28, 1, 0 and"),
        ({"hidden_dims": (8, 0)}, r"must be positive, but are 28, 1, 20 and \(8, 0\)"),
        ({"activation": "mish"}, "`activation` must be one of relu, .*, but is 'mish'"),
        ({"output_activation": "softmax"}, "`output_activation` must be one of"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AutoencoderMLP(**arguments)
