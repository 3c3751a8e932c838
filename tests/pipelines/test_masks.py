import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, EulerDiscreteScheduler
from PIL import Image

from diffusers_ext.pipelines.masks import read_mask
from tests.pipelines.testing import assert_equal
from tests.pipelines.tiny_palette import draw, make_images, make_pipeline, to_picture


BOX = (1, 2, 5, 8)


def painting(mode: str, color, background=0) -> Image.Image:
    picture = Image.new(mode, (8, 8), background)
    picture.paste(color, BOX)
    return picture


def erased_photograph() -> Image.Image:
    picture = to_picture(make_images(1)[0]).convert("RGBA")
    picture.paste((0, 0, 0, 0), BOX)
    return picture


def palette_map(label: int, color: tuple[int, int, int]) -> Image.Image:
    picture = painting("P", label)
    picture.putpalette([0, 0, 0] * label + list(color))
    return picture


def integers(dtype, label: int) -> np.ndarray:
    array = np.zeros((8, 8), dtype=dtype)
    array[2:8, 1:5] = label
    return array


@pytest.mark.parametrize(
    "mask",
    [
        painting("RGB", (255, 0, 0)),
        painting("RGB", (0, 255, 0)),
        painting("RGB", (0, 0, 255)),
        painting("RGB", (90, 0, 0)),
        painting("RGB", (255, 255, 255), (255, 0, 0)),
        painting("L", 7),
        painting("L", 100),
        painting("I;16", 65535),
        painting("I;16", 255),
        painting("I;16", 1),
        palette_map(1, (128, 0, 0)),
        palette_map(7, (64, 0, 0)),
        painting("RGBA", (255, 0, 0, 255), (0, 0, 0, 0)),
        painting("RGBA", (0, 0, 0, 255), (255, 255, 255, 0)),
        painting("RGBA", (0, 0, 255, 255), (0, 0, 0, 255)),
        painting("RGBA", (255, 255, 255, 255), (0, 0, 0, 255)),
        painting("LA", (0, 255), (0, 0)),
        integers(np.uint8, 7),
        integers(np.int64, 7),
        integers(np.uint16, 65535),
        torch.from_numpy(integers(np.int32, 1)),
    ],
    ids=lambda mask: getattr(mask, "mode", type(mask).__name__),
)
def test_kinds_of_masks(mask):
    expected = torch.zeros(1, 8, 8, dtype=torch.bool)
    expected[:, 2:8, 1:5] = True
    assert torch.equal(read_mask(mask, 8, 8), expected)


def test_a_soft_mask_is_told(caplog):
    values = np.tile(np.linspace(0, 1, 8), (8, 1))
    assert torch.equal(read_mask(values, 8, 8)[0], torch.from_numpy(values >= 0.5))
    assert "soft in 75.0% of its pixels" in caplog.text
    caplog.clear()
    read_mask(np.where(values < 0.5, 0.02, 0.97), 8, 8)
    assert not caplog.text


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
            ({"mask_image": "mask.png"}, "`mask_image` .* no file 'mask.png'"),
            ({"mask_image": []}, "empty"),
            ({"mask_image": np.zeros((8, 8))}, "selects no pixel.* from 0 to 0 of 1"),
            ({"mask_image": np.zeros((8, 8), dtype=bool)}, "selects no pixel"),
            ({"mask_image": Image.new("RGBA", (8, 8), (0, 0, 0, 0))}, "selects no pixel"),
            ({"mask_image": np.arange(64, dtype=np.uint8).reshape(8, 8) % 3}, "selects no pixel.*`labels == label`"),
            ({"mask_image": np.arange(64).reshape(8, 8) % 3}, "bytes, but holds torch.int64"),
            ({"mask_image": erased_photograph()}, "the painted or the erased pixels"),
            ({"mask_image": np.full((8, 8), 2.0)}, "from 0 to 1"),
            ({"padding": (0, 0, 0, 0)}, "padding"),
            ({"padding": (-2, 0, 4, 0)}, "padding"),
            ({"padding": 4}, "padding"),
        ],
    )
    def test_bad_masks_are_refused(self, inputs, message):
        with pytest.raises(ValueError, match=message) as caught:
            draw(make_pipeline(), **inputs)
        assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
