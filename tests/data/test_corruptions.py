import io
import math

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from diffusers_ext.data.corruptions import (
    CORRUPTIONS,
    Corruption,
    colorization,
    deblurring,
    denoising,
    describe_corruptions,
    inpainting,
    jpeg_restoration,
    load_corruptions,
    super_resolution,
    uncropping,
)
from diffusers_ext.data.corruptions.blur import convolve, gaussian_kernel, motion_kernel
from diffusers_ext.data.corruptions.jpeg import sample_qualities
from diffusers_ext.data.corruptions.levels import from_levels, to_levels
from diffusers_ext.pixels import to_pixel_values
from diffusers_ext.training.loop.draws import Draw

from .drawing import photo


MASKED = ("inpainting", "uncropping")
COMBINATIONS = ("deblurring+jpeg_restoration", "inpainting+denoising", "inpainting+uncropping")


def drawing(count: int, seed: int = 0, rows=None) -> Draw:
    return Draw(seed, torch.device("cpu")).begin(0, range(count) if rows is None else rows)


def photos(count: int, height: int = 24, width: int = 40, channels: int = 3) -> torch.Tensor:
    """Different images, (N, C, H, W) in [-1, 1]."""
    return to_pixel_values(torch.stack([photo(height, width, channels).roll(7 * n, -1) for n in range(count)]))


def pictures(images: torch.Tensor) -> list[Image.Image]:
    arrays = ((images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array) for array in arrays]


def levels(picture: Image.Image) -> torch.Tensor:
    array = np.array(picture)
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1).float()


def corrupt(task: str, images: torch.Tensor, draw: Draw, **options) -> Corruption:
    return load_corruptions([task], {task: options} if options else None)[task](images, draw)


