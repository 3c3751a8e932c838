"""An encoder learns to invert a generator, resumes and is published; and what does not fit is refused."""

from functools import partial

import pytest
import torch
from diffusers import DiffusionPipeline

from diffusers_ext import GANInversionPipeline, GANPipeline
from diffusers_ext.models import DCGANGenerator, StyleGAN2Generator
from diffusers_ext.training.loop.trainer import Trainer
from diffusers_ext.training.train_inversion_encoder import InversionEncoderConfig, InversionEncoderRecipe
from tests.training import runs
from tests.training.runs import assert_resumes_exactly, steps, weights


OPTIONS = {
    "dataset_name": "digits",
    "validation_split": "test",
    "resolution": [8],
    "channels": 1,
    "encoder": {"block_out_channels": [4, 4, 4, 4], "layers_per_block": [1, 1, 1, 1], "se_reduction": 2},
    "max_train_steps": 4,
    "train_batch_size": 8,
    "checkpointing_steps": 2,
    "logging_steps": 1,
    "num_evaluation_samples": 20,
}
E4E = {"delta_weight": 1e-3, "delta_interval": 1, "delta_start": 1, "adversarial_weight": 0.1, "r1": 1.0}


@pytest.fixture(scope="module", autouse=True)
def gan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gan")
    torch.manual_seed(0)
    generator = StyleGAN2Generator(8, 1, 5, 6, block_out_channels=(6, 4), num_mapping_layers=1, num_classes=10)
    generator.measure_style_average()
    GANPipeline(generator).save_pretrained(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OPTIONS, "pretrained_model_name_or_path", str(folder))
        yield folder


def trainer(output_dir, **options) -> Trainer:
    config = InversionEncoderConfig(**{**OPTIONS, "output_dir": str(output_dir), **options})
    return runs.trainer(InversionEncoderRecipe, config)


def test_the_encoder_learns_and_the_generator_stays(tmp_path):
    run = trainer(tmp_path, **E4E)
    frozen = weights(run.recipe.generator)
    before = {name: weights(network) for name, network in run.networks.items()}
    found = steps(run, 2)
    for name, network in run.networks.items():
        assert not torch.equal(weights(network), before[name])
    assert torch.equal(weights(run.recipe.generator), frozen)
    assert {"pixels", "deltas"} <= found[0].keys()
    assert [run.recipe.num_deltas(step) for step in range(4)] == [0, 0, 1, 2]


@pytest.mark.parametrize("options", [pytest.param({}, marks=pytest.mark.slow), E4E], ids=["pixels", "e4e"])
def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path, options):
    assert_resumes_exactly(partial(trainer, **options), tmp_path, stop=2, end=4)


def test_a_run_leaves_a_pipeline_which_loads_in_both_ways(tmp_path):
    assert trainer(tmp_path, **E4E).train()
    pipe = GANInversionPipeline.from_pretrained(tmp_path)
    assert "GAN inversion" in (tmp_path / "README.md").read_text(encoding="utf-8")
    other = DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True)
    options = {"start": "encoder", "num_optimization_steps": 2, "output_type": "pt"}
    images = [p(torch.zeros(1, 8, 8), **options).images for p in (pipe, other)]
    torch.testing.assert_close(images[0], images[1])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"pretrained_model_name_or_path": None}, "--pretrained_model_name_or_path is required"),
        ({"pixel_weight": 0.0}, "--pixel_weight or --perceptual_weight must be above 0"),
        ({"perceptual_network": "x"}, "--perceptual_network is for --perceptual_weight above 0"),
        ({"r1": 3.0}, "--r1 is for --adversarial_weight"),
        ({"delta_start": 3}, "--delta_start is for --delta_interval"),
        ({"delta_interval": 3, "encoder": {"architecture": "psp"}}, "--delta_interval is for the architecture e4e"),
        ({"resolution": [16]}, "makes images of the shape"),
        ({"encoder": {"num_styles": 3}}, "--encoder"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, **options)


def test_a_generator_without_styles_is_refused(tmp_path):
    GANPipeline(DCGANGenerator(8, 1, latent_dim=5, channels=4)).save_pretrained(tmp_path / "dcgan")
    with pytest.raises(ValueError, match="has no styles"):
        trainer(tmp_path, pretrained_model_name_or_path=str(tmp_path / "dcgan"))
