"""Progressive GANs grow, resume and are published; and what does not fit is refused."""

from functools import partial

import pytest
import torch
from diffusers import DiffusionPipeline

from diffusers_ext import GANPipeline
from diffusers_ext.training.loop.trainer import Trainer
from diffusers_ext.training.train_progressive_gan import (
    ProgressiveGANConfig,
    ProgressiveGANRecipe,
    growth,
    reduce_images,
)
from tests.training import runs
from tests.training.runs import assert_resumes_exactly, steps, write_few_digits


# Steps of 8 images: two of 4x4, two in which 8x8 fades in, and from then on 8x8.
OPTIONS = {
    "resolution": [8],
    "channels": 1,
    "generator": {"latent_dim": 6, "block_out_channels": [6, 4]},
    "discriminator": {"block_out_channels": [6, 4]},
    "fading_images": 16,
    "stable_images": 16,
    "max_train_steps": 6,
    "train_batch_size": 8,
    "checkpointing_steps": 3,
    "logging_steps": 1,
}


@pytest.fixture(scope="module", autouse=True)
def few_images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    write_few_digits(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OPTIONS, "train_data_dir", str(folder))
        yield


def configuration(output_dir, **options) -> ProgressiveGANConfig:
    return ProgressiveGANConfig(**{**OPTIONS, "output_dir": str(output_dir), **options})


def trainer(output_dir, **options) -> Trainer:
    return runs.trainer(ProgressiveGANRecipe, configuration(output_dir, **options))


def test_a_resolution_fades_in_and_is_trained_before_the_next_one(tmp_path):
    config = configuration(tmp_path, resolution=[32], fading_images=100, stable_images=50)
    expected = {0: (4, 1), 49: (4, 1), 50: (8, 0), 75: (8, 0.25), 150: (8, 1), 199: (8, 1), 200: (16, 0)}
    expected |= {250: (16, 0.5), 300: (16, 1), 350: (32, 0), 449: (32, 0.99), 450: (32, 1), 10**6: (32, 1)}
    assert {images: growth(images, config) for images in expected} == expected
    at_once = configuration(tmp_path, resolution=[16], fading_images=0, stable_images=50)
    assert [growth(images, at_once) for images in (49, 50, 100)] == [(4, 1), (8, 1), (16, 1)]
    assert growth(10**6, configuration(tmp_path, resolution=[4])) == (4, 1)


def test_real_images_lose_what_has_not_faded_in():
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(reduce_images(images, 16, 1.0), images)
    halved = images.unflatten(3, (8, 2)).unflatten(2, (8, 2)).mean(dim=(3, 5))
    torch.testing.assert_close(reduce_images(images, 8, 1.0), halved)
    coarse = halved.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(reduce_images(images, 16, 0.25), 0.75 * coarse + 0.25 * images)


def test_weights_change_once_their_resolution_has_begun(tmp_path):
    run = trainer(tmp_path, class_conditional=True)
    later = {"generator": ("blocks.1.", "to_rgb.1."), "discriminator": ("blocks.0.", "from_rgb.1.")}

    def parts() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        found = {}
        for name, network in run.networks.items():
            state = {key: value.flatten() for key, value in network.state_dict().items()}
            new = [value for key, value in state.items() if key.startswith(later[name])]
            old = [value for key, value in state.items() if not key.startswith(later[name])]
            found[name] = (torch.cat(old).clone(), torch.cat(new).clone())
        return found

    before = parts()
    logged = steps(run, 2)
    of_4x4 = parts()
    assert {"penalty", "real_logits", "fake_logits"} <= logged[0].keys()
    steps(run, 2)
    of_8x8 = parts()
    for name in later:
        assert not torch.equal(before[name][0], of_4x4[name][0]) and torch.equal(before[name][1], of_4x4[name][1])
        assert not torch.equal(of_4x4[name][0], of_8x8[name][0]) and not torch.equal(of_4x4[name][1], of_8x8[name][1])


@pytest.mark.parametrize("options", [{}, {"class_conditional": True}], ids=["plain", "conditional"])
def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path, options):
    assert_resumes_exactly(partial(trainer, **options), tmp_path, stop=3, end=6)  # while 8x8 fades in


def test_another_growth_is_not_resumed(tmp_path):
    assert trainer(tmp_path).train()
    with pytest.raises(ValueError, match="fading_images"):
        trainer(tmp_path, resume_from_checkpoint="latest", fading_images=8)


def test_a_run_leaves_a_pipeline_which_loads_in_both_ways(tmp_path):
    assert trainer(tmp_path, class_conditional=True).train()
    pipe = GANPipeline.from_pretrained(tmp_path)
    assert "Progressive GAN" in (tmp_path / "README.md").read_text(encoding="utf-8")
    other = DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True)
    options = {"class_labels": [3, "seven"], "output_type": "pt"}
    images = [p(generator=torch.Generator().manual_seed(0), **options).images for p in (pipe, other)]
    assert images[0].shape == (2, 1, 8, 8)
    torch.testing.assert_close(images[0], images[1])


def test_a_run_that_ends_early_makes_images_of_the_resolution_that_it_reached(tmp_path):
    assert trainer(tmp_path, max_train_steps=3).train()
    pipe = GANPipeline.from_pretrained(tmp_path)
    assert pipe.image_shape == (1, 4, 4)
    grown = trainer(tmp_path, resume_from_checkpoint="latest")
    assert grown.recipe.grown_size == 4
    assert grown.train() and GANPipeline.from_pretrained(tmp_path).image_shape == (1, 8, 8)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"resolution": [12]}, "--resolution must be a square of 4, 8, 16"),
        ({"resolution": [8, 16]}, "--resolution must be a square"),
        ({"stable_images": 0}, "--stable_images must be at least 1"),
        ({"fading_images": -1}, "--fading_images must be at least 0"),
        ({"gradient_penalty": 0.0}, "--gradient_penalty must be positive"),
        ({"auxiliary_weight": 2.0}, "--auxiliary_weight is for --class_conditional"),
        ({"discriminator_learning_rate": -1.0}, "--discriminator_learning_rate must be positive"),
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
        ({"generator": {"channels": 3}}, "--generator: ProgressiveGenerator has no argument 'channels'"),
        ({"generator": {"sample_size": 16}}, "--generator: sample_size is 8"),
        ({"discriminator": {"block_out_channels": [4]}}, "--discriminator: .* must be 2 positive numbers"),
        ({"train_batch_size": 6}, "--train_batch_size must be a multiple of the 4 images"),
    ],
)
def test_networks_that_do_not_fit_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, **options)
