"""BigGANs are trained, resumed and published; and what does not fit is refused."""

from functools import partial

import pytest
import torch
from diffusers import DiffusionPipeline

from diffusers_ext import GANPipeline
from diffusers_ext.losses import orthogonal_penalty
from diffusers_ext.training.loop.trainer import Trainer
from diffusers_ext.training.train_biggan import BigGANConfig, BigGANRecipe
from tests.training import runs
from tests.training.runs import assert_resumes_exactly, steps, weights, write_few_digits


NETWORK = {"attention_size": None}
OPTIONS = {
    "architecture": "biggan",
    "class_conditional": True,
    "resolution": [8],
    "channels": 1,
    "generator": {**NETWORK, "latent_dim": 6, "block_out_channels": [8, 4], "num_truncations": 3},
    "discriminator": {**NETWORK, "block_out_channels": [4, 8]},
    "statistics_batches": 2,
    "max_train_steps": 4,
    "train_batch_size": 8,
    "checkpointing_steps": 2,
    "logging_steps": 1,
}
DEEP = {
    "architecture": "biggan_deep",
    "class_conditional": False,
    "generator": {**NETWORK, "latent_dim": 6, "block_out_channels": [8, 8, 4], "num_truncations": 3},
    "discriminator": {**NETWORK, "block_out_channels": [4, 8, 8]},
}


@pytest.fixture(scope="module", autouse=True)
def few_images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    write_few_digits(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OPTIONS, "train_data_dir", str(folder))
        yield


def configuration(output_dir, **options) -> BigGANConfig:
    return BigGANConfig(**{**OPTIONS, "output_dir": str(output_dir), **options})


def trainer(output_dir, **options) -> Trainer:
    return runs.trainer(BigGANRecipe, configuration(output_dir, **options))


def test_filters_of_any_length_are_orthogonal_or_not():
    orthogonal = torch.tensor([[2.0, 0, 0, 0], [0, 0, 3.0, 0]]).view(2, 1, 2, 2)
    assert orthogonal_penalty([orthogonal]) == 0
    assert orthogonal_penalty([orthogonal, torch.tensor([[1.0, 2.0], [3.0, 0.0]])]) == 18  # twice (1 * 3) squared


def test_every_second_step_improves_the_generator(tmp_path):
    run = trainer(tmp_path)
    before = {name: weights(network) for name, network in run.networks.items()}
    (logged,) = steps(run, 1)
    first = {name: weights(network) for name, network in run.networks.items()}
    assert {"real_logits", "fake_logits", "fake_accuracy"} <= logged.keys()
    assert torch.equal(before["generator"], first["generator"])
    assert not torch.equal(before["discriminator"], first["discriminator"])
    (logged,) = steps(run, 1)
    assert "orthogonal_penalty" in logged and not torch.equal(first["generator"], weights(run.networks["generator"]))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(DEEP, id="deep", marks=pytest.mark.slow),
        pytest.param({}, id="conditional"),
    ],
)
def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path, options):
    assert_resumes_exactly(partial(trainer, **options), tmp_path, stop=2, end=4)


def test_a_run_leaves_a_pipeline_which_loads_in_both_ways(tmp_path):
    assert trainer(tmp_path, max_train_steps=2).train()
    pipe = GANPipeline.from_pretrained(tmp_path)
    assert "BigGAN," in (tmp_path / "README.md").read_text(encoding="utf-8")
    # whose statistics have been measured
    assert not (pipe.generator.norm_out.variances == 1).any()
    other = DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True)
    options = {"class_labels": [3, "seven"], "output_type": "pt", "truncation": 0.5}
    images = [p(generator=torch.Generator().manual_seed(0), **options).images for p in (pipe, other)]
    assert images[0].shape == (2, 1, 8, 8)
    torch.testing.assert_close(images[0], images[1])
    film = pipe.walk([3], num_frames=3, num_points=2, truncation=0.5, output_type="pt")
    assert film.images.shape == (1, 3, 1, 8, 8)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"resolution": [12]}, "--resolution must be a square of 8, 16, 32"),
        ({"discriminator_steps": 0}, "--discriminator_steps must be at least 1"),
        ({"orthogonal": -1.0}, "--orthogonal must be at least 0"),
        ({"statistics_batches": 0}, "--statistics_batches must be at least 1"),
        ({"train_batch_size": 1}, "--train_batch_size must be at least 2"),
    ],
)
def test_bad_options_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message) as error:
        configuration(tmp_path, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"generator": {"channels": 3}}, "--generator: BigGANGenerator has no argument 'channels'"),
        ({"generator": {"sample_size": 16}}, "--generator: sample_size is 8"),
        ({"generator": {"deep": True}}, "--generator: deep is False"),
        ({"architecture": "biggan_deep", "generator": {}}, "`block_out_channels` must be given for `sample_size` 8"),
        ({**DEEP, "discriminator": {**NETWORK, "block_out_channels": [8, 4]}}, "--discriminator: .* and never fall"),
    ],
)
def test_networks_that_do_not_fit_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, **options)
