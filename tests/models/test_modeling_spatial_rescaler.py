import pytest
import torch
import torch.nn.functional as F

from diffusers_ext.models.modeling_spatial_rescaler import SpatialRescaler
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


class SpatialRescalerConfig(ModelTesterConfig):
    model_class = SpatialRescaler
    output_shape = (2, 3, 4, 2)

    def get_init_dict(self):
        return {"in_channels": 5, "out_channels": 3, "num_stages": 2}

    def get_inputs(self):
        labels = torch.randint(5, (2, 16, 8), generator=torch.Generator().manual_seed(0))
        return {"sample": F.one_hot(labels, 5).movedim(-1, 1).float()}


class TestSpatialRescaler(SpatialRescalerConfig, ModelTesterMixin):
    def test_halving_is_averaging(self):
        maps = self.get_inputs()["sample"]
        rescaled = SpatialRescaler(in_channels=5, num_stages=2)(maps)
        torch.testing.assert_close(rescaled, F.avg_pool2d(maps, 4))
        assert SpatialRescaler(in_channels=5, num_stages=0)(maps).equal(maps)

    def test_what_does_not_fit_is_refused(self):
        for shape in ((2, 4, 8, 8), (2, 5, 8, 3), (5, 8, 8)):
            with pytest.raises(ValueError, match=r"\(N, 5, H, W\) with H and W of at least 4, but is of \("):
                self.get_model()(torch.zeros(shape))
        with pytest.raises(ValueError, match="must be positive, but are 5 and 0"):
            SpatialRescaler(in_channels=5, out_channels=0)
        with pytest.raises(ValueError, match="`num_stages` must be at least 0, but is -1"):
            SpatialRescaler(num_stages=-1)
