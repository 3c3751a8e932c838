"""Networks that predict pixels train, resume and are published; and what does not fit is refused."""

import json

import pytest
import torch
from diffusers import DiffusionPipeline

from diffusers_ext import AutoregressivePipeline
from diffusers_ext.training import evaluate_pipeline
from diffusers_ext.training.train_pixels import PixelConfig, PixelRecipe
from tests.training import runs
from tests.training.runs import context, steps, tensors, weights


OPTIONS = {
    "dataset_name": "digits",
    "validation_split": "test",
    "resolution": [8],
    "channels": 1,
    "num_levels": 17,
    "model": {"hidden_channels": 4, "dilations": [1, 2], "dropout": 0.1},
    "max_train_steps": 4,
    "train_batch_size": 8,
    "checkpointing_steps": 2,
    "num_evaluation_samples": 20,
}
MODELS = {
    "pixelcnn": {"hidden_channels": 4, "num_layers": 1},
    "gated_pixelcnn": OPTIONS["model"],
    "pixelcnn_pp": {"hidden_channels": 4, "num_resnets": 1, "num_mixtures": 2},
    "transformer": {"hidden_size": 8, "num_layers": 1},
}


def configuration(output_dir, **options) -> PixelConfig:
    return PixelConfig(**{**OPTIONS, "output_dir": str(output_dir), **options})


def trainer(output_dir, **options):
    return runs.trainer(PixelRecipe, configuration(output_dir, **options))


@pytest.mark.parametrize("architecture", MODELS)
def test_every_network_learns(tmp_path, architecture):
    run = trainer(tmp_path, architecture=architecture, model=MODELS[architecture], class_conditional=True)
    before = weights(run.networks["model"])
    first, second = steps(run, 2)
    assert not torch.equal(weights(run.networks["model"]), before)
    assert first["loss"] > 0 and second["grad_norm"] > 0


def test_the_loss_is_in_bits_per_dimension(tmp_path):
    run = trainer(tmp_path, model={**OPTIONS["model"], "dropout": 0.0})
    with torch.no_grad():
        run.networks["model"].proj_out.weight.zero_()
        run.networks["model"].proj_out.bias.zero_()
    (values,) = steps(run, 1)
    assert values["loss"] == pytest.approx(4.0875, abs=1e-4)  # log2 of 17 levels


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    assert trainer(folder, class_conditional=True, feature_extractor="digits").train()
    return folder


def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path, trained):
    options = {"class_conditional": True, "feature_extractor": "digits"}
    stopped = trainer(tmp_path, **options)
    steps(stopped, 2)
    stopped._started = 0.0
    stopped._save()
    assert trainer(tmp_path, resume_from_checkpoint="latest", **options).train()
    expected, found = tensors(trained, 4), tensors(tmp_path, 4)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path):
    """With the same images in each step; the order of additions differs."""
    options = {**OPTIONS, "resolution": 8, "class_conditional": True, "model": {**OPTIONS["model"], "dropout": 0.0}}
    for processes in (1, 2):
        runs.train_in_processes("train_pixels", options, tmp_path / str(processes), processes)
    one, two = tensors(tmp_path / "1", 4), tensors(tmp_path / "2", 4)
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


def test_a_run_leaves_a_pipeline_which_loads_in_both_ways(trained):
    def images(pipe):
        generator = torch.Generator().manual_seed(0)
        return pipe(class_labels=["three"], generator=generator, output_type="pt").images

    pipe = AutoregressivePipeline.from_pretrained(trained)
    other = DiffusionPipeline.from_pretrained(trained, trust_remote_code=True)
    assert type(other).__module__ != type(pipe).__module__
    assert torch.equal(images(other), images(pipe)) and images(pipe).shape == (1, 1, 8, 8)


def test_a_run_leaves_its_likelihood_measures_and_a_card(trained):
    likelihood, samples = json.loads((trained / "metrics.json").read_text())["evaluations"]
    assert 2 < likelihood["bits_per_dim"] < 4.5 and likelihood["provenance"]["split"] == "test"
    assert likelihood["provenance"]["num_images"] == 531
    assert {"fid", "accuracy"} <= samples.keys()
    card = (trained / "README.md").read_text()
    assert "pipe.bits_per_dim(images" in card and "GatedPixelCNN" in card


def test_the_evaluation_measures_the_same_likelihood(trained, capsys, tmp_path):
    arguments = ["--pretrained_model_name_or_path", str(trained), "--dataset_name", "digits"]
    evaluate_pipeline.main([*arguments, "--dataset_split", "test", "--likelihoods", "exact"])
    (row,) = json.loads(capsys.readouterr().out)
    expected = json.loads((trained / "metrics.json").read_text())["evaluations"][0]
    assert row["bits_per_dim"] == pytest.approx(expected["bits_per_dim"], rel=1e-6)
    with pytest.raises(SystemExit):
        evaluate_pipeline.main([*arguments, "--likelihoods", "vlb"])
    assert "may be exact alone, and not vlb" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_levels": 1}, "--num_levels must be from 2 to 256, not 1"),
        ({"model": {"heads": 2}}, "--model: GatedPixelCNN has no argument 'heads'"),
        ({"model": {"num_levels": 9}}, "--model: num_levels is 17"),
        ({"architecture": "pixelcnn_pp", "model": MODELS["pixelcnn_pp"], "resolution": [10]}, "multiples of 4"),
    ],
)
def test_bad_options_are_refused_at_once(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        recipe = PixelRecipe(configuration(tmp_path, **options), context())
        recipe.networks()
