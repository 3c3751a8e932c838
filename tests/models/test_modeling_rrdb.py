import pytest
import torch

from diffusers_ext.models.modeling_rrdb import RRDBNet
from tests.models.testing import ModelSaveLoadTesterMixin, ModelTesterConfig, ModelTesterMixin


class RRDBConfig(ModelTesterConfig):
    model_class = RRDBNet
    output_shape = (2, 3, 12, 20)

    def get_init_dict(self):
        return {"base_channels": 8, "growth_channels": 4, "num_blocks": 1, "num_upsamplings": 1}

    def get_inputs(self):
        return {"sample": torch.rand((2, 3, 6, 10), generator=torch.Generator().manual_seed(0))}


class UnshuffledConfig(RRDBConfig):
    output_shape = (2, 3, 6, 10)

    def get_init_dict(self):
        return {**super().get_init_dict(), "unshuffle_factor": 2}


class TestRRDB(RRDBConfig, ModelTesterMixin):
    pass


class TestUnshuffled(UnshuffledConfig, ModelSaveLoadTesterMixin):
    pass


def test_it_is_as_large_as_the_original():
    with torch.device("meta"):
        model = RRDBNet()
    assert sum(p.numel() for p in model.parameters()) == 16_697_987 and len(model.state_dict()) == 702


def test_sides_must_be_multiples_of_the_factor():
    model = RRDBNet(base_channels=4, growth_channels=2, num_blocks=1, unshuffle_factor=2)
    assert (model.scale, model.stride) == (2, 2)
    with pytest.raises(ValueError, match="multiples of 2, but is of the size"):
        model(torch.zeros(1, 3, 5, 6))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"growth_channels": 0}, "must be positive"),
        ({"num_blocks": -1}, "at least 0"),
        ({"unshuffle_factor": 3}, "`unshuffle_factor` must divide the enlargement after the blocks, 4, but is 3"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RRDBNet(**arguments)
