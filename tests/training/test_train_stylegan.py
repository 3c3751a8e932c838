"""StyleGAN2 trains, resumes and is published; and what does not fit is refused."""

from functools import partial

import pytest
import torch
from diffusers import DiffusionPipeline

from diffusers_ext import GANPipeline
from diffusers_ext.losses import path_lengths
from diffusers_ext.models import StyleGAN2Generator, StyleGANGenerator
from diffusers_ext.training.adversarial.adaptive_augmentation import (
    COLOUR,
    GEOMETRY,
    AdaptiveProbability,
    augment_images,
)
from diffusers_ext.training.adversarial.directions import factorized_directions
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.loop.ema import HalfLifeEMA
from diffusers_ext.training.loop.trainer import Trainer
from diffusers_ext.training.train_stylegan import StyleGANConfig, StyleGANRecipe
from tests.training import runs
from tests.training.runs import assert_resumes_exactly, steps, weights, write_few_digits


OPTIONS = {
    "resolution": [8],
    "channels": 1,
    "generator": {"latent_dim": 6, "style_dim": 6, "num_mapping_layers": 2, "block_out_channels": [6, 4]},
    "discriminator": {"block_out_channels": [6, 4], "num_mapping_layers": 1},
    "r1_interval": 2,
    "path_length_interval": 2,
    "max_train_steps": 4,
    "train_batch_size": 8,
    "checkpointing_steps": 2,
    "logging_steps": 1,
}
ADAPTIVE = {"augmentations": ["bgc"], "ada_images": 100, "ada_interval": 1, "augmentation_probability": 0.3}
CONDITIONAL = {"class_conditional": True, **ADAPTIVE}


@pytest.fixture(scope="module", autouse=True)
def few_images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    write_few_digits(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OPTIONS, "train_data_dir", str(folder))
        yield


def configuration(output_dir, **options) -> StyleGANConfig:
    return StyleGANConfig(**{**OPTIONS, "output_dir": str(output_dir), **options})


def trainer(output_dir, **options) -> Trainer:
    return runs.trainer(StyleGANRecipe, configuration(output_dir, **options))


def begun(number: int) -> Draw:
    return Draw(0, torch.device("cpu")).begin(0, range(number))


def test_both_networks_learn_and_are_regularized_lazily(tmp_path):
    run = trainer(tmp_path, **CONDITIONAL)
    before = {name: weights(network) for name, network in run.networks.items()}
    first, second = steps(run, 2)
    for name, network in run.networks.items():
        assert not torch.equal(weights(network), before[name])
    assert {"r1", "path_length", "real_signs", "augmentation_probability"} <= first.keys()
    assert "r1" not in second and "path_length" not in second
    assert run.recipe.mean_length > 0


def test_what_is_left_out_is_not_computed(tmp_path):
    first, _ = steps(trainer(tmp_path, r1=0.0, path_length=0.0, style_mixing=0.0), 2)
    assert "r1" not in first and "path_length" not in first


@pytest.mark.parametrize("options", [{}, CONDITIONAL], ids=["plain", "conditional, adaptive"])
def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path, options):
    assert_resumes_exactly(partial(trainer, **options), tmp_path, stop=2, end=4)


def test_another_training_is_not_resumed(tmp_path):
    assert trainer(tmp_path).train()
    with pytest.raises(ValueError, match="path_length"):
        trainer(tmp_path, resume_from_checkpoint="latest", path_length=1.0)


def test_a_run_leaves_a_pipeline_which_loads_in_both_ways(tmp_path):
    assert trainer(tmp_path, **CONDITIONAL, ema_images=16, ema_rampup=0.5).train()
    pipe = GANPipeline.from_pretrained(tmp_path)
    assert pipe.generator.style_average.any()
    assert "StyleGAN2" in (tmp_path / "README.md").read_text(encoding="utf-8")
    other = DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True)
    options = {"class_labels": [3, "seven"], "truncation_psi": 0.5, "output_type": "pt"}
    images = [p(generator=torch.Generator().manual_seed(0), **options).images for p in (pipe, other)]
    assert images[0].shape == (2, 1, 8, 8)
    torch.testing.assert_close(images[0], images[1])


