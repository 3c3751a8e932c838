import pytest
import torch

from diffusers_ext.models.modeling_srresnet import SRResNet
from tests.models.testing import ModelSaveLoadTesterMixin, ModelTesterConfig, ModelTesterMixin


class SRResNetConfig(ModelTesterConfig):
    model_class = SRResNet
    output_shape = (2, 3, 12, 20)

    def get_init_dict(self):
        return {"base_channels": 8, "num_blocks": 2, "scale": 2, "normalization": "none"}

    def get_inputs(self):
        return {"sample": torch.rand((2, 3, 6, 10), generator=torch.Generator().manual_seed(0))}


class BatchNormConfig(SRResNetConfig):
    def get_init_dict(self):
        changes = {"normalization": "batch", "trunk_activation": True, "output_activation": "tanh"}
        return {**super().get_init_dict(), **changes}


class TestSRResNet(SRResNetConfig, ModelTesterMixin):
    pass


class TestBatchNorm(BatchNormConfig, ModelSaveLoadTesterMixin):
    pass


@pytest.mark.parametrize("scale", [1, 2, 8])
@torch.no_grad()
def test_scales_and_the_range_of_tanh(scale):
    model = SRResNet(1, 2, base_channels=4, num_blocks=1, scale=scale, output_activation="tanh")
    output = model.eval()(torch.randn(1, 1, 3, 5)).sample
    assert output.shape == (1, 2, 3 * scale, 5 * scale) and 0 <= output.min() <= output.max() <= 1


def test_it_is_as_large_as_the_original():
    assert sum(p.numel() for p in SRResNet(num_blocks=5, trunk_activation=True).parameters()) == 734_092


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"base_channels": 0}, "must be positive"),
        ({"scale": 3}, "`scale` must be a power of two"),
        ({"normalization": "instance"}, "`normalization`"),
        ({"output_activation": "relu"}, "`output_activation`"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SRResNet(**arguments)


def test_images_of_other_channels_are_refused():
    with pytest.raises(ValueError, match=r"`sample` must be of the shape \(N, 3, H, W\), but is of"):
        SRResNet(base_channels=4, num_blocks=1)(torch.zeros(1, 1, 4, 4))
