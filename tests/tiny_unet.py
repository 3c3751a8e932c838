"""The smallest UNet2DModel with all of its kinds of layers, for tests of what is built around one."""

import torch
from diffusers import UNet2DModel


def tiny_unet(seed: int = 0, unet_class: type[UNet2DModel] = UNet2DModel, **changes) -> UNet2DModel:
    """Random weights, the same for the same seed; by default for images of 8x8 pixels in colour."""
    config = {
        "sample_size": 8,
        "in_channels": 3,
        "out_channels": 3,
        "layers_per_block": 1,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4,
    }
    torch.manual_seed(seed)
    return unet_class(**{**config, **changes}).eval()
