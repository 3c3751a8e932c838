import pytest
import torch

from diffusers_ext.models.modeling_lenet import LeNet
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


class LeNetConfig(ModelTesterConfig):
    model_class = LeNet
    output_shape = (2, 7)

    def get_init_dict(self):
        return {"sample_size": 36, "in_channels": 3, "num_classes": 7}

    def get_inputs(self):
        return {"sample": torch.rand((2, 3, 36, 36), generator=torch.Generator().manual_seed(0))}


class TestLeNet(LeNetConfig, ModelTesterMixin):
    def test_too_small_images_are_refused(self):
        with pytest.raises(ValueError, match="`sample_size` must be at least 32, but is 28"):
            LeNet(sample_size=28)

    def test_images_of_another_shape_are_refused(self):
        with pytest.raises(ValueError, match=r"`sample` must be \(N, 3, 36, 36\), but is \(2, 1, 36, 36\)"):
            self.get_model()(torch.zeros(2, 1, 36, 36))

    def test_the_usual_one_has_the_usual_size(self):
        assert sum(parameter.numel() for parameter in LeNet().parameters()) == 61_706
