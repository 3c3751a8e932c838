import numpy as np
import pytest
import torch
from PIL import Image

from diffusers_ext.data import derive_seed
from diffusers_ext.data.transforms import ImageTransform, cover_size, resize
from diffusers_ext.pixels import to_pixel_values

from .drawing import photo


@pytest.mark.parametrize(
    "size, resolution, covered",
    [
        ((100, 200), (64, 64), (64, 128)),
        ((200, 100), (64, 64), (128, 64)),
        ((8, 8), (32, 32), (32, 32)),
        ((100, 200), (32, 96), (48, 96)),
        ((1, 1000), (16, 16), (16, 16000)),
        ((333, 500), (64, 64), (64, 96)),
        ((64, 64), (48, 64), (64, 64)),
    ],
)
def test_the_crop_just_fits(size, resolution, covered):
    assert cover_size(size, resolution) == covered


@pytest.mark.parametrize("size", [(24, 40), (160, 96)])
@pytest.mark.parametrize("channels, mode", [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_resize_is_pillows_bicubic(size, channels, mode):
    image = photo(80, 60, channels)
    array = image.permute(1, 2, 0).numpy()
    expected = np.asarray(Image.fromarray(array.squeeze(), mode).resize(size[::-1], Image.BICUBIC), dtype=np.int64)
    ours = resize(image, size).permute(1, 2, 0).numpy().squeeze()
    difference = np.abs(ours - expected)
    if channels in (2, 4):  # a colour is as uncertain as its alpha is small
        difference = difference * (ours[..., -1:] / 255.0)
    assert difference.max() <= 4 and difference.mean() < 0.35
    bilinear = np.asarray(Image.fromarray(array.squeeze(), mode).resize(size[::-1], Image.BILINEAR), dtype=np.int64)
    assert np.abs(bilinear - expected).mean() > 1  # the difference that this test can detect


def test_what_is_transparent_does_not_bleed():
    image = torch.zeros(4, 8, 8, dtype=torch.uint8)
    image[0, :, :4], image[1, :, 4:], image[3, :, :4] = 255, 255, 255  # opaque red beside invisible green
    resized = resize(image, (4, 4))
    visible = resized[3] > 0
    assert (resized[1][visible] == 0).all() and (resized[0][visible] == 255).all()


def test_an_image_of_the_right_size_is_left_alone():
    image = photo(16, 16)
    assert torch.equal(ImageTransform((16, 16)).fit(image), image)


def test_crops_reach_everywhere_and_are_uniform():
    transform = ImageTransform((4, 4))
    image = torch.arange(48, dtype=torch.uint8).view(1, 4, 12)
    crops = [transform.crop(image, derive_seed(row)) for row in range(3600)]
    counts = torch.bincount(torch.tensor([int(crop[0, 0, 0]) for crop in crops]))
    assert counts.shape == (9,) and counts.min() > 320 and counts.max() < 480
    for crop in crops[:20]:
        left = int(crop[0, 0, 0])
        assert torch.equal(crop, image[:, :, left : left + 4])


def test_center_crop():
    image = torch.arange(4 * 7, dtype=torch.uint8).view(1, 4, 7)
    assert torch.equal(ImageTransform((4, 4), center_crop=True).fit(image), image[:, :, 1:5])


def test_a_load_size_leaves_room_for_crops():
    transform = ImageTransform((4, 4), load_size=(6, 5))
    fitted = transform.fit(photo(20, 16))
    assert fitted.shape[-2:] == (6, 5)
    crops = {transform.crop(fitted, derive_seed(row)).numpy().tobytes() for row in range(60)}
    assert len(crops) == 6  # three places from top to bottom, two from left to right
    assert torch.equal(transform.center(fitted), fitted[:, 1:5, 0:4])
    assert transform.time_ids((20, 16)) == (20, 16, 1, 0, 4, 4)


def test_flip():
    images = photo(4, 4)[None].repeat(6, 1, 1, 1)
    draws = [0, 1, 2, 3, 5, 8]
    flipped = ImageTransform((4, 4), random_flip=True).flip(images.clone(), draws)
    for image, draw in zip(flipped, draws, strict=True):
        assert torch.equal(image, photo(4, 4).flip(-1) if draw % 2 else photo(4, 4))
    assert torch.equal(ImageTransform((4, 4)).flip(images.clone(), draws), images)


def test_pixel_values_go_from_minus_one_to_one():
    values = to_pixel_values(torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16))
    assert values.dtype == torch.float32 and values.min() == -1 and values.max() == 1
    assert torch.equal(((values + 1) * 127.5).round().to(torch.uint8).flatten(), torch.arange(256, dtype=torch.uint8))
