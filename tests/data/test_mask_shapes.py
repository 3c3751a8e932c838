import numpy as np
import pytest
import torch

from diffusers_ext.data.corruptions import inpainting, uncropping
from diffusers_ext.data.corruptions.mask_shapes import rectangles_mask, side_mask, stroke_mask
from diffusers_ext.training.loop.draws import Draw


SIZES = [(8, 8), (64, 64), (24, 50)]


def mask(task, count: int, size: tuple[int, int], **options) -> torch.Tensor:
    draw = Draw(0, torch.device("cpu")).begin(0, range(count))
    return task(torch.zeros(count, 1, *size), draw, **options).mask


def is_rectangle(array: np.ndarray) -> bool:
    rows, columns = np.nonzero(array.any(1))[0], np.nonzero(array.any(0))[0]
    return bool(array[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stroke_probability", [0.0, 0.6, 1.0])
def test_areas_are_between_10_and_40_percent_and_everywhere_between(size, stroke_probability):
    areas = mask(inpainting, 120, size, stroke_probability=stroke_probability).mean((1, 2, 3)).numpy()
    assert 0.0999 < areas.min() < 0.14 and 0.36 < areas.max() < 0.4001
    assert abs(areas.mean() - 0.25) < 0.03


def test_three_in_five_masks_are_strokes():
    def strokes(**options) -> float:
        # With at most one rectangle, a mask that is not a rectangle is a stroke.
        masks = mask(inpainting, 300, (32, 32), max_rectangles=1, **options)
        return float(np.mean([not is_rectangle(array) for array in masks[:, 0].numpy() > 0]))

    assert strokes(stroke_probability=1.0) == 1 and strokes(stroke_probability=0.0) == 0
    assert abs(strokes() - 0.6) < 0.09


@pytest.mark.parametrize("area", [(0.25, 0.25), (0.3, 0.32), (0.9, 0.9), (0.01, 0.02)])
def test_narrow_areas(area):
    for draw_mask in (stroke_mask, lambda *arguments: rectangles_mask(*arguments[:3], 5, arguments[3])):
        for size in ((64, 64), (9, 11)):
            hidden = draw_mask(*size, area, np.random.default_rng(0)).mean()
            assert area[0] <= hidden <= max(area[1], area[0] + 1 / (size[0] * size[1]))


def test_numbers_of_rectangles():
    def corners(array: np.ndarray) -> int:
        """Pixels whose upper and left neighbours are not hidden."""
        padded = np.pad(array, 1)[:-1, :-1]
        return int((array & ~padded[:-1, 1:] & ~padded[1:, :-1]).sum())

    found = [corners(rectangles_mask(64, 64, (0.1, 0.2), 5, np.random.default_rng(n))) for n in range(150)]
    assert {1, 2, 3, 4, 5} <= set(found)
    ones = [rectangles_mask(64, 64, (0.1, 0.4), 1, np.random.default_rng(n)) for n in range(20)]
    assert all(is_rectangle(array) for array in ones)
    with pytest.raises(ValueError, match="no 1 rectangles cover 3687 to 3687 of 64x64 pixels: widen area"):
        rectangles_mask(64, 64, (0.9, 0.9), 1, np.random.default_rng(0))  # 3687 = 3 * 1229


def test_masks_reach_everywhere():
    for probability in (0.0, 1.0):
        share = mask(inpainting, 300, (16, 16), stroke_probability=probability).mean((0, 1))
        assert share.min() > 0.05 and share.max() < 0.6


@pytest.mark.parametrize("size", [(1, 30), (30, 1), (2, 2), (3, 200)])
def test_odd_sizes(size):
    for probability in (0.0, 1.0):
        areas = mask(inpainting, 20, size, stroke_probability=probability).mean((1, 2, 3))
        assert 0.0999 < areas.min() and areas.max() < 0.4001


@pytest.mark.parametrize(
    "sides, box",
    [
        ("left", (0, 16, 16, 32)),
        ("right", (0, 16, 0, 16)),
        ("top", (8, 16, 0, 32)),
        ("bottom", (0, 8, 0, 32)),
        ("left+right", (0, 16, 8, 24)),
        ("top+bottom", (4, 12, 0, 32)),
        ("top+left", (5, 16, 9, 32)),
        ("all", (2, 13, 4, 27)),
        ("left+right+top+bottom", (2, 13, 4, 27)),
    ],
)
def test_sides(sides, box):
    top, bottom, left, right = box
    expected = torch.ones(16, 32)
    expected[top:bottom, left:right] = 0
    assert torch.equal(mask(uncropping, 1, (16, 32), sides=sides)[0, 0], expected)


def test_half_of_the_uncropped_images_lose_one_side_and_half_all():
    masks = mask(uncropping, 400, (64, 64))
    assert (masks.mean((1, 2, 3)) - 0.5).abs().max() < 0.02
    edges = {"top": masks[:, 0, 0], "bottom": masks[:, 0, -1], "left": masks[:, 0, :, 0], "right": masks[:, 0, :, -1]}
    lost = torch.stack([edge.amin(1) == 1 for edge in edges.values()])
    assert set(lost.sum(0).tolist()) == {1, 4}
    ones = lost[:, lost.sum(0) == 1].float()
    assert abs(ones.shape[1] / 400 - 0.5) < 0.1
    assert (ones.mean(1) - 0.25).abs().max() < 0.1


def test_something_is_always_kept_and_lost():
    for area in (0.001, 0.999):
        for sides in ({"left"}, {"left", "right"}, {"left", "right", "top", "bottom"}):
            hidden = side_mask(8, 8, sides, area)
            assert hidden.any() and not hidden.all()
