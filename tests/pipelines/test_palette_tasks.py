import numpy as np
import pytest
import torch
from PIL import Image

from diffusers_ext.data.corruptions import CORRUPTIONS
from diffusers_ext.data.corruptions.resampling import resample
from diffusers_ext.pipelines.palette_tasks import Task, parse_task
from diffusers_ext.training.loop.draws import Draw
from tests.pipelines.testing import assert_equal
from tests.pipelines.tiny_palette import draw, make_images, make_pipeline, note_calls, to_picture


@pytest.mark.parametrize(
    ("name", "properties"),
    [
        ("inpainting", {"inpaints", "takes_mask", "keeps_pixels", "needs_arguments"}),
        ("uncropping", {"uncrops", "takes_mask", "keeps_pixels", "needs_arguments"}),
        ("colorization", {"removes_color"}),
        ("super_resolution+denoising", {"enlarges", "needs_arguments"}),
        ("inpainting+deblurring", {"inpaints", "takes_mask", "needs_arguments"}),
        ("my_module:my_holes", {"takes_mask", "keeps_pixels"}),
        ("translation", set()),
    ],
)
def test_a_task_is_what_its_parts_are(name, properties):
    task = parse_task(name)
    found = {key for key, value in vars(Task).items() if isinstance(value, property) and getattr(task, key)}
    assert (task.name, found) == (name, properties)