@pytest.mark.parametrize("task", [*CORRUPTIONS, *COMBINATIONS])
@pytest.mark.parametrize("size", [(8, 8), (24, 40), (33, 17)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_task_on_every_kind_of_image(task, size, channels):
    images = photos(5, *size, channels)
    before = images.clone()
    if task == "colorization" and channels == 1:
        with pytest.raises(ValueError, match="colorization needs images of 3 channels, not 1"):
            corrupt(task, images, drawing(5))
        return
    corruption = corrupt(task, images, drawing(5))
    shown, mask = corruption.conditioning_image, corruption.mask
    assert torch.equal(images, before)
    assert shown.shape == images.shape and shown.dtype == torch.float32 and shown.is_contiguous()
    assert not torch.equal(shown, images)
    assert (mask is not None) == (task in (*MASKED, "inpainting+uncropping"))
    if mask is None and "inpainting" not in task:
        assert shown.abs().max() <= 1
        assert torch.equal(from_levels(to_levels(shown)), shown)  # the levels of a file
    elif mask is not None:
        assert mask.shape == (5, 1, *size) and mask.dtype == torch.float32 and set(mask.unique().tolist()) == {0, 1}
        known = (mask == 0).expand_as(images)
        assert torch.equal(shown[known], images[known])


@pytest.mark.parametrize("task", [*CORRUPTIONS, *COMBINATIONS])
def test_a_sample_depends_on_its_own_stream_only(task):
    images = photos(6)
    whole = corrupt(task, images, drawing(6))
    rows = [4, 1]
    part = corrupt(task, images[rows], drawing(2, rows=rows))
    assert torch.equal(part.conditioning_image, whole.conditioning_image[rows])
    assert whole.mask is None or torch.equal(part.mask, whole.mask[rows])
    again = corrupt(task, images, drawing(6))
    assert torch.equal(again.conditioning_image, whole.conditioning_image)
    other = corrupt(task, images, drawing(6, seed=1))
    is_random = task not in ("colorization", "super_resolution")
    assert torch.equal(other.conditioning_image, whole.conditioning_image) != is_random


def test_global_random_state_is_neither_read_nor_changed():
    images = photos(4)
    for task in CORRUPTIONS:
        torch.manual_seed(0), np.random.seed(0)
        first = corrupt(task, images, drawing(4)).conditioning_image
        untouched = torch.rand(1), np.random.rand()
        torch.manual_seed(0), np.random.seed(0)
        assert (torch.rand(1), np.random.rand()) == untouched
        assert torch.equal(corrupt(task, images, drawing(4)).conditioning_image, first)


def test_levels_are_those_of_files():
    every = torch.arange(256, dtype=torch.uint8)
    images = to_pixel_values(every)
    assert torch.equal(to_levels(images), every.float()) and torch.equal(from_levels(every.float()), images)
    assert to_levels(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


def test_colorization_is_pillows_luma():
    images = to_pixel_values(torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0)))
    shown = colorization(images, None).conditioning_image
    expected = torch.stack([levels(picture.convert("L")) for picture in pictures(images)])
    assert torch.equal(to_levels(shown), expected.expand(2, 3, 64, 64))
    assert not torch.equal(shown, images.mean(1, keepdim=True).expand(2, 3, 64, 64))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("factor", [2, 3, 4, 8, 2.5])
@pytest.mark.parametrize("downsampling, filter", [("bicubic", Image.BICUBIC), ("bilinear", Image.BILINEAR)])
def test_super_resolution_is_pillows(channels, factor, downsampling, filter):
    images = photos(2, 64, 96, channels)
    shown = to_levels(super_resolution(images, None, factor=factor, downsampling=downsampling).conditioning_image)
    small = (round(96 / factor), round(64 / factor))
    resized = [picture.resize(small, filter).resize((96, 64), Image.BICUBIC) for picture in pictures(images)]
    difference = (shown - torch.stack([levels(picture) for picture in resized])).abs()
    if channels in (2, 4):  # a colour is as uncertain as its alpha is small
        difference = (difference * shown[:, -1:] / 255).floor()
    assert difference.max() <= (4 if channels in (2, 4) else 2) and (difference > 0).float().mean() < 0.01


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("super_resolution", {"factor": 4}),
        ("super_resolution", {"factor": 4, "downsampling": "area"}),
        ("deblurring", {"kernels": ["gaussian"], "sigma": 2}),
        ("deblurring", {"kernels": ["motion"], "length": 9}),
    ],
)
def test_hidden_colours_do_not_bleed_into_visible_pixels(task, options, channels):
    images = torch.full((1, channels, 16, 16), -1.0)
    images[:, 0, :, :8], images[:, -1, :, :8] = 1, 1  # opaque and bright beside transparent and dark
    shown = to_levels(corrupt(task, images, drawing(1), **options).conditioning_image)
    visible = shown[:, -1] > 8  # the fainter a pixel is, the coarser is its colour
    assert 100 < visible.sum() < 200 and shown[:, 0][visible].min() >= 250


def test_ways_to_make_images_smaller():
    images = photos(2, 32, 32)
    area = super_resolution(images, None, downsampling="area").conditioning_image
    boxes = [picture.resize((8, 8), Image.BOX).resize((32, 32), Image.BICUBIC) for picture in pictures(images)]
    assert (to_levels(area) - torch.stack([levels(picture) for picture in boxes])).abs().max() <= 1
    smooth = super_resolution(images, None).conditioning_image
    assert (smooth - area).abs().max() > 0.05
    checkers = (torch.arange(32)[:, None] + torch.arange(32)).remainder(2)[None, None].float() * 2 - 1
    assert super_resolution(checkers, None).conditioning_image.abs().max() < 0.05
    assert super_resolution(checkers, None, antialias=False, factor=32 / 11).conditioning_image.abs().max() > 0.3
    assert torch.equal(super_resolution(images, None, factor=1).conditioning_image, images)


def test_jpeg_is_pillows():
    for channels in (1, 3):
        images = photos(3, 20, 33, channels)
        draw = drawing(3)
        shown = jpeg_restoration(images, draw, quality=(7, 7)).conditioning_image
        for image, picture in zip(to_levels(shown), pictures(images), strict=True):
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=7)
            assert torch.equal(image, levels(Image.open(file)))
    with pytest.raises(ValueError, match="jpeg_restoration needs images of 1 or 3 channels, not 4"):
        jpeg_restoration(photos(1, 8, 8, 4), drawing(1))


