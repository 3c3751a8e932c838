import pytest
import torch

from diffusers_ext.training.evaluation.grids import sample_grid


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_grids_take_any_channels_and_long_names(channels):
    images = torch.zeros(10, channels, 8, 12, dtype=torch.uint8)
    grid = sample_grid(images, columns=5, titles=["a class with a very long name"] * 5)
    assert grid.mode == "RGB" and grid.width > 5 * 48 and grid.getpixel((0, 0)) == (255, 255, 255)
