"""Images are found again in the latent space of a generator."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from diffusers_ext import GANInversionPipeline, GANPipeline
from diffusers_ext.converters import convert_stylegan2_ada
from diffusers_ext.converters.stylegan2_ada.networks import flat_arguments
from diffusers_ext.models import DCGANGenerator, StyleEncoder, StyleGAN2Generator
from diffusers_ext.pipelines.latent_optimization import (
    noise_correlation,
    optimize_latents,
    perturbation_scale,
    ramped,
    standardized,
)
from tests.pipelines.testing import PipelineOutputTesterMixin, PipelineSaveLoadTesterMixin, PipelineTesterConfig


GOLDEN = Path(__file__).parent / "golden" / "gan_inversion"


def assert_near(actual: torch.Tensor, expected: torch.Tensor):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def generator(num_classes: int | None = None) -> StyleGAN2Generator:
    torch.manual_seed(0)
    network = StyleGAN2Generator(
        8, 1, 5, 6, block_out_channels=(8, 4), num_mapping_layers=2, num_classes=num_classes, mapping_lr_multiplier=1.0
    )
    for name, parameter in network.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(parameter, 0.3)
    network.measure_style_average()
    return network.eval()


def encoder() -> StyleEncoder:
    torch.manual_seed(1)
    sizes = {"block_out_channels": (4, 4, 4, 4), "layers_per_block": (1, 1, 1, 1)}
    return StyleEncoder(32, 1, num_styles=4, style_dim=6, **sizes).eval()


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pipeline(**options) -> GANInversionPipeline:
    return quiet(GANInversionPipeline(generator(**options), None if options else encoder()))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class InversionConfig(PipelineTesterConfig):
    pipeline_class = GANInversionPipeline
    output_shape = (2, 1, 8, 8)

    def get_components(self):
        return {"generator": generator(), "encoder": encoder()}

    def get_inputs(self):
        return {"image": torch.rand(2, 1, 8, 8, generator=seeded()), "num_optimization_steps": 3}


class TestInversionOutput(InversionConfig, PipelineOutputTesterMixin):
    pass


class TestInversionSaveLoad(InversionConfig, PipelineSaveLoadTesterMixin):
    pass


def test_the_projector_of_stylegan2_ada():
    """NVlabs/stylegan2-ada-pytorch, projector.py, with a small network in the place of VGG."""
    tensors = load_file(GOLDEN / "projector" / "case.safetensors")
    config = json.loads((GOLDEN / "projector" / "case.json").read_text())["config"]
    weights = {name[8:]: value for name, value in tensors.items() if name.startswith("weights.")}
    network, first, second = (
        convert_stylegan2_ada(weights, **flat_arguments(config["generator"])),
        tensors["inputs.feature_w1"],
        tensors["inputs.feature_w2"],
    )

    def features(images: torch.Tensor) -> torch.Tensor:
        maps = F.relu(F.conv2d(images, first, padding=1))
        deeper = F.relu(F.conv2d(F.avg_pool2d(maps, 2), second, padding=1))
        return torch.cat([maps.flatten(1), deeper.flatten(1)], dim=1) / 16

    wanted = features(tensors["inputs.target"][None] / 127.5 - 1)
    layers = [name for name in tensors if name.startswith("inputs.noise_init.")]
    layers.sort(key=lambda name: (int(name.split(".")[2][1:]), name))
    steps = config["num_steps"]
    styles, noise = optimize_latents(
        lambda styles, noise: (features(network(styles=styles, noise=noise).sample) - wanted).square().sum(dim=1),
        tensors["outputs.w_avg"][0],
        [tensors[name][None, None] for name in layers],
        steps,
        config["initial_learning_rate"],
        tensors["inputs.w_noise"].view(steps, 1, -1),
        tensors["outputs.w_std"].item(),
    )
    assert_near(styles[0], tensors["outputs.w_steps"][-1])
    for name, maps in zip(layers, noise, strict=True):
        assert_near(maps[0, 0], tensors[name.replace("inputs.noise_init", "outputs.noise_final")])
    rates = torch.tensor([config["initial_learning_rate"] * ramped(step / steps) for step in range(steps)])
    assert_near(rates, tensors["outputs.learning_rate"])


def test_the_schedule_and_the_regularization_of_noise():
    tensors = load_file(GOLDEN / "schedule_and_noise_regulariser" / "case.safetensors")
    assert_near(torch.tensor([0.1 * ramped(step / 40) for step in range(40)]), tensors["outputs.lr"])
    scales = torch.tensor([perturbation_scale(step / 40) for step in range(40)])
    assert_near(scales, tensors["outputs.noise_scale"])
    for size in (4, 8, 16, 32):
        noise = tensors[f"inputs.noise.{size}"][None, None].requires_grad_(True)
        value = noise_correlation(noise)
        assert_near(value[0].detach(), tensors[f"outputs.regulariser.{size}"])
        assert_near(torch.autograd.grad(value, noise)[0][0, 0], tensors[f"outputs.grad.{size}"])


@pytest.mark.parametrize("space", ["z", "w", "w+"])
def test_images_of_the_generator_are_found_again(space):
    pipe = pipeline()
    shown = GANPipeline(pipe.generator)(batch_size=2, generator=seeded(3), output_type="pt").images
    before = pipe(shown, space=space, num_optimization_steps=0, output_type="pt")
    found = pipe(shown, space=space, num_optimization_steps=60, generator=seeded(), output_type="pt")
    assert (found.errors < 0.6 * before.errors).all()
    torch.testing.assert_close(found.errors, (found.images - shown).square().mean(dim=(1, 2, 3)))
    position = {"latents": found.latents} if space == "z" else {"styles": found.styles}
    again = GANPipeline(pipe.generator)(**position, output_type="pt").images
    torch.testing.assert_close(again, found.images, rtol=1e-4, atol=1e-5)
    assert found.distance == "pixels"
    if space == "w":
        assert torch.equal(found.styles, found.styles[:, :1].expand_as(found.styles))


def test_each_image_is_optimised_on_its_own():
    pipe, images = pipeline(), torch.rand(2, 1, 8, 8, generator=seeded())
    options = {"num_optimization_steps": 5, "optimize_noise": True, "output_type": "pt"}
    both = pipe(images, generator=[seeded(1), seeded(2)], **options)
    alone = pipe(images[1:], generator=[seeded(2)], **options)
    torch.testing.assert_close(both.styles[1:], alone.styles, rtol=1e-3, atol=1e-3)
    assert [tuple(maps.shape) for maps in both.noise] == [(2, *shape) for shape in pipe.generator.noise_shapes]
    for maps in both.noise:
        torch.testing.assert_close(maps, standardized(maps))


def test_the_encoder_is_a_start():
    pipe, images = pipeline(), torch.rand(2, 1, 8, 8, generator=seeded())
    alone = pipe(images, start="encoder", num_optimization_steps=0, output_type="pt")
    enlarged = F.interpolate(images * 2 - 1, (32, 32), mode="area")
    torch.testing.assert_close(alone.styles, pipe.encoder(enlarged).styles)
    hybrid = pipe(images, start="encoder", num_optimization_steps=40, output_type="pt")
    assert (hybrid.errors < alone.errors).all()


def test_a_tuned_generator_is_a_copy():
    pipe, images = pipeline(), torch.rand(2, 1, 8, 8, generator=seeded())
    kept = {name: value.clone() for name, value in pipe.generator.state_dict().items()}
    options = {"num_optimization_steps": 3, "generator": seeded(), "output_type": "pt"}
    pivot = pipe(images, **options)
    tuned = pipe(images, num_tuning_steps=20, tuning_learning_rate=1e-2, **{**options, "generator": seeded()})
    assert all(torch.equal(value, kept[name]) for name, value in pipe.generator.state_dict().items())
    assert torch.equal(tuned.styles, pivot.styles) and tuned.errors.mean() < 0.5 * pivot.errors.mean()
    again = GANPipeline(tuned.generator)(styles=tuned.styles, output_type="pt").images
    torch.testing.assert_close(again, tuned.images, rtol=1e-4, atol=1e-5)
    for name, value in tuned.generator.mapping.state_dict().items():
        assert torch.equal(value, kept[f"mapping.{name}"])


def test_a_distance_is_minimised_in_place_of_pixels():
    pipe, images = pipeline(), torch.rand(1, 1, 8, 8, generator=seeded())

    def means(first, second):
        return (first.mean(dim=(1, 2, 3)) - second.mean(dim=(1, 2, 3))).square()

    found = pipe(images, num_optimization_steps=100, distance=means, generator=seeded(), output_type="pt")
    assert found.distance == "function" and found.distances[0] < 1e-4 < found.errors[0]


def test_classes():
    pipe, images = pipeline(num_classes=3), torch.rand(2, 1, 8, 8, generator=seeded())
    found = pipe(images, [0, 2], space="z", num_optimization_steps=2, output_type="pt")
    again = GANPipeline(pipe.generator)([0, 2], latents=found.latents, output_type="pt").images
    torch.testing.assert_close(again, found.images, rtol=1e-4, atol=1e-5)
    starts = [pipe(images, labels, space="w", num_optimization_steps=0).styles for labels in (None, 0, [0, 2])]
    assert torch.equal(starts[1][0], starts[2][0]) and not torch.equal(starts[1][1], starts[2][1])
    torch.testing.assert_close(starts[0][0, 0], pipe.generator.style_average)
    with pytest.raises(ValueError, match="class_labels"):
        pipe(images, space="z")


def test_a_generator_without_styles():
    torch.manual_seed(0)
    pipe = quiet(GANInversionPipeline(DCGANGenerator(8, 1, latent_dim=5, channels=4).eval()))
    images = torch.rand(1, 1, 8, 8)
    first, last = (
        pipe(images, num_optimization_steps=steps, generator=seeded(), num_tuning_steps=steps, output_type="pt")
        for steps in (0, 30)
    )
    assert last.errors[0] < first.errors[0] and last.styles is None and last.latents.shape == (1, 5)
    with pytest.raises(ValueError, match="`space` is for styles, but a DCGANGenerator has none"):
        pipe(images, space="w")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"space": "s"}, "`space` must be one of z, w, w\\+"),
        ({"start": "end"}, "`start` must be one of average, encoder"),
        ({"start": "encoder", "space": "w"}, "is for the space w\\+"),
        ({"num_optimization_steps": -1}, "`num_optimization_steps` must be an integer of at least 0"),
        ({"learning_rate": 0}, "`learning_rate` must be a positive number"),
        ({"noise_weight": -1.0}, "`noise_weight` must be at least 0"),
        ({"distance": "lpips"}, "`distance` must be a function"),
        ({"image": torch.zeros(1, 16, 16)}, r"`image` must have the network's height and width, \(8, 8\)"),
        ({"class_labels": 1}, "class_labels"),
        ({"output_type": "jpg"}, "`output_type` must be"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message) as error:
        pipeline()(**{"image": torch.zeros(1, 8, 8), "num_optimization_steps": 1, **options})
    assert "\n" not in str(error.value)


def test_components_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="`encoder` must fit the generator"):
        GANInversionPipeline(generator(), StyleEncoder(32, 1, 5, 6, "w", (4, 4, 4, 4), (1, 1, 1, 1)))
    with pytest.raises(ValueError, match="`generator` must make images from latents"):
        GANInversionPipeline(encoder())
    with pytest.raises(ValueError, match="needs an encoder, but the pipeline has none"):
        pipeline(num_classes=2)(torch.zeros(1, 8, 8), start="encoder")
