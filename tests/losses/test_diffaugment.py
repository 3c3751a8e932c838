import pytest
import torch

from diffusers_ext.losses import diff_augment
from diffusers_ext.training.loop.draws import Draw


def draw(rows=range(64), step=0):
    return Draw(3, torch.device("cpu")).begin(step, rows)


class Fixed:
    """Draws the same number for each sample."""

    def __init__(self, count: int, *values: float):
        self.count, self.values = count, iter(values)

    def uniform(self, *shape):
        return torch.tensor([next(self.values) for _ in range(shape[0])]).view(1, *shape).expand(self.count, *shape)


@pytest.fixture
def images():
    return torch.rand(64, 3, 16, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_an_image_depends_on_its_own_stream_only(images):
    policy = ["color", "translation", "cutout"]
    whole = diff_augment(images, policy, draw())
    part = diff_augment(images[16:32], policy, draw(range(16, 32)))
    torch.testing.assert_close(whole[16:32], part, rtol=0, atol=0)
    assert not torch.equal(whole, diff_augment(images, policy, draw(step=1)))


def test_middle_numbers_change_no_colour(images):
    torch.testing.assert_close(diff_augment(images, ["color"], Fixed(64, 0.5, 0.5, 0.5)), images)


def test_colours_are_moved_as_published(images):
    brighter = diff_augment(images, ["color"], Fixed(64, 1.0, 0.5, 0.5))
    torch.testing.assert_close(brighter, images + 0.5)
    grey = diff_augment(images, ["color"], Fixed(64, 0.5, 0.0, 0.5))
    torch.testing.assert_close(grey, images.mean(1, keepdim=True).expand_as(images))
    mean = images.mean((1, 2, 3), keepdim=True)
    flat = diff_augment(images, ["color"], Fixed(64, 0.5, 0.5, 0.0))
    torch.testing.assert_close(flat, mean + (images - mean) / 2)


def test_translation_moves_whole_pixels_and_fills_with_zero(images):
    # 16 rows move by -2 to 2 and 12 columns by -2 to 2 (an eighth, rounded half up).
    up_left = diff_augment(images, ["translation"], Fixed(64, 0.0, 0.0))
    torch.testing.assert_close(up_left[:, :, :14, :10], images[:, :, 2:, 2:])
    assert up_left[:, :, 14:].eq(0).all() and up_left[:, :, :, 10:].eq(0).all()
    down = diff_augment(images, ["translation"], Fixed(64, 0.999, 0.5))
    torch.testing.assert_close(down[:, :, 2:], images[:, :, :14])
    assert down[:, :, :2].eq(0).all()


def test_every_shift_and_every_place_is_drawn():
    ones = torch.ones(500, 1, 8, 8)
    shifted = diff_augment(ones, ["translation"], draw(range(500)))
    empty_rows = shifted.sum((1, 3)).eq(0)
    assert {(bool(first), bool(last)) for first, last in empty_rows[:, [0, -1]].tolist()} == {
        (False, False),
        (True, False),
        (False, True),
    }
    cut = diff_augment(ones, ["cutout"], draw(range(500))).eq(0)
    sizes = set(cut.sum((1, 2, 3)).tolist())
    assert max(sizes) == 16 and min(sizes) == 4  # the whole square, or its part in a corner
    assert cut.float().mean(0).min() > 0.05


def test_gradients_pass_through_twice(images):
    samples = images[:2].double().requires_grad_()
    augmented = diff_augment(samples, ["color", "translation", "cutout"], draw(range(2)))
    (gradient,) = torch.autograd.grad(augmented.pow(3).sum(), samples, create_graph=True)
    gradient.square().sum().backward()
    assert samples.grad.isfinite().all() and samples.grad.abs().sum() > 0


def test_one_channel_has_brightness_and_contrast_only():
    images = torch.rand(4, 1, 8, 8)
    saturated = diff_augment(images, ["color"], Fixed(4, 0.5, 1.0, 0.5))
    torch.testing.assert_close(saturated, images)


def test_unknown_augmentations_are_refused(images):
    with pytest.raises(
        ValueError, match="DiffAugment has the augmentations color, translation, cutout, not colour, blur"
    ):
        diff_augment(images, ["colour", "cutout", "blur"], draw())
