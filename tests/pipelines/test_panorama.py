import math

import numpy as np
import pytest
import torch

from diffusers_ext.pipelines.panorama import blend_seam, kept_columns
from tests.pipelines.testing import assert_equal
from tests.pipelines.tiny_palette import make_images, make_pipeline, make_unet, note_calls, to_picture


class TestPanorama:
    def extend(self, pipe, image, width, **inputs):
        generator = torch.Generator().manual_seed(0)
        return pipe.panorama(image, width, generator=generator, **{"output_type": "pt", **inputs}).images

    @pytest.mark.parametrize(("side", "left"), [("both", 9), ("left", 19), ("right", 0)])
    def test_the_image_is_in_it(self, side, left):
        image = make_images(2, 6, 8)
        panorama = self.extend(make_pipeline(), image, 27, side=side)
        assert panorama.shape == (2, 3, 6, 27)
        assert_equal(panorama[..., left : left + 8], image)
        assert not (panorama[..., :1] == panorama[..., 1:2]).all()

    def test_windows_overlap_by_half(self):
        pipe = make_pipeline(tasks=["uncropping"])
        calls = note_calls(pipe)
        panorama = self.extend(pipe, make_images(1), 24, side="right", num_inference_steps=1) * 2 - 1
        assert len(calls) == 5  # each window but the last keeps three of its four new columns
        for i, (sample, _) in enumerate(calls):
            start = 4 + 3 * i
            torch.testing.assert_close(sample[..., :3, :, :4], panorama[..., start : start + 4], rtol=0, atol=1e-6)

    def test_pictures_classes_and_several_of_each(self):
        pipe = make_pipeline(unet=make_unet(num_class_embeds=3))
        pictures = [to_picture(image) for image in make_images(2)]
        inputs = {"class_labels": [0, 2], "num_images_per_input": 2, "output_type": "pil", "tile_size": 8}
        panoramas = self.extend(pipe, pictures, 16, **inputs)
        assert [panorama.size for panorama in panoramas] == [(16, 8)] * 4
        for panorama, picture in zip(panoramas, [pictures[0]] * 2 + [pictures[1]] * 2, strict=True):
            np.testing.assert_array_equal(np.asarray(panorama)[:, 4:12], np.asarray(picture))
        assert panoramas[0] != panoramas[1]

    @pytest.mark.parametrize("new", [1, 3, 4, 32])
    def test_windows_give_what_is_missing_and_all_but_the_last_keep_back_a_quarter(self, new):
        for missing in range(100):
            kept = kept_columns(missing, new)
            assert sum(kept) == missing and all(count == new - new // 4 for count in kept[:-1])
            assert all(0 < count <= new for count in kept)

    def test_colours_go_on_at_the_seam_and_the_difference_fades(self):
        edge, new = torch.full((2, 3, 6, 1), 0.7), torch.full((2, 3, 6, 9), 0.5)
        edge[1] = 0.2
        blended = blend_seam(new, edge, 3.0)
        torch.testing.assert_close(blended[..., 2] - 0.5, (edge[..., 0] - 0.5) / math.e)
        assert (blended - new).abs()[..., -1].max() < 0.03
        assert blend_seam(new, edge, 0) is new

    def test_what_fades_solves_the_screened_poisson_equation(self):
        """The five-point Laplacian of a smooth correction equals the correction divided by the squared width."""
        rows = torch.linspace(0, math.pi, 65, dtype=torch.float64)[:-1] + math.pi / 128
        edge = 0.5 + 0.2 * rows.cos()[:, None].expand(1, 1, -1, 1)
        added = blend_seam(torch.full((1, 1, 64, 32), 0.5, dtype=torch.float64), edge, 10.0) - 0.5
        inner = added[..., 1:-1, 1:-1]
        neighbours = added[..., 2:, 1:-1] + added[..., :-2, 1:-1] + added[..., 1:-1, 2:] + added[..., 1:-1, :-2]
        torch.testing.assert_close(neighbours - 4 * inner, inner / 10**2, atol=1e-5, rtol=0)

    def test_the_grain_of_an_edge_makes_no_streaks(self):
        grain = torch.tensor([0.4, 0.6]).repeat(8)[None, None, :, None]
        added = blend_seam(torch.full((1, 1, 16, 8), 0.5), grain, 4.0) - 0.5
        assert added[..., 4:-4, 2:].abs().max() < 2e-3  # the grain is 0.1
        assert added[..., 4:-4, 0].abs().max() > 2e-3

    def test_blending_leaves_the_image_alone_and_brings_its_neighbours_nearer(self):
        image = make_images(2, 6, 8)
        plain, blended = (
            self.extend(make_pipeline(), image, 14, num_inference_steps=1, blend_width=width) for width in (0, 4)
        )
        assert_equal(blended[..., 3:11], image)
        for known, new in ((3, 2), (10, 11)):
            steps = [(made[..., known] - made[..., new]).abs().mean() for made in (plain, blended)]
            assert steps[1] < steps[0]

    def test_mirrored_grain_goes_on_and_passes_into_what_is_made(self):
        pipe, image = make_pipeline(conditioning_fill="mirror"), make_images(2, 8, 8)
        plain, far, near = (
            self.extend(pipe, image, 14, num_inference_steps=1, blend_width=width) for width in (0, 1000, 1e-3)
        )
        for wide in (plain, far, near):
            assert_equal(wide[..., 3:11], image)
        torch.testing.assert_close(far[..., :3], image[..., :1].expand(-1, -1, -1, 3), rtol=0, atol=0.02)
        torch.testing.assert_close(far[..., 11:], image[..., -1:].expand(-1, -1, -1, 3), rtol=0, atol=0.02)
        torch.testing.assert_close(near, plain)

    def test_no_wider_is_no_work(self):
        assert_equal(self.extend(make_pipeline(), make_images(1), 8), make_images(1))

    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            ({"width": 4}, "`width`"),
            ({"width": "wide"}, "`width`"),
            ({"side": "top"}, "`side`"),
            ({"window_width": 32}, "at least 16 pixels"),
            ({"window_width": 0}, "window_width"),
            ({"blend_width": -1}, "blend_width"),
            ({"blend_width": math.nan}, "blend_width"),
            ({"blend_width": "wide"}, "blend_width"),
            ({"output_type": "jpg"}, "output_type"),
            ({"class_labels": 1}, "no classes"),
        ],
    )
    def test_bad_input_is_refused(self, inputs, message):
        with pytest.raises(ValueError, match=message):
            self.extend(make_pipeline(), **{"image": make_images(1), "width": 16, **inputs})

    def test_needs_a_network_that_uncrops(self):
        with pytest.raises(ValueError, match="not trained.*'uncropping'"):
            self.extend(make_pipeline(tasks=["inpainting"]), make_images(1), 16)