def test_the_first_stylegan_is_trained_with_its_own_networks(tmp_path):
    options = {"architecture": "stylegan", "path_length": 0.0, "r1_interval": 1, "class_conditional": True}
    run = trainer(tmp_path, **options, max_train_steps=2)
    assert type(run.networks["generator"]) is StyleGANGenerator
    assert run.networks["discriminator"].config.architecture == "orig"
    assert run.train()
    assert "StyleGAN," in (tmp_path / "README.md").read_text(encoding="utf-8")
    pipe = GANPipeline.from_pretrained(tmp_path)
    assert pipe.generator.style_average.any()
    other = DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True)
    options = {"class_labels": [3, "seven"], "truncation_psi": 0.5, "noise": "none", "output_type": "pt"}
    images = [p(generator=torch.Generator().manual_seed(0), **options).images for p in (pipe, other)]
    torch.testing.assert_close(*images)
    directions = factorized_directions(pipe, num_directions=2, layers=[0, 3])
    assert pipe.edit(directions, "factor_1", latents=torch.zeros(1, 6), class_labels=[1]).images


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_styles_are_mixed_with_the_given_probability(tmp_path, probability):
    run = trainer(tmp_path, style_mixing=probability)
    styles = run.recipe.generate(None, begun(16)).styles
    # Equal rows of one product of matrices may be rounded in other ways.
    is_one = torch.isclose(styles, styles[:, :1], rtol=0, atol=1e-4).all(dim=2).all(dim=1)
    assert is_one.all() if probability == 0 else not is_one.any()
    # once another latent begins, it stays
    changes = (~torch.isclose(styles[:, 1:], styles[:, :-1], rtol=0, atol=1e-4)).any(dim=2).sum(dim=1)
    assert (changes == (probability > 0)).all()


def test_path_lengths_are_those_of_the_jacobian():
    torch.manual_seed(0)
    generator = StyleGAN2Generator(8, 1, 4, 3, block_out_channels=(4, 4), num_mapping_layers=1)
    images, styles = generator(torch.randn(2, 4), return_dict=False)
    noise = torch.randn_like(images)
    found = path_lengths(images, styles, noise)
    for row in range(2):
        jacobian = torch.autograd.functional.jacobian(
            lambda values: generator(styles=values[None]).sample[0], styles[row].detach()
        )
        products = torch.einsum("chwls,chw->ls", jacobian, noise[row]) / 8
        torch.testing.assert_close(found[row], products.square().sum(dim=1).mean().sqrt())


@torch.no_grad()
def test_augmentations():
    torch.manual_seed(0)
    images = torch.rand(64, 3, 16, 16) * 2 - 1
    for name in (*GEOMETRY, *COLOUR):
        never = augment_images(images, [name], torch.tensor(0.0), begun(64))
        torch.testing.assert_close(never, images, rtol=1e-4, atol=1e-4)
        always = augment_images(images, [name], torch.tensor(1.0), begun(64))
        often = augment_images(images, [name], torch.tensor(0.5), begun(64))
        is_same = torch.isclose(often, images, atol=1e-3).flatten(1).all(dim=1)
        assert always.shape == images.shape and 0.2 < is_same.float().mean() < 0.9, name
        assert torch.isclose(often, always, atol=1e-3).flatten(1).all(dim=1)[~is_same].all(), name
    grey = augment_images(images.mean(dim=1, keepdim=True), ["bgc"], torch.tensor(0.8), begun(64))
    assert grey.shape == (64, 1, 16, 16) and grey.isfinite().all()


