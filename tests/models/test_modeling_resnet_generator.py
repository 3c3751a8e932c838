import pytest
import torch

from diffusers_ext.models.modeling_resnet_generator import ResnetGenerator
from tests.models.testing import ModelSaveLoadTesterMixin, ModelTesterConfig, ModelTesterMixin


class ResnetGeneratorConfig(ModelTesterConfig):
    model_class = ResnetGenerator
    output_shape = (2, 1, 12, 16)

    def get_init_dict(self):
        return {"sample_size": (12, 16), "out_channels": 1, "base_channels": 4, "num_blocks": 2}

    def get_inputs(self):
        return {"sample": torch.randn((2, 3, 12, 16), generator=torch.Generator().manual_seed(0))}


class BatchNormConfig(ResnetGeneratorConfig):
    def get_init_dict(self):
        return {**super().get_init_dict(), "normalization": "batch", "padding_mode": "zeros"}


class TestResnetGenerator(ResnetGeneratorConfig, ModelTesterMixin):
    pass


class TestBatchNorm(BatchNormConfig, ModelSaveLoadTesterMixin):
    pass


@pytest.mark.parametrize("num_downsamplings", [0, 1, 2, 3])
def test_sizes_that_fit_and_sizes_that_do_not(num_downsamplings):
    model = ResnetGenerator(None, 1, 1, 2, num_downsamplings, num_blocks=1).train()
    least = max(2 * model.stride, 4)
    for size in [(least, least), (least, least + model.stride)]:
        output = model(torch.randn(1, 1, *size)).sample
        assert output.shape[2:] == size and -1 <= output.min() <= output.max() <= 1
    wrong = [(least - model.stride, least)] + ([(least, least + 1)] if model.stride > 1 else [])
    for size in wrong:
        with pytest.raises(ValueError, match=f"multiples of {model.stride} and at least {least}"):
            model(torch.randn(1, 1, *size))


def test_padding_counts():
    torch.manual_seed(0)
    weights = ResnetGenerator(None, 1, 1, 2, num_blocks=2).state_dict()
    sample, outputs = torch.randn(1, 1, 16, 16), []
    for mode in ("reflect", "replicate", "zeros"):
        model = ResnetGenerator(None, 1, 1, 2, num_blocks=2, padding_mode=mode)
        model.load_state_dict(weights)
        outputs.append(model(sample).sample)
    assert not torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[1], outputs[2])


@pytest.mark.parametrize("shape", [(1, 1, 16, 16), (3, 16, 16)])
def test_images_of_other_channels_are_refused(shape):
    with pytest.raises(ValueError, match=r"`sample` must be of the shape \(N, 3, H, W\), but is of"):
        ResnetGenerator(base_channels=4, num_blocks=1)(torch.zeros(shape))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_blocks": -1}, "at least 0"),
        ({"base_channels": 0}, "must be positive"),
        ({"normalization": "layer"}, "`normalization`"),
        ({"padding_mode": "circular"}, "`padding_mode`"),
        ({"dropout": -0.1}, "`dropout`"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ResnetGenerator(**arguments)
