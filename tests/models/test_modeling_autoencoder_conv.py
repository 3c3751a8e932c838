import pytest
import torch

from diffusers_ext.models.modeling_autoencoder_conv import AutoencoderConv
from tests.models.autoencoders import AutoencoderTesterMixin
from tests.models.testing import ModelTesterConfig, ModelTrainingTesterMixin


class ConvConfig(ModelTesterConfig):
    model_class = AutoencoderConv
    output_shape = (2, 3, 12, 18)

    def get_init_dict(self):
        return {"sample_size": (12, 18), "latent_dim": 5, "block_out_channels": (8, 16)}

    def get_inputs(self):
        sample = torch.rand((2, 3, 12, 18), generator=torch.Generator().manual_seed(0))
        return {"sample": 2 * sample - 1}


class SampledConvConfig(ConvConfig):
    """With sampled latents, because otherwise log variances have no gradient. Biases before batch norm have none."""

    def get_init_dict(self):
        return super().get_init_dict() | {"normalization": "group"}

    def get_inputs(self):
        return super().get_inputs() | {"sample_posterior": True, "generator": torch.Generator().manual_seed(0)}


class TestConv(ConvConfig, AutoencoderTesterMixin):
    pass


class TestSampledConv(SampledConvConfig, ModelTrainingTesterMixin):
    pass


@pytest.mark.parametrize("size", [8, 28, (29, 37), (15, 64)])
@pytest.mark.parametrize("kernel_size", [2, 3, 4, 5])
@pytest.mark.parametrize("add_conv_out", [False, True])
def test_every_size(size, kernel_size, add_conv_out):
    height, width = (size, size) if isinstance(size, int) else size
    model = AutoencoderConv(size, 1, 4, (4, 8, 8), kernel_size, add_conv_out=add_conv_out)
    assert model(torch.zeros(2, 1, height, width)).sample.shape == (2, 1, height, width)


def test_decoder_of_its_own():
    """The convolutional VAE of pythae for MNIST."""
    model = AutoencoderConv(
        28,
        1,
        16,
        block_out_channels=(128, 256, 512, 1024),
        kernel_size=4,
        decoder_block_out_channels=(1024, 512, 256),
        decoder_kernel_size=3,
        add_conv_out=False,
    )
    assert sum(parameter.numel() for parameter in model.parameters()) == 17_232_033
    assert model.decode(torch.zeros(2, 16)).sample.shape == (2, 1, 28, 28)


def test_a_batch_of_one():
    model = AutoencoderConv(8, 1, 4, (4, 8, 8)).train()
    with pytest.raises(ValueError, match="A batch of one image has no variance"):
        model(torch.zeros(1, 1, 8, 8))
    assert model(torch.zeros(2, 1, 8, 8)).sample.shape == (2, 1, 8, 8)
    assert model.eval()(torch.zeros(1, 1, 8, 8)).sample.shape == (1, 1, 8, 8)
    grouped = AutoencoderConv(8, 1, 4, (8, 8, 8), normalization="group", norm_num_groups=4).train()
    assert grouped(torch.zeros(1, 1, 8, 8)).sample.shape == (1, 1, 8, 8)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"block_out_channels": ()}, "`block_out_channels` must have an entry"),
        ({"sample_size": 0}, "must be positive, but are 0, 3, 128 and"),
        ({"decoder_block_out_channels": (8, 0)}, "must be positive"),
        ({"kernel_size": 1}, "`kernel_size` must be at least 2, but is 1"),
        ({"sample_size": 16, "kernel_size": 4}, "`sample_size` 16 is too small to be halved 5 times"),
        ({"normalization": "layer"}, "`normalization` must be one of batch, group, none, but is 'layer'"),
        ({"normalization": "group", "norm_num_groups": 24}, "`norm_num_groups` must divide"),
        ({"activation": "mish"}, "`activation` must be one of relu, .*, but is 'mish'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AutoencoderConv(**arguments)
