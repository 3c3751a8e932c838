import pytest
import torch

from diffusers_ext.models import DANetCritic, DANetUNet
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


class TestDANetUNet(ModelTesterConfig, ModelTesterMixin):
    model_class = DANetUNet
    output_shape = (2, 3, 8, 12)

    def get_init_dict(self):
        return {"base_channels": 4, "num_levels": 3, "noise_channels": 1}

    def get_inputs(self):
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn((2, 1, 8, 12), generator=generator)
        return {"sample": torch.rand((2, 3, 8, 12), generator=generator), "noise": noise}


class TestDANetCritic(ModelTesterConfig, ModelTesterMixin):
    model_class = DANetCritic
    output_shape = (2,)

    def get_init_dict(self):
        return {"base_channels": 2, "num_levels": 2}

    def get_inputs(self):
        return {"sample": torch.rand((2, 6, 16, 20), generator=torch.Generator().manual_seed(0))}


def test_they_are_as_large_as_the_originals():
    with torch.device("meta"):
        sizes = [
            sum(p.numel() for p in network.parameters())
            for network in (DANetUNet(), DANetUNet(noise_channels=1), DANetCritic())
        ]
    assert sizes == [9_153_571, 9_153_859, 44_703_745]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="must be equal"):
        DANetUNet(in_channels=1)
    with pytest.raises(ValueError, match="`noise` must be of the shape .*, but is missing"):
        DANetUNet(base_channels=1, num_levels=1, noise_channels=1)(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="at least 128"):
        DANetCritic(base_channels=1)(torch.zeros(1, 6, 64, 64))
