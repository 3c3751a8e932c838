"""Images are found through degradations: old films, lenses and files."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffusers_ext import GANInversionPipeline, GANPipeline
from diffusers_ext.data.corruptions import load_corruptions
from diffusers_ext.models import DCGANGenerator, StyleGAN2Generator
from diffusers_ext.pipelines.color_transfer import color_distance, recorded_image_layers
from diffusers_ext.pipelines.degradations import (
    AntiquePhoto,
    CameraResponse,
    Downsample,
    GaussianBlur,
    StraightThrough,
)
from diffusers_ext.training.loop.draws import Draw
from tests.converters.cases import assert_near
from tests.pipelines.test_pipeline_gan_inversion import GOLDEN, generator, quiet, seeded


CASES = ["degradation_and_colour", "degradation_and_colour_2"]
FILMS = {"g": "panchromatic", "gb": "orthochromatic", "b": "blue_sensitive"}


def case(name: str) -> dict[str, torch.Tensor]:
    return load_file(Path(GOLDEN) / name / "case.safetensors")


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_films_and_colours_are_those_of_the_original(name):
    tensors = case(name)
    for letters, film in FILMS.items():
        photo = AntiquePhoto(film)
        for number in ("gamma", "offset", "gain"):
            getattr(photo[-1], number).fill_(tensors[f"inputs.{number}"].item())
        assert_near(photo(tensors["inputs.image"]), tensors[f"outputs.degraded.{letters}"])
    layers, wanted = ([tensors[f"inputs.{kind}.{level}"] for level in range(3)] for kind in ("rgb", "rgb_init"))
    assert_near(color_distance(layers, wanted), tensors["outputs.color_loss"])
    assert_near(color_distance(layers, wanted, is_scaled=True), tensors["outputs.color_loss_scaled"])
    assert_near(color_distance(layers[:2], wanted[:2]), tensors["outputs.color_loss_level_2"])


@torch.no_grad()
def test_a_blur_spreads_a_point_and_fewer_pixels_keep_the_mean():
    point = torch.zeros(1, 2, 21, 21)
    point[:, :, 10, 10] = 1
    spread = GaussianBlur(2.0)(point)[0, 0]
    offsets = torch.arange(21.0) - 10
    torch.testing.assert_close(spread.sum(), torch.tensor(1.0))
    assert math.isclose((spread.sum(dim=0) * offsets.square()).sum().sqrt(), 2.0, rel_tol=0.15)
    images = torch.rand(1, 3, 8, 12, generator=seeded())
    small = AntiquePhoto(blur=1.0, size=(4, 6))(images)
    assert small.shape == (1, 3, 4, 6) and torch.equal(small[:, 0], small[:, 2])
    torch.testing.assert_close(Downsample((4, 6))(images).mean(), images.mean(), rtol=0, atol=0.02)


def test_an_image_is_restored_through_what_happened_to_it():
    """A blurred photograph of fewer pixels, darkened by a factor that is learned."""
    pipe = quiet(GANInversionPipeline(generator()))
    clean = GANPipeline(pipe.generator)(batch_size=2, generator=seeded(3), output_type="pt").images
    camera = CameraResponse(2)
    with torch.no_grad():
        camera.gain.copy_(torch.tensor([0.6, 0.8]).view(2, 1, 1, 1))
        photos = camera(GaussianBlur(0.7)(clean * 2 - 1)) / 2 + 0.5
    unknown = torch.nn.Sequential(GaussianBlur(0.7), CameraResponse(2))
    options = {"space": "w", "num_optimization_steps": 40, "output_type": "pt"}
    plain = pipe(photos, generator=seeded(), **options)
    found = pipe(photos, degradation=unknown, generator=seeded(), **options)
    distances = [(images - clean).square().mean() for images in (found.images, plain.images)]
    assert distances[0] < 0.5 * distances[1]
    assert (unknown[1].gain == 1).all() and (found.degradation[1].gain.flatten() < 0.95).all()
    assert (found.errors < plain.errors).all()


def test_a_corruption_of_the_house_is_a_degradation():
    corrupt = load_corruptions(["jpeg_restoration"], {"jpeg_restoration": {"quality": 20}})["jpeg_restoration"]

    def jpeg(images: torch.Tensor) -> torch.Tensor:
        return corrupt(images, Draw(0, images.device).begin(0, range(len(images)))).conditioning_image

    images = torch.rand(2, 1, 8, 8, generator=seeded()).mul(2).sub(1).requires_grad_()
    degraded = StraightThrough(jpeg)(images)
    torch.testing.assert_close(degraded, jpeg(images.detach()))
    assert (torch.autograd.grad(degraded.sum(), images)[0] == 1).all()
    pipe = quiet(GANInversionPipeline(generator()))
    options = {"degradation": StraightThrough(jpeg), "space": "w", "output_type": "pt"}
    shown = degraded.detach() / 2 + 0.5
    first, last = (pipe(shown, num_optimization_steps=n, generator=seeded(), **options) for n in (0, 20))
    assert (last.errors < first.errors).all()


def test_colours_stay_near_those_of_the_start():
    torch.manual_seed(0)
    network = StyleGAN2Generator(8, 3, 5, 6, block_out_channels=(8, 4), num_mapping_layers=1)
    network.measure_style_average()
    pipe = quiet(GANInversionPipeline(network.eval()))
    photo = torch.rand(1, 1, 8, 8, generator=seeded()).expand(1, 3, 8, 8)
    options = {"degradation": AntiquePhoto(), "num_optimization_steps": 15, "output_type": "pt"}
    with torch.no_grad(), recorded_image_layers(network) as start:
        network(styles=network.style_average[None])

    def moved(color_weight: float) -> torch.Tensor:
        found = pipe(photo, color_weight=color_weight, generator=seeded(), **options)
        with torch.no_grad(), recorded_image_layers(network) as layers:
            network(styles=found.styles)
        return color_distance(layers, start)

    assert moved(1e3) < 0.5 * moved(0.0)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"degradation": "jpeg"}, "`degradation` must be a function of images"),
        ({"degradation": lambda images: images.mean(dim=1)}, "`degradation` must make an image of each"),
        ({"degradation": lambda images: images.view(5)}, "`degradation` can't take 1 images"),
        ({"degradation": CameraResponse(3)}, "`degradation` must make an image of each"),
        ({"degradation": Downsample(4)}, r"`image` must have the network's height and width, \(4, 4\)"),
        ({"color_weight": -1}, "`color_weight` must be at least 0"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GANInversionPipeline(generator())(torch.zeros(1, 8, 8), num_optimization_steps=1, **options)


def test_colours_need_layers_that_add_to_the_image():
    torch.manual_seed(0)
    pipe = GANInversionPipeline(DCGANGenerator(8, 1, latent_dim=5, channels=4).eval())
    with pytest.raises(ValueError, match="`color_weight` is for a generator each of whose blocks adds to the image"):
        pipe(torch.zeros(1, 8, 8), color_weight=1.0)
    with pytest.raises(ValueError, match="`film` must be one of panchromatic"):
        AntiquePhoto("red")
