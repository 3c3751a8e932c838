import pytest
import torch

from diffusers_ext.models.modeling_msrresnet import MSRResNet
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


class TestMSRResNet(ModelTesterConfig, ModelTesterMixin):
    model_class = MSRResNet
    output_shape = (2, 3, 18, 30)

    def get_init_dict(self):
        return {"base_channels": 8, "num_blocks": 2, "scale": 3}

    def get_inputs(self):
        return {"sample": torch.rand((2, 3, 6, 10), generator=torch.Generator().manual_seed(0))}


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@torch.no_grad()
def test_a_network_of_zeros_is_bilinear_interpolation(scale):
    model = MSRResNet(1, 3, base_channels=4, num_blocks=1, scale=scale)
    for parameter in model.parameters():
        parameter.zero_()
    image = torch.rand(1, 1, 5, 7)
    expected = torch.nn.functional.interpolate(image, scale_factor=scale, mode="bilinear").expand(1, 3, -1, -1)
    torch.testing.assert_close(model(image).sample, expected)


def test_it_is_as_large_as_the_original():
    assert sum(p.numel() for p in MSRResNet().parameters()) == 1_517_571


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_blocks": -1}, "at least 0"),
        ({"scale": 5}, "`scale` must be one of"),
        ({"in_channels": 2}, "`in_channels` must be 1 or `out_channels`, 3, but is 2"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MSRResNet(**arguments)