def test_jpeg_qualities_are_distributed_as_in_palette():
    drawn = np.array(sample_qualities(drawing(20000), (5, 30), 10.0))
    expected = np.exp(-np.arange(5, 31) / 10)
    expected /= expected.sum()
    counts = np.bincount(drawn, minlength=31)
    assert counts[:5].sum() == 0 and len(counts) == 31
    chi_squared = ((counts[5:] - 20000 * expected) ** 2 / (20000 * expected)).sum()
    assert chi_squared < 60  # 25 degrees of freedom: 60 is passed once in ten thousand


def test_noise_has_the_deviation_that_is_asked_for():
    gray = torch.zeros(64, 1, 64, 64)
    deviations = denoising(gray, drawing(64), sigma=25).conditioning_image.std((1, 2, 3)) * 127.5
    assert (deviations - 25).abs().max() < 1.5
    deviations = denoising(gray, drawing(64), sigma=(5, 30)).conditioning_image.std((1, 2, 3)) * 127.5
    assert 4 < deviations.min() < 8 and 27 < deviations.max() < 31.5
    assert denoising(torch.ones(2, 3, 8, 8), drawing(2), sigma=50).conditioning_image.abs().max() <= 1


def test_gaussian_kernel():
    for sigma in (0.3, 1.0, 2.5):
        kernel = gaussian_kernel(sigma)
        offsets = torch.arange(len(kernel)) - len(kernel) // 2
        assert kernel.sum() == pytest.approx(1, abs=1e-6) and torch.allclose(kernel, kernel.flip(0))
        if sigma >= 1:
            assert (kernel.sum(0) * offsets**2).sum().sqrt() == pytest.approx(sigma, rel=0.03)


@pytest.mark.parametrize("angle", [0, 0.4, math.pi / 2, 2.5])
@pytest.mark.parametrize("length", [0.0, 1.0, 5.0, 9.5])
def test_motion_kernel(length, angle):
    kernel = motion_kernel(length, angle)
    assert kernel.sum() == pytest.approx(1, abs=1e-5) and (kernel >= 0).all()
    offsets = torch.arange(len(kernel)) - len(kernel) // 2
    y, x = torch.meshgrid(offsets, offsets, indexing="ij")
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    # The length, plus up to half a pixel on both sides from the distribution over pixels.
    assert (kernel * along**2).sum().sqrt() == pytest.approx(length / math.sqrt(12), abs=0.4)
    assert (kernel * across**2).sum().sqrt() < 0.51


