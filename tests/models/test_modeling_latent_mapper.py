import pytest
import torch

from diffusers_ext.models import LatentMapper
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


class LatentMapperConfig(ModelTesterConfig):
    model_class = LatentMapper
    output_shape = (2, 10, 6)

    def get_init_dict(self):
        return {"num_styles": 10, "style_dim": 6, "num_layers": 2}

    def get_inputs(self):
        return {"styles": torch.randn((2, 10, 6), generator=torch.Generator().manual_seed(0))}


class TestLatentMapper(LatentMapperConfig, ModelTesterMixin):
    pass


def test_the_styles_of_other_levels_stay_as_they_are():
    offsets = LatentMapper(10, 6, ("coarse", "fine"))(torch.randn(2, 10, 6)).offsets
    assert (offsets[:, 4:8] == 0).all() and (offsets[:, :4] != 0).any() and (offsets[:, 8:] != 0).any()
    assert list(LatentMapper(8, 6).mappers) == ["coarse", "medium"]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="`levels` must be one or more of coarse, medium, which 8 styles have"):
        LatentMapper(8, 6, ("fine",))
    with pytest.raises(ValueError, match=r"`styles` must be \(N, 18, 512\), but are \(2, 8, 6\)"):
        LatentMapper()(torch.zeros(2, 8, 6))