class TestTasks:
    ALL = ["colorization", "inpainting", "uncropping", "jpeg_restoration", "super_resolution"]

    @pytest.mark.parametrize(
        ("tasks", "inputs", "task"),
        [
            (ALL, {"mask_image": (0, 0, 4, 4)}, "inpainting"),
            (ALL, {"padding": (4, 0, 0, 0)}, "uncropping"),
            (ALL, {"scale_factor": 2}, "super_resolution"),
            (ALL, {"height": 16, "width": 16}, "super_resolution"),
            (ALL, {}, "jpeg_restoration"),
            (ALL, {"image": make_images(1, channels=1)}, "colorization"),
            (ALL, {"image": make_images(1, channels=1).repeat(1, 3, 1, 1)}, "colorization"),
            (ALL, {"task": "colorization"}, "colorization"),
            (["colorization", "inpainting"], {}, "colorization"),
            (ALL, {"task": "uncropping", "mask_image": (0, 0, 4, 8)}, "uncropping"),
            (["uncropping"], {"mask_image": (0, 0, 4, 8)}, "uncropping"),
            (["deblurring"], {}, "deblurring"),
            (["deblurring", "denoising"], {"task": "denoising"}, "denoising"),
            (["my_module:my_holes"], {"mask_image": (0, 0, 4, 8)}, "my_module:my_holes"),
            (["my_module:my_holes"], {}, "my_module:my_holes"),
            (None, {}, "translation"),
            (None, {"mask_image": (0, 0, 4, 4)}, "inpainting"),
            (None, {"task": "denoising"}, "denoising"),
        ],
    )
    def test_inference(self, tasks, inputs, task):
        pipe = make_pipeline(tasks=tasks)
        assert pipe.prepare_images(**{"image": make_images(1), **inputs})[0] == task
        assert draw(pipe, **inputs).isfinite().all()

    def test_colorization_makes_gray(self):
        pipe, image = make_pipeline(), make_images(1)
        picture = to_picture(image[0])
        expected = draw(pipe, picture.convert("L"), task="colorization")
        assert_equal(draw(pipe, picture, task="colorization"), expected)
        assert_equal(draw(pipe, picture.convert("L").convert("RGB"), task="translation"), expected)

    def test_conditions_are_those_of_training(self):
        images = make_images(2, 16, 16) * 2 - 1
        random = Draw(0, torch.device("cpu")).begin(0, [0, 1])
        pipe = make_pipeline(tasks=list(CORRUPTIONS))
        small = resample((images + 1) * 127.5, (4, 4)) / 255
        for task, inputs in {
            "colorization": {"image": images / 2 + 0.5},
            "super_resolution": {"image": small, "scale_factor": 4},
        }.items():
            expected = CORRUPTIONS[task](images, random).conditioning_image
            _, condition, hidden = pipe.prepare_images(task=task, **inputs)
            torch.testing.assert_close(condition * 2 - 1, expected, rtol=0, atol=1e-6)
            assert hidden is None

    def test_combinations(self):
        tasks = ["colorization+inpainting", "super_resolution+denoising", "inpainting+uncropping"]
        pipe, image = make_pipeline(tasks=tasks), make_images(1)
        inputs = {"task": tasks[0], "mask_image": (0, 0, 4, 8)}
        calls = note_calls(pipe)
        result = draw(pipe, image, **inputs)
        gray = pipe.prepare_images(image, **inputs)[1]
        assert torch.equal(gray[:, 0], gray[:, 1])
        for sample, _ in calls:
            torch.testing.assert_close(sample[:, :3, :, 4:], gray[..., 4:] * 2 - 1)
            assert not torch.allclose(sample[:, 3:, :, 4:], gray[..., 4:] * 2 - 1, atol=0.1)
        assert not (result[..., 4:] == gray[..., 4:]).any()

        assert draw(pipe, image, scale_factor=2).shape[2:] == (16, 16)
        assert_equal(draw(pipe, image, task=tasks[2], mask_image=(0, 0, 4, 8))[..., 4:], image[..., 4:])
        with pytest.raises(ValueError, match="needs `mask_image`"):
            draw(pipe, image, task=tasks[0])
        with pytest.raises(ValueError, match="no task"):
            draw(make_pipeline(), image, task="denoising+sharpening")

    def test_super_resolution(self):
        pipe = make_pipeline(default_scale_factor=2)
        picture = Image.fromarray(np.add.outer(np.arange(8), np.arange(6)).astype(np.uint8) * 10 + 50)
        image = pipe.prepare_images(picture, scale_factor=4)[1]
        expected = np.asarray(picture.resize((24, 32), Image.Resampling.BICUBIC))
        np.testing.assert_allclose(image[0, 0] * 255, expected, atol=1.01)
        assert draw(pipe, picture, task="super_resolution").shape[2:] == (16, 12)
        assert draw(pipe, picture, height=10, width=18).shape[2:] == (10, 18)
        assert draw(pipe, make_images(1, 4, 4), scale_factor=1.5).shape[2:] == (6, 6)
        # with a factor of 1, the image is the condition itself
        assert_equal(pipe.prepare_images(make_images(1), scale_factor=1)[1], make_images(1))

    @pytest.mark.parametrize(
        ("tasks", "inputs", "message"),
        [
            (["colorization"], {"task": "inpainting", "mask_image": (0, 0, 4, 4)}, "not trained.*colorization"),
            (["colorization"], {"mask_image": (0, 0, 4, 4)}, "not trained.*'inpainting'"),
            (["colorization"], {"padding": (4, 0, 0, 0)}, "not trained.*'uncropping'"),
            (["colorization"], {"task": "deblurring"}, "not trained"),
            (None, {"task": "inpaintng"}, "no task 'inpaintng'"),
            (ALL, {"task": "inpainting"}, "needs `mask_image`"),
            (["inpainting"], {}, "needs `mask_image`"),
            (["uncropping"], {}, "needs `padding`"),
            (["uncropping"], {"padding": (2, 0, 0, 0), "mask_image": (0, 0, 2, 2)}, "or else"),
            (["super_resolution"], {}, "scale_factor"),
            (["super_resolution"], {"height": 16}, "both"),
            (["super_resolution"], {"height": 16, "width": 16, "scale_factor": 2}, "either"),
            (["super_resolution"], {"scale_factor": 0.5}, "scale_factor"),
            (["super_resolution"], {"scale_factor": "2"}, "scale_factor"),
            (["super_resolution"], {"height": 4, "width": 16}, "height"),
            (["deblurring", "denoising"], {}, "pass `task`, one of deblurring, denoising"),
            (ALL, {"task": "colorization", "mask_image": (0, 0, 2, 2)}, "`mask_image`.*colorization"),
            (ALL, {"task": "inpainting", "padding": (2, 0, 0, 0)}, "`padding`.*inpainting"),
            (ALL, {"task": "jpeg_restoration", "scale_factor": 2}, "`scale_factor`.*jpeg"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, tasks, inputs, message):
        with pytest.raises(ValueError, match=message) as caught:
            draw(make_pipeline(tasks=tasks), **inputs)
        assert str(caught.value).endswith(".") and "\n" not in str(caught.value)

    @pytest.mark.parametrize("tasks", ["inpainting", [], [1]])
    def test_bad_tasks(self, tasks):
        with pytest.raises(ValueError, match="`tasks`"):
            make_pipeline(tasks=tasks)
