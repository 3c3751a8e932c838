import pytest
import torch

from diffusers_ext.models.modeling_unet_generator import UNetGenerator
from tests.models.testing import (
    ModelSaveLoadTesterMixin,
    ModelTesterConfig,
    ModelTesterMixin,
    ModelTrainingTesterMixin,
)


class UNetGeneratorConfig(ModelTesterConfig):
    model_class = UNetGenerator
    output_shape = (2, 2, 16, 24)

    def get_init_dict(self):
        return {
            "sample_size": (16, 24),
            "in_channels": 3,
            "out_channels": 2,
            "block_out_channels": (4, 8, 16),
            "normalization": "instance",
            "dropout": 0.0,
        }

    def get_inputs(self):
        return {"sample": torch.randn((2, 3, 16, 24), generator=torch.Generator().manual_seed(0))}


class BatchNormConfig(UNetGeneratorConfig):
    def get_init_dict(self):
        return {**super().get_init_dict(), "normalization": "batch"}


class TestUNetGenerator(UNetGeneratorConfig, ModelTesterMixin):
    pass


class TestBatchNorm(BatchNormConfig, ModelSaveLoadTesterMixin, ModelTrainingTesterMixin):
    pass


def test_latents_are_channels_of_the_input():
    torch.manual_seed(0)
    model = UNetGenerator(None, 1, 1, (4, 4), "none", dropout=0.0, latent_dim=2).eval()
    plain = UNetGenerator(None, 3, 1, (4, 4), "none", dropout=0.0).eval()
    plain.load_state_dict(model.state_dict())
    sample, latents = torch.randn(2, 1, 4, 8), torch.randn(2, 2)
    expected = plain(torch.cat([sample, latents[:, :, None, None].repeat(1, 1, 4, 8)], dim=1)).sample
    torch.testing.assert_close(model(sample, latents).sample, expected, rtol=0, atol=0)
    for network, arguments, message in (
        (model, [sample], r"`latents` must be \(2, 2\) for this network, but is None"),
        (plain, [torch.zeros(1, 3, 4, 4), latents], "`latents` must be None for this network"),
    ):
        with pytest.raises(ValueError, match=message):
            network(*arguments)
    with pytest.raises(ValueError, match="`latent_dim` must be at least 1 or None"):
        UNetGenerator(latent_dim=0)


@pytest.mark.parametrize("levels", [1, 2, 3, 5])
@pytest.mark.parametrize("normalization", ["batch", "instance", "none"])
def test_any_depth_trains_on_one_image_of_the_least_size(levels, normalization):
    model = UNetGenerator(None, 1, 1, (4,) * levels, normalization).train()
    sample = torch.randn(1, 1, model.stride, 2 * model.stride)
    output = model(sample).sample
    assert model.stride == 2**levels and output.shape == sample.shape
    output.square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert -1 <= output.min() <= output.max() <= 1


def test_other_sizes_are_refused():
    model = UNetGenerator(block_out_channels=(4, 4, 4))
    with pytest.raises(
        ValueError, match=r"multiples of 8, because the network halves it 3 times, but is of the size \(16, 20\)"
    ):
        model(torch.zeros(1, 3, 16, 20))


@pytest.mark.parametrize("shape", [(1, 1, 16, 16), (3, 16, 16)])
def test_images_of_other_channels_are_refused(shape):
    with pytest.raises(ValueError, match=r"`sample` must be of the shape \(N, 3, H, W\), but is of"):
        UNetGenerator(block_out_channels=(4, 4, 4))(torch.zeros(shape))


def test_the_published_network():
    model = UNetGenerator(block_out_channels=(4, 8, 16, 32, 32, 32, 32, 32))
    assert [layer.dropout.p for layer in model.up_layers] == [0, 0.5, 0.5, 0.5, 0, 0, 0]
    assert [layer.conv.bias is None for layer in model.down_layers] == [True] * 6 + [False]


def test_dropout_is_for_training_only():
    model = UNetGenerator(None, 1, 1, (8, 8, 8), "instance", dropout=0.9).train()
    sample = torch.randn(1, 1, 16, 16)
    assert not torch.equal(model(sample).sample, model(sample).sample)
    model.eval()
    assert torch.equal(model(sample).sample, model(sample).sample)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"block_out_channels": ()}, "at least one"),
        ({"out_channels": 0}, "must be positive"),
        ({"normalization": "layer"}, "`normalization`"),
        ({"dropout": 1.0}, "`dropout`"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        UNetGenerator(**arguments)