def test_convolution_moves_a_point_to_the_kernel():
    point = torch.zeros(1, 15, 15)
    point[0, 7, 7] = 1
    kernel = torch.rand(5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(convolve(point, kernel)[0, 5:10, 5:10], kernel)
    assert torch.allclose(convolve(torch.full((3, 8, 8), 0.7), gaussian_kernel(3.0)), torch.tensor(0.7))


def test_deblurring_uses_both_kernels():
    images = photos(40, 16, 16)
    options = {"sigma": 2, "length": 9}
    both = deblurring(images, drawing(40), **options).conditioning_image
    gaussian = torch.stack([convolve(image, gaussian_kernel(2.0)) for image in images])
    share = ((both - gaussian).abs().amax((1, 2, 3)) < 0.01).float().mean()
    assert 0.25 < share < 0.75
    only = deblurring(images, drawing(40), kernels="gaussian", **options).conditioning_image
    assert (only - gaussian).abs().max() < 0.01
    assert (
        deblurring(images, drawing(40), kernels=["motion"], length=0).conditioning_image - images
    ).abs().max() < 0.01


@pytest.mark.parametrize("task", MASKED)
def test_what_is_hidden_is_standard_normal_noise(task):
    images = torch.full((64, 3, 32, 32), 0.25)
    corruption = corrupt(task, images, drawing(64))
    noise = corruption.conditioning_image[(corruption.mask == 1).expand_as(images)]
    assert noise.mean().abs() < 0.02 and (noise.std() - 1).abs() < 0.02 and noise.abs().max() > 3


def test_a_combination_does_one_after_the_other():
    images = photos(3)
    both = corrupt("deblurring+jpeg_restoration", images, drawing(3)).conditioning_image
    draw = drawing(3)
    blurred = deblurring(images, draw).conditioning_image
    assert torch.equal(both, jpeg_restoration(blurred, draw).conditioning_image)
    tasks = load_corruptions(["deblurring+jpeg_restoration"], {"jpeg_restoration": {"quality": 5}})
    assert not torch.equal(tasks["deblurring+jpeg_restoration"](images, drawing(3)).conditioning_image, both)


@pytest.mark.parametrize("task", ["colorization+inpainting", "inpainting+colorization"])
def test_holes_in_a_degraded_image_are_holes(task):
    images = photos(4)
    draw = drawing(4)
    holes = inpainting(images, draw)
    shown = corrupt(task, images, drawing(4))
    hidden = (holes.mask == 1).expand_as(images)
    assert shown.mask is None  # the gray pixels must be generated, too
    assert torch.equal(shown.conditioning_image[hidden], holes.conditioning_image[hidden])
    gray = colorization(images, None).conditioning_image
    assert torch.equal(shown.conditioning_image[~hidden], gray[~hidden])


def test_holes_add_up():
    images = photos(4)
    draw = drawing(4)
    masks = inpainting(images, draw).mask, uncropping(images, draw).mask
    assert torch.equal(corrupt("inpainting+uncropping", images, drawing(4)).mask, torch.maximum(*masks))


USERS_MODULE = """
import torch
from diffusers_ext.data.corruptions import Corruption

def darker(images, draw, *, by=0.5):
    return Corruption((images - by * draw.uniform().view(-1, 1, 1, 1)).clamp(-1, 1))

def tensor(images, draw):
    return images

def smaller(images, draw):
    return Corruption(images[..., ::2])

def flat_mask(images, draw):
    return Corruption(images, images[:, 0])

number = 3
"""


def test_a_function_of_the_user(tmp_path, monkeypatch):
    (tmp_path / "my_tasks.py").write_text(USERS_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    images = photos(3)
    shown = corrupt("my_tasks:darker", images, drawing(3), by=0.25).conditioning_image
    expected = (images - 0.25 * drawing(3).uniform().view(-1, 1, 1, 1)).clamp(-1, 1)
    assert torch.equal(shown, expected)
    combined = corrupt("my_tasks:darker+colorization", images, drawing(3)).conditioning_image
    assert (combined[:, :1] == combined).all() and (combined <= 1).all()
    for name, message in {
        "my_tasks:number": "must name a function in my_tasks",
        "my_tasks:missing": "must name a function in my_tasks",
        "my_tasks:tensor": "must return a Corruption, not Tensor",
        "my_tasks:smaller": r"must be \(3, 3, 24, 40\) torch.float32 like the images, not \(3, 3, 24, 20\)",
        "my_tasks:flat_mask": r"the mask .* must be \(3, 1, 24, 40\)",
    }.items():
        with pytest.raises(ValueError, match=message):
            corrupt(name, images, drawing(3))
    with pytest.raises(ImportError, match="'my_other_tasks:blur' cannot be imported .* PYTHONPATH"):
        corrupt("my_other_tasks:blur", images, drawing(3))


def test_options_from_yaml():
    options = yaml.safe_load("{inpainting: {area: [0.2, 0.3]}, uncropping: {sides: [left+right], area: 0.25}}")
    tasks = load_corruptions(["inpainting", "uncropping"], options)
    shares = tasks["inpainting"](photos(8), drawing(8)).mask.mean((1, 2, 3))
    assert 0.2 <= shares.min() and shares.max() <= 0.3
    assert tasks["uncropping"](photos(2), drawing(2)).mask[:, :, :, 5:35].max() == 0


@pytest.mark.parametrize(
    "tasks, options, message",
    [
        (["inpaint"], {}, "no task 'inpaint': the tasks are colorization, inpainting"),
        (["deblurring+"], {}, "no task ''"),
        ([], {}, "at least one"),
        (["denoising", "denoising"], {}, "different names"),
        (["denoising"], {"inpainting": {"area": 0.1}}, "options for inpainting, but the tasks are denoising"),
        (["denoising"], {"denoising": {"sigmas": 3}}, r"\[sigma=\(5.0, 50.0\)\] does not accept {'sigmas': 3}"),
        (["colorization"], {"colorization": {"images": 3}}, "'colorization'  ?does not accept"),
    ],
)
def test_impossible_tasks(tasks, options, message):
    with pytest.raises(ValueError, match=message):
        load_corruptions(tasks, options)


@pytest.mark.parametrize(
    "task, options, message",
    [
        (
            "inpainting",
            {"area": (0.4, 0.1)},
            r"must be \(lowest, highest\), numbers from 0.001 to 0.95, not \(0.4, 0.1\)",
        ),
        ("inpainting", {"area": "all"}, "area must be a number or two"),
        ("inpainting", {"area": (0.1, 0.2, 0.3)}, "area must be a number or two"),
        ("inpainting", {"stroke_probability": 1.5}, "stroke_probability must be"),
        ("inpainting", {"max_rectangles": 0}, "max_rectangles must be an integer of at least 1, not 0"),
        (
            "uncropping",
            {"sides": ["up"]},
            "sides must be one, all, or some of left, right, top, bottom joined by '.', not 'up'",
        ),
        ("uncropping", {"sides": []}, "uncropping needs sides"),
        ("uncropping", {"area": 1}, "an area between 0 and 1"),
        ("jpeg_restoration", {"quality": 0}, "quality must be .* from 1 to 95"),
        ("jpeg_restoration", {"quality": (5.5, 9)}, "quality must be integers"),
        ("jpeg_restoration", {"quality_scale": 0}, "quality_scale must be positive"),
        ("super_resolution", {"factor": 0.5}, "from 1 to 8, the shorter side of the images, not 0.5"),
        ("super_resolution", {"factor": 16}, "from 1 to 8"),
        ("super_resolution", {"downsampling": "lanczos"}, "downsampling must be one of bicubic, bilinear, area"),
        ("denoising", {"sigma": -1}, "sigma must be .* of at least 0, not -1"),
        ("deblurring", {"kernels": ["disk"]}, "kernels must be one or both of gaussian, motion"),
        ("deblurring", {"kernels": []}, "kernels must be one or both of gaussian, motion"),
        ("deblurring", {"sigma": 0}, "sigma must be .* of at least 0.01"),
        ("deblurring", {"length": (3, 1)}, "length must be"),
        ("deblurring", {"sigma": float("inf")}, "sigma must be .* of at least 0.01, not inf"),
        ("deblurring", {"kernels": 3}, "kernels must be a name or a list of names, not 3"),
        ("super_resolution", {"factor": "4"}, "factor must be a number, not '4'"),
        ("super_resolution", {"factor": [2, 4]}, r"factor must be a number, not \[2, 4\]"),
        ("uncropping", {"area": "0.5"}, "area must be a number, not '0.5'"),
        ("uncropping", {"sides": 3}, "sides must be a name or a list of names, not 3"),
        ("jpeg_restoration", {"quality_scale": "10"}, "quality_scale must be a number, not '10'"),
        ("inpainting", {"stroke_probability": [0, 1]}, r"stroke_probability must be a number, not \[0, 1\]"),
    ],
)
def test_impossible_options(task, options, message):
    with pytest.raises(ValueError, match=message):
        corrupt(task, photos(2, 8, 8), drawing(2), **options)


def test_images_that_cannot_lose_anything():
    with pytest.raises(ValueError, match="1x1 pixels are too small"):
        inpainting(torch.zeros(1, 3, 1, 1), drawing(1))
    with pytest.raises(ValueError, match="cannot lose a side"):
        uncropping(torch.zeros(1, 3, 1, 8), drawing(1), sides="top")


def test_descriptions():
    lines = describe_corruptions()
    assert list(lines) == list(CORRUPTIONS) and all("\n" not in line and line[0].isupper() for line in lines.values())
    assert lines["denoising"].endswith("[sigma=(5.0, 50.0)]") and "[" not in lines["colorization"]
