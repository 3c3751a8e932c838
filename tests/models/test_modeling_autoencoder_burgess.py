import pytest
import torch

from diffusers_ext.models.modeling_autoencoder_burgess import AutoencoderBurgess
from tests.models.autoencoders import AutoencoderTesterMixin
from tests.models.testing import ModelTesterConfig, ModelTrainingTesterMixin


class BurgessConfig(ModelTesterConfig):
    model_class = AutoencoderBurgess
    output_shape = (2, 1, 16, 20)

    def get_init_dict(self):
        return {"sample_size": (16, 20), "latent_dim": 5, "hidden_channels": 8, "hidden_dim": 16}

    def get_inputs(self):
        return {"sample": torch.rand((2, 1, 16, 20), generator=torch.Generator().manual_seed(0))}


class SampledBurgessConfig(BurgessConfig):
    """With sampled latents, because otherwise the log variances have no gradient."""

    def get_inputs(self):
        return super().get_inputs() | {"sample_posterior": True, "generator": torch.Generator().manual_seed(0)}


class TestBurgess(BurgessConfig, AutoencoderTesterMixin):
    pass


class TestSampledBurgess(SampledBurgessConfig, ModelTrainingTesterMixin):
    pass


@pytest.mark.parametrize(
    "size, num_convs", [(64, 4), (32, 3), (28, 2), (8, 1), (4, 1), ((64, 32), 3), ((45, 71), 3), (256, 6)]
)
def test_every_size(size, num_convs):
    height, width = (size, size) if isinstance(size, int) else size
    model = AutoencoderBurgess(size, in_channels=3, hidden_channels=4, hidden_dim=8)
    assert len(model.encoder_convs) == len(model.decoder_convs) == num_convs
    assert model(torch.zeros(2, 3, height, width)).sample.shape == (2, 3, height, width)


@pytest.mark.parametrize("size, channels, millions", [(32, 1, 469_173), (64, 1, 502_005), (64, 3, 504_055)])
def test_number_of_parameters(size, channels, millions):
    """The sizes of disentangling-vae for MNIST, dSprites and CelebA."""
    model = AutoencoderBurgess(size, channels)
    assert sum(parameter.numel() for parameter in model.parameters()) == millions


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"latent_dim": 0}, "must be positive, but are 64, 1, 0, 32 and 256"),
        ({"num_convs": 7}, "`num_convs` must be at least 1, and `sample_size` 64 must be large enough"),
        ({"num_convs": 0}, "`num_convs` must be at least 1"),
        ({"output_activation": "relu"}, "`output_activation` must be one of sigmoid, tanh, identity"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AutoencoderBurgess(**arguments)
