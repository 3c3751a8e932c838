"""The blur of a shaking camera, and the hole in the centre."""

import pytest
import torch

from diffusers_ext.data.corruptions import load_corruptions
from diffusers_ext.data.corruptions.blur import motion_kernel
from diffusers_ext.data.corruptions.motion_blur import shaken_kernel
from diffusers_ext.training.loop.draws import Draw


def corrupt(task, images, **options):
    draw = Draw(0, torch.device("cpu")).begin(0, range(len(images)))
    return load_corruptions([task], {task: options})[task](images, draw)


def test_without_shake_the_way_is_a_straight_line():
    steps = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(shaken_kernel(6.0, 0.0, 0.5, steps), motion_kernel(6.0, 0.5), atol=5e-3, rtol=0)


def test_a_shaken_kernel_is_centred_and_keeps_the_light():
    kernel = shaken_kernel(15.0, 2.0, 1.0, torch.randn(255, generator=torch.Generator().manual_seed(1)))
    positions = torch.arange(len(kernel)) - len(kernel) // 2
    assert kernel.sum().item() == pytest.approx(1, abs=1e-5) and kernel.min() >= 0
    for axis in (0, 1):
        assert (kernel.sum(axis) * positions).sum().item() == pytest.approx(0, abs=1e-4)
    assert len(kernel) < 17


def test_images_are_blurred_one_by_one():
    images = torch.rand(3, 3, 16, 20, generator=torch.Generator().manual_seed(0)) * 2 - 1
    shown = corrupt("motion_blur", images).conditioning_image
    assert shown.shape == images.shape and (shown - images).abs().mean() > 0.05
    draw = Draw(0, torch.device("cpu")).begin(0, [1])
    alone = load_corruptions(["motion_blur"])["motion_blur"](images[1:2], draw).conditioning_image
    assert torch.equal(alone, shown[1:2])
    still = corrupt("motion_blur", images, length=0).conditioning_image
    torch.testing.assert_close(still, images, atol=1 / 254, rtol=0)
    with pytest.raises(ValueError, match="length"):
        corrupt("motion_blur", images, length=(5, 2))


def test_the_hole_in_the_centre():
    hidden = corrupt("inpainting", torch.zeros(2, 3, 8, 12), center=True).hidden
    assert hidden[:, :, 2:6, 3:9].all() and hidden.sum() == 2 * 4 * 6
