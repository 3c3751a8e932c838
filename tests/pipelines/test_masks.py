import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, EulerDiscreteScheduler
from PIL import Image

from tests.pipelines.testing import assert_equal
from tests.pipelines.tiny_palette import draw, make_images, make_pipeline


class TestVisiblePixels:
    @pytest.mark.parametrize("scheduler", [DDPMScheduler(), EulerDiscreteScheduler()], ids=["ddpm", "euler"])
    def test_pictures_keep_every_byte(self, scheduler):
        pipe = make_pipeline(scheduler=scheduler)
        values = np.arange(256, dtype=np.uint8).reshape(16, 16)
        array = np.stack([values, values[::-1], values.T], axis=2)
        result = np.array(draw(pipe, Image.fromarray(array), mask_image=(4, 0, 12, 8), output_type="pil")[0])
        changed = (result != array).any(axis=2)
        assert not changed[8:].any() and not changed[:, :4].any() and not changed[:, 12:].any()
        assert changed[:8, 4:12].mean() > 0.9

    def test_tensors_keep_every_bit(self):
        pipe, image = make_pipeline(), torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        images = draw(pipe, image, mask_image=(0, 0, 4, 8), num_images_per_input=2)
        assert_equal(images[..., 4:], image.repeat_interleave(2, dim=0)[..., 4:])
        assert not torch.equal(images[0], images[1])

    def test_forms_of_a_mask(self):
        pipe, images = make_pipeline(), make_images(2)
        array = np.zeros((8, 8), dtype=np.float32)
        array[2:8, 1:5] = 1
        picture = Image.fromarray((array * 255).astype(np.uint8))
        drawing = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
        drawing.paste((255, 255, 255, 255), (1, 2, 5, 8))
        expected = draw(pipe, images, mask_image=(1, 2, 5, 8))
        for mask in (
            [1, 2, 5, 8],
            picture,
            picture.convert("RGB"),
            picture.convert("1"),
            drawing,
            array,
            array.astype(bool),
            array.astype(np.uint8),
            Image.fromarray(array.astype(np.uint8)),
            array.astype(">f4"),
            array[:, :, None],
            torch.from_numpy(array),
            torch.from_numpy(array)[None, None],
            [(1, 2, 5, 8), picture],
            [[(1, 2, 5, 6), (1, 4, 5, 8)], array],
        ):
            assert_equal(draw(pipe, images, mask_image=mask), expected)
        alone = draw(pipe, images[:1], mask_image=(1, 2, 5, 8))
        assert_equal(draw(pipe, images[:1], mask_image=[(1, 2, 5, 6), (1, 4, 5, 8)]), alone)

    def test_a_mask_for_each_image(self):
        images = make_images(2)
        results = draw(make_pipeline(), images, mask_image=[(0, 0, 4, 8), (4, 0, 8, 8)])
        assert_equal(results[0, ..., 4:], images[0, ..., 4:])
        assert_equal(results[1, ..., :4], images[1, ..., :4])
        assert not (results == images).all(dim=1)[0, :, :4].any()

    def test_nothing_to_make(self):
        image = make_images(1)
        assert_equal(draw(make_pipeline(), image, mask_image=np.zeros((8, 8))), image)

    @pytest.mark.parametrize("padding", [(4, 0, 0, 0), (0, 2, 0, 0), (0, 0, 6, 0), (0, 0, 0, 4), (2, 4, 4, 2)])
    @pytest.mark.parametrize("strength", [1.0, 0.5])
    def test_uncropping(self, padding, strength):
        pipe, image = make_pipeline(), make_images(1, 10, 8)
        left, top, right, bottom = padding
        wider = draw(pipe, image, padding=padding, strength=strength)
        assert wider.shape[2:] == (10 + top + bottom, 8 + left + right)
        assert_equal(wider[:, :, top : top + 10, left : left + 8], image)

    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            ({"mask_image": np.ones((8, 6))}, "size of the image, 8 x 8 pixels, but has 6 x 8"),
            ({"mask_image": Image.new("L", (4, 4))}, "4 x 4"),
            ({"mask_image": [np.ones((8, 8))] * 2}, "1, one per image, but is 2"),
            ({"mask_image": (0, 0, 9, 8)}, r"\(0, 0, 9, 8\).*8 x 8"),
            ({"mask_image": (4, 0, 4, 8)}, "does not lie"),
            ({"mask_image": (-1, 0, 4, 8)}, "does not lie"),
            ({"mask_image": [(0, 0, 4, 8), (0, 0, 4)]}, "`mask_image`"),
            ({"mask_image": [[(0, 0, 4)]]}, "left, top, right, bottom"),
            ({"mask_image": "mask.png"}, "str"),
            ({"mask_image": []}, "empty"),
            ({"mask_image": np.full((8, 8), 2.0)}, "from 0 to 1"),
            ({"padding": (0, 0, 0, 0)}, "padding"),
            ({"padding": (-2, 0, 4, 0)}, "padding"),
            ({"padding": 4}, "padding"),
            ({"padding": (1, 0, 0, 0)}, "width.*multiple of 2.*9"),
        ],
    )
    def test_bad_masks_are_refused(self, inputs, message):
        with pytest.raises(ValueError, match=message) as caught:
            draw(make_pipeline(), **inputs)
        assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
