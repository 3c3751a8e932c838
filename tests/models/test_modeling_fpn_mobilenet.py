import pytest
import torch

from diffusers_ext.models.modeling_fpn_mobilenet import FPNMobileNet
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


class TestFPNMobileNet(ModelTesterConfig, ModelTesterMixin):
    model_class = FPNMobileNet
    output_shape = (2, 3, 64, 96)

    def get_init_dict(self):
        return {"backbone_channels": (4, 4, 4, 4, 8, 8, 8), "pyramid_channels": 8}

    def get_inputs(self):
        return {"sample": torch.rand((2, 3, 64, 96), generator=torch.Generator().manual_seed(0)) * 2 - 1}


@torch.no_grad()
def test_a_last_layer_of_zeros_does_not_change_images():
    model = FPNMobileNet(backbone_channels=(4,) * 7, pyramid_channels=4).eval()
    for parameter in model.conv_out.parameters():
        parameter.zero_()
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    torch.testing.assert_close(model(image).sample, image)


def test_it_is_as_large_as_the_part_of_the_original_that_is_used():
    assert sum(p.numel() for p in FPNMobileNet(normalization="none").parameters()) == 2_106_627


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"backbone_channels": (8, 8)}, "`backbone_channels` must be 7 positive numbers"),
        ({"in_channels": 1}, "must be equal, but are 1 and 3"),
        ({"pyramid_channels": 10}, "multiple of 4, but is 10"),
        ({"normalization": "group"}, "`normalization` one of"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        FPNMobileNet(**arguments)


def test_small_images_are_refused():
    with pytest.raises(ValueError, match="at least 64"):
        FPNMobileNet(backbone_channels=(4,) * 7, pyramid_channels=4)(torch.zeros(1, 3, 32, 64))
