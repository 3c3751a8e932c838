import numpy as np
import pytest
import torch
import torch.nn.functional as F

from diffusers_ext.pipelines.fills import fill_padding, layered_fill, mirror_fill, smooth_fill
from diffusers_ext.pipelines.pipeline_palette import PalettePipeline
from tests.pipelines.testing import assert_equal
from tests.pipelines.tiny_palette import draw, make_images, make_pipeline, note_calls


class TestSmoothFill:
    @pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 5), (16, 64)])
    def test_visible_pixels_stay_and_others_lie_between_them(self, shape):
        images = make_images(2, *shape)
        hidden = torch.rand(2, 1, *shape, generator=torch.Generator().manual_seed(0)) < 0.7
        hidden[:, :, 0, 0] = False
        filled = smooth_fill(images, hidden)
        torch.testing.assert_close(torch.where(hidden, images, filled), images, rtol=0, atol=0)
        lowest, highest = images.masked_fill(hidden, 1).amin((2, 3)), images.masked_fill(hidden, 0).amax((2, 3))
        assert (filled.amin((2, 3)) >= lowest - 1e-6).all() and (filled.amax((2, 3)) <= highest + 1e-6).all()
        assert_equal(filled[1:], smooth_fill(images[1:], hidden[1:]))

    def test_a_gap_is_a_ramp_from_edge_to_edge(self):
        images, hidden = torch.full((1, 1, 32, 32), 0.8), torch.zeros(1, 1, 32, 32)
        images[..., :8], hidden[..., 8:24] = 0.2, 1
        ramp = torch.linspace(0.2, 0.8, 18)[1:-1].expand(1, 1, 32, 16)
        torch.testing.assert_close(smooth_fill(images, hidden)[..., 8:24], ramp, rtol=0, atol=0.03)

    def test_a_horizon_goes_on_and_softens(self):
        images, hidden = torch.zeros(1, 1, 32, 64), torch.zeros(1, 1, 32, 64)
        images[:, :, :16], hidden[..., 32:] = 1, 1
        contrast = smooth_fill(images, hidden)[:, :, (0, -1)].diff(dim=2).abs().flatten()
        assert contrast[31] == 1 and (contrast[32:].diff() <= 1e-3).all() and 0.05 < contrast[-1] < 0.5

    @pytest.mark.parametrize(("name", "fill"), [("smooth", smooth_fill), ("mirror", mirror_fill)])
    def test_a_network_may_be_shown_it(self, tmp_path, name, fill):
        make_pipeline(conditioning_fill=name).save_pretrained(tmp_path)
        pipe = PalettePipeline.from_pretrained(tmp_path)
        calls, image, hidden = note_calls(pipe), make_images(1), torch.zeros(1, 1, 8, 8)
        hidden[..., :3] = 1
        draw(pipe, image, mask_image=(0, 0, 3, 8))
        torch.testing.assert_close(calls[0][0][:, :3], fill(image * 2 - 1, hidden))

    def test_layers_go_on_further_sideways(self):
        images, hidden = torch.zeros(1, 1, 32, 64), torch.zeros(1, 1, 32, 64)
        images[:, :, :16], hidden[..., 32:] = 1, 1
        contrasts = [
            fill(images, hidden)[:, :, (0, -1)].diff(dim=2).abs().flatten()[32:]
            for fill in (smooth_fill, layered_fill)
        ]
        assert (contrasts[1] > contrasts[0])[4:].all() and contrasts[1][-1] > 2 * contrasts[0][-1]
        assert_equal(layered_fill(images, hidden)[..., :32], images[..., :32])

    @pytest.mark.parametrize("padding", [(1, 0, 0, 0), (3, 2, 1, 5), (0, 0, 9, 0), (0, 7, 0, 0)])
    def test_layers_of_one_colour_are_of_one_colour(self, padding):
        padded, hidden = fill_padding(torch.full((2, 3, 3, 2), 0.3), padding, is_mirrored=False)
        torch.testing.assert_close(padded, torch.full_like(padded, 0.3))
        assert hidden.sum() == padded[:, :1].numel() - 12

    def test_nothing_hidden_changes_nothing_and_nothing_visible_is_grey(self):
        images = make_images(1)
        assert smooth_fill(images, torch.zeros(1, 1, 8, 8)) is images
        assert_equal(smooth_fill(images, torch.ones(1, 1, 8, 8)), torch.zeros_like(images))


class TestMirrorFill:
    @pytest.mark.parametrize("sides", [(0, 0, 5, 0), (9, 0, 9, 0), (0, 2, 0, 30), (3, 1, 4, 7)])
    def test_it_pads_as_numpy_does(self, sides):
        left, top, right, bottom = sides
        images = make_images(2, 4, 3)
        padded, hidden = (F.pad(x, (left, right, top, bottom), value=1.0) for x in (images, 0 * images[:, :1]))
        expected = np.pad(images.numpy(), ((0, 0), (0, 0), (top, bottom), (left, right)), mode="symmetric")
        assert_equal(mirror_fill(padded, hidden), torch.from_numpy(expected))

    def test_padding_is_first_filled_with_the_outermost_quarters(self):
        images = make_images(2, 4, 8)
        padded, hidden = fill_padding(images, (5, 2, 3, 0), is_mirrored=True)
        columns = torch.tensor([0, 0, 1, 1, 0, *range(8), 7, 6, 6])
        assert_equal(padded, images[..., columns][..., [0, 0, *range(4)], :])
        assert hidden.sum() == 2 * (6 * 16 - 32)

    def test_each_image_has_its_own_box_and_holes_are_filled_smoothly_first(self):
        images, hidden = make_images(3), torch.zeros(3, 1, 8, 8)
        hidden[0, ..., 4:], hidden[1, :, :6], hidden[2, :, 3:5, 2:4] = 1, 1, 1
        filled = mirror_fill(images, hidden)
        assert_equal(filled[0], torch.cat([images[0, ..., :4], images[0, ..., :4].flip(2)], dim=2))
        assert_equal(filled[1], torch.cat([images[1, :, 6:].flip(1), images[1, :, 6:]] * 2, dim=1))
        assert_equal(filled[2], smooth_fill(images, hidden)[2])

    def test_nothing_hidden_changes_nothing_and_nothing_visible_is_grey(self):
        images = make_images(1)
        assert_equal(mirror_fill(images, torch.zeros(1, 1, 8, 8)), images)
        assert_equal(mirror_fill(images, torch.ones(1, 1, 8, 8)), torch.zeros_like(images))
