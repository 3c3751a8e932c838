"""Tests of all models, for the network of the digits quick start, the UNet2DModel of diffusers."""

import torch
from diffusers import UNet2DModel

from tests.models.testing import ModelTesterConfig, ModelTesterMixin


class DigitsUNetConfig(ModelTesterConfig):
    model_class = UNet2DModel
    output_shape = (2, 1, 8, 8)

    def get_init_dict(self):
        return {
            "sample_size": 8,
            "in_channels": 1,
            "out_channels": 1,
            "layers_per_block": 1,
            "block_out_channels": (32, 64),
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            "norm_num_groups": 8,
            "num_class_embeds": 11,
        }

    def get_inputs(self):
        sample = torch.randn(self.output_shape, generator=torch.Generator().manual_seed(0))
        return {"sample": sample, "timestep": torch.tensor([700, 20]), "class_labels": torch.tensor([3, 10])}


class TestDigitsUNet(DigitsUNetConfig, ModelTesterMixin):
    pass
