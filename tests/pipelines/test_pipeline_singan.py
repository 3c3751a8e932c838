import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from diffusers_ext.models import SinGANGenerator
from diffusers_ext.pipelines import SinGANPipeline
from tests.pipelines.testing import (
    PipelineOutputTesterMixin,
    PipelineRandomnessTesterMixin,
    PipelineSaveLoadTesterMixin,
    PipelineTesterConfig,
    assert_equal,
    generators,
)


class SinGANConfig(PipelineTesterConfig):
    pipeline_class = SinGANPipeline
    output_shape = (2, 3, 16, 20)

    def get_components(self):
        torch.manual_seed(0)
        generator = SinGANGenerator(((9, 11), (12, 15), (16, 20)), layer_channels=((5,), (5,), (4,))).eval()
        for parameter in generator.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        generator.noise_amplitudes.copy_(torch.tensor([1.0, 0.3, 0.2]))
        generator.fixed_noise.normal_()
        return {"generator": generator}

    def get_inputs(self):
        return {"batch_size": 2}


class TestSinGANOutput(SinGANConfig, PipelineOutputTesterMixin):
    pass


class TestSinGANSaveLoad(SinGANConfig, PipelineSaveLoadTesterMixin):
    pass


class TestSinGANRandomness(SinGANConfig, PipelineRandomnessTesterMixin):
    test_latents_are_the_first_noise = None  # a sample has noise of several sizes


@pytest.fixture(scope="module")
def pipe():
    return SinGANConfig().get_pipeline()


def photo(count=1, height=32, width=40):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(5))


def draw(pipe, seed=0, **arguments):
    return pipe(generator=torch.Generator().manual_seed(seed), output_type="pt", **arguments).images


def test_an_image_depends_on_its_own_generator_alone(pipe):
    both = pipe(batch_size=2, generator=generators([1, 2]), output_type="pt").images
    torch.testing.assert_close(both[1:], draw(pipe, seed=2))


def test_images_have_any_size(pipe):
    assert draw(pipe, height=16, width=50).shape == (1, 3, 16, 50)
    assert draw(pipe, height=25).shape == (1, 3, 25, 20)
    assert pipe.image_shape == (3, 16, 20)


def test_later_scales_keep_more_of_the_image(pipe):
    restored = pipe.reconstruct("pt")
    torch.testing.assert_close(
        restored, (pipe.generator(pipe.generator.reconstruction_noise()).sample / 2 + 0.5).clamp(0, 1)
    )
    errors = [(draw(pipe, batch_size=8, first_scale=scale) - restored).square().mean() for scale in range(3)]
    assert errors[0] > errors[1] > errors[2] > 0


def test_an_image_is_put_in_at_a_scale(pipe):
    image = photo()
    first = draw(pipe, image=image, first_scale=2)
    noise = torch.randn(1, 3, 16, 20, generator=torch.Generator().manual_seed(0))
    small = torch.nn.functional.interpolate(image * 2 - 1, (12, 15), mode="bicubic", antialias=True).clamp(-1, 1)
    expected = pipe.generator([noise], small, first_scale=2).sample
    torch.testing.assert_close(first, (expected / 2 + 0.5).clamp(0, 1))
    assert draw(pipe, image=image, first_scale=1, batch_size=3).shape == (3, 3, 16, 20)
    assert draw(pipe, image=photo(2), first_scale=1, height=32, width=40).shape == (2, 3, 32, 40)


def test_what_is_not_masked_stays(pipe):
    image, mask = photo(height=16, width=20), np.zeros((16, 20), np.uint8)
    mask[4:9, 5:] = 255
    edited = draw(pipe, image=image, mask_image=mask, first_scale=1)
    changed = (edited - image).abs().amax(dim=1)[0] > 1e-5
    assert not changed[mask == 0].any() and changed[mask == 255].float().mean() > 0.9
    box = draw(pipe, image=image, mask_image=(5, 4, 20, 9), first_scale=1)
    assert_equal(box, edited)


def test_images_are_enlarged_in_several_passes(pipe):
    image = photo(2, 10, 12)
    large = pipe.super_resolve(image, scale=2.5, generator=torch.Generator().manual_seed(0), output_type="pt").images
    assert large.shape == (2, 3, 25, 30) and 0 <= large.min() < large.max() <= 1
    (picture,) = pipe.super_resolve(Image.new("L", (6, 5)), scale=1.1).images
    assert picture.size == (7, 6)


def test_a_film_begins_with_the_image_and_moves(pipe):
    film = pipe.animate(5, generator=torch.Generator().manual_seed(0), output_type="pt").frames
    assert film.shape == (1, 5, 3, 16, 20)
    torch.testing.assert_close(film[0, 0], pipe.reconstruct("pt")[0])
    assert not torch.allclose(film[0, 1], film[0, 4], atol=1e-3)
    still = pipe.animate(3, pull=0.99999, output_type="pt").frames
    torch.testing.assert_close(still[0, 2], still[0, 0], rtol=0, atol=1e-3)
    assert len(pipe.animate(2).frames[0]) == 2


def test_loads_without_this_package(tmp_path, pipe):
    pipe.save_pretrained(tmp_path)
    other = DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True)
    assert type(other).__module__.startswith("diffusers_modules")
    assert_equal(draw(other, batch_size=2), draw(pipe, batch_size=2))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"first_scale": 3}, "`first_scale` must be an integer from 0 to 2"),
        ({"first_scale": 1.0}, "`first_scale` must be an integer"),
        ({"image": photo()}, "`first_scale` must be an integer from 1 to 2"),
        ({"image": photo(2), "first_scale": 1, "batch_size": 3}, "`batch_size` is 3, but there are 2 images"),
        ({"mask_image": (0, 0, 2, 2)}, "`mask_image` is for an `image`"),
        ({"height": -4}, "`height` must be"),
        ({"batch_size": 0}, "`batch_size` must be"),
        ({"output_type": "latent"}, "`output_type` must be"),
    ],
)
def test_bad_input_is_refused(pipe, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipe(**arguments)


def test_bad_input_of_other_uses_is_refused(pipe):
    with pytest.raises(ValueError, match="`scale` must be more than 1"):
        pipe.super_resolve(photo(), scale=1.0)
    with pytest.raises(ValueError, match="`pull` must be"):
        pipe.animate(pull=1.5)
    with pytest.raises(ValueError, match="`num_frames` must be"):
        pipe.animate(0)
