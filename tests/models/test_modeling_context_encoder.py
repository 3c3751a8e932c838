import pytest
import torch

from diffusers_ext.models.modeling_context_encoder import ContextEncoder
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


class TestContextEncoder(ModelTesterConfig, ModelTesterMixin):
    model_class = ContextEncoder
    output_shape = (2, 3, 16, 20)

    def get_init_dict(self):
        return {"base_channels": 4, "bottleneck_channels": 6, "num_levels": 2}

    def get_inputs(self):
        return {"sample": torch.rand((2, 3, 16, 20), generator=torch.Generator().manual_seed(0)) * 2 - 1}


@torch.no_grad()
def test_only_the_centre_changes():
    model = ContextEncoder(base_channels=4, bottleneck_channels=6, num_levels=2, overlap=1).eval()
    image = torch.rand(1, 3, 16, 24) * 2 - 1
    changed = (model(image).sample != image).any(1)[0]
    assert changed[5:11, 7:17].all() and changed.sum() == 6 * 10


def test_it_is_as_large_as_the_original():
    with torch.device("meta"):
        assert sum(p.numel() for p in ContextEncoder().parameters()) == 71_124_544


@pytest.mark.parametrize(
    "arguments, message",
    [({"num_levels": 1}, "at least 2"), ({"in_channels": 1}, "must be equal"), ({"overlap": 32}, "below 32")],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ContextEncoder(**arguments)


def test_small_images_are_refused():
    with pytest.raises(ValueError, match="at least 128"):
        ContextEncoder(base_channels=1, bottleneck_channels=1)(torch.zeros(1, 3, 96, 128))