@torch.no_grad()
def test_turns_and_colours_are_what_they_say():
    torch.manual_seed(0)
    images, one = torch.rand(32, 3, 8, 8) * 2 - 1, torch.tensor(1.0)
    turned = augment_images(images, ["turn"], one, begun(32))
    ways = torch.stack([images.rot90(quarter, dims=(2, 3)) for quarter in range(4)])
    fits = torch.isclose(ways, turned, atol=1e-4).flatten(2).all(dim=2)
    assert fits.any(dim=0).all() and fits.any(dim=1).all()
    flipped = augment_images(images, ["flip"], one, begun(32))
    is_flipped = torch.isclose(flipped, images.flip(3), atol=1e-4).flatten(1).all(dim=1)
    assert is_flipped.any() and torch.allclose(flipped[~is_flipped], images[~is_flipped], atol=1e-4)
    for name in ("hue", "saturation"):  # neither changes the brightness
        changed = augment_images(images, [name], one, begun(32))
        torch.testing.assert_close(changed.mean(dim=1), images.mean(dim=1), rtol=0, atol=1e-5)
    hue = augment_images(images, ["hue"], one, begun(32))
    torch.testing.assert_close(hue.square().sum(dim=1), images.square().sum(dim=1), rtol=1e-4, atol=1e-4)


def test_the_probability_follows_overfitting():
    probability = AdaptiveProbability(0.2, 0.6, images_to_one=1000, interval=2, device=torch.device("cpu"))
    assert probability.update(torch.full((50,), 3.0)) == 1 and probability.value == torch.tensor(0.2)
    probability.update(torch.full((50,), 3.0))
    assert probability.value.item() == pytest.approx(0.3)  # 100 images of 1000
    saved = probability.state_dict()
    for _ in range(10):
        probability.update(torch.tensor([1.0, -1.0] * 25))
    assert probability.value == 0
    probability.load_state_dict(saved)
    assert probability.value.item() == pytest.approx(0.3)
    fixed = AdaptiveProbability(0.2, None, 1000, 1, torch.device("cpu"))
    fixed.update(torch.ones(50))
    assert fixed.value == torch.tensor(0.2)


def test_the_half_life_of_the_average():
    network = torch.nn.Linear(1, 1, bias=False)
    average = HalfLifeEMA(network, half_life=100, batch_size=25)
    start = average.averages["weight"].clone()
    network.weight.data += 1.0
    for update in range(1, 5):
        average.update(update)
    torch.testing.assert_close(average.averages["weight"], start + 0.5)  # after 100 images
    ramped = HalfLifeEMA(network, half_life=10_000, batch_size=25, rampup=0.05)
    assert ramped.decay_at(1) == pytest.approx(0.5**20) and ramped.decay_at(10**6) == pytest.approx(0.5**0.0025)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"resolution": [12]}, "--resolution must be a square of 8, 16, 32"),
        ({"resolution": [8, 16]}, "--resolution must be a square"),
        ({"augmentations": ["blur"]}, "There is no augmentation 'blur'"),
        ({"ada_target": 0.5}, "--ada_target is for --augmentations"),
        ({**ADAPTIVE, "ada_target": 2.0}, "--ada_target must be between -1 and 1"),
        ({"style_mixing": 1.5}, "--style_mixing must be from 0 to 1"),
        ({"train_batch_size": 7}, "--train_batch_size must be even for --path_length"),
        ({"ema_decay": 0.5}, "--ema_decay is for other recipes"),
        ({"ema_rampup": -1.0}, "--ema_rampup must be positive"),
        ({"r1_interval": 0}, "--r1_interval must be at least 1"),
        ({"compile": True}, "--compile can't differentiate twice"),
    ],
)
def test_bad_options_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message) as error:
        configuration(tmp_path, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"generator": {"channels": 3}}, "--generator: StyleGAN2Generator has no argument 'channels'"),
        ({"generator": {"sample_size": 16}}, "--generator: sample_size is 8"),
        ({"discriminator": {"block_out_channels": [4]}}, "--discriminator: .* must be 2 positive numbers"),
        ({"train_batch_size": 6, "path_length": 0.0}, "--train_batch_size must be a multiple of the 4 images"),
    ],
)
def test_networks_that_do_not_fit_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, **options)
