import pytest
import torch

from diffusers_ext.models.modeling_srgan_discriminator import SRGANDiscriminator
from tests.models.testing import (
    ModelCompileTesterMixin,
    ModelOutputTesterMixin,
    ModelSaveLoadTesterMixin,
    ModelTesterConfig,
    ModelTrainingTesterMixin,
)


class TestSRGANDiscriminator(
    ModelTesterConfig,
    ModelOutputTesterMixin,
    ModelSaveLoadTesterMixin,
    ModelTrainingTesterMixin,
    ModelCompileTesterMixin,
):
    model_class = SRGANDiscriminator
    output_shape = (2,)

    def get_init_dict(self):
        return {"base_channels": 4, "num_levels": 2}

    def get_inputs(self):
        return {"sample": torch.rand((2, 3, 13, 8), generator=torch.Generator().manual_seed(0))}


def test_impossible_arguments_are_refused():
    with pytest.raises(ValueError, match="must be positive"):
        SRGANDiscriminator(num_levels=0)
