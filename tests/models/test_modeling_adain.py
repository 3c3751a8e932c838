import pytest
import torch

from diffusers_ext.models.modeling_adain import AdaINStyleNet
from diffusers_ext.models.modeling_fast_style import FastStyleNet
from tests.models.testing import (
    ModelCompileTesterMixin,
    ModelOutputTesterMixin,
    ModelSaveLoadTesterMixin,
    ModelTesterConfig,
    ModelTrainingTesterMixin,
)


class TestFastStyle(
    ModelTesterConfig,
    ModelOutputTesterMixin,
    ModelSaveLoadTesterMixin,
    ModelCompileTesterMixin,
):
    model_class = FastStyleNet
    output_shape = (2, 3, 12, 20)

    def get_init_dict(self):
        return {"block_out_channels": (4, 6, 8), "num_blocks": 1}

    def get_inputs(self):
        return {"sample": torch.rand((2, 3, 11, 18), generator=torch.Generator().manual_seed(0))}


class TestAdaIN(
    ModelTesterConfig,
    ModelOutputTesterMixin,
    ModelSaveLoadTesterMixin,
    ModelTrainingTesterMixin,
    ModelCompileTesterMixin,
):
    model_class = AdaINStyleNet
    output_shape = (2, 3, 16, 24)

    def get_init_dict(self):
        return {"block_out_channels": (4, 4, 6, 8)}

    def get_inputs(self):
        generator = torch.Generator().manual_seed(0)
        return {
            "sample": torch.rand((2, 3, 11, 18), generator=generator),
            "style": torch.rand((2, 3, 20, 16), generator=generator),
        }


def test_they_are_as_large_as_the_originals():
    assert sum(p.numel() for p in FastStyleNet().parameters()) == 1_679_235
    network = AdaINStyleNet()
    assert sum(p.numel() for p in network.decoder.parameters()) == 3_505_219
    assert sum(p.numel() for part in (network.conv_colors, network.stages) for p in part.parameters()) == 3_505_740


@pytest.mark.parametrize("model_class", [FastStyleNet, AdaINStyleNet])
def test_impossible_arguments_and_small_images_are_refused(model_class):
    with pytest.raises(ValueError, match="`block_out_channels`"):
        model_class(block_out_channels=(4, 0))
    model = model_class(block_out_channels=(4, 4, 4, 4))
    small = torch.zeros(1, 3, model.smallest_side - 1, 20)
    with pytest.raises(ValueError, match=f"at least {model.smallest_side}"):
        model(small, *([small] if model_class is AdaINStyleNet else []))
