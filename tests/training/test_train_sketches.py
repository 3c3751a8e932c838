"""Sketch-rnn learns, is resumed exactly, and is published."""

import json
import math

import pytest
import torch
from diffusers import DiffusionPipeline

from diffusers_ext import SketchPipeline
from diffusers_ext.training.train_sketches import SketchConfig, SketchRecipe
from tests.tiny_sketches import write_stairs
from tests.training import runs
from tests.training.runs import steps, tensors, train_in_processes


MODEL = {
    "encoder_hidden_size": 6,
    "decoder_hidden_size": 16,
    "latent_dim": 4,
    "num_mixtures": 2,
    "recurrent_dropout": 0.1,  # so that a resumed run has to repeat the masks, too
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sketches")
    write_stairs(folder)
    return folder


def configuration(folder, output_dir, **options) -> SketchConfig:
    defaults = {
        "train_data_dir": str(folder),
        "validation_split": "valid",
        "model": MODEL,
        "train_batch_size": 6,
        "max_train_steps": 6,
        "checkpointing_steps": 3,
        "validation_steps": 0,
    }
    return SketchConfig(**{**defaults, "output_dir": str(output_dir), **options})


def trainer(folder, output_dir, **options):
    return runs.trainer(SketchRecipe, configuration(folder, output_dir, **options))


@pytest.mark.parametrize(
    "options", [{}, {"decoder_only": True, "model": {**MODEL, "latent_dim": None}}, {"class_conditional": True}]
)
def test_a_network_learns_to_draw_stairs(folder, tmp_path, options):
    run = trainer(folder, tmp_path, learning_rate=1e-2, max_train_steps=60, **options)
    assert run.networks["model"].config.max_length == 12
    values = steps(run, 60)
    assert values[-1]["offset_loss"] < values[0]["offset_loss"] - 0.5
    assert values[-1]["pen_loss"] < 0.8 * values[0]["pen_loss"]
    assert ("kl_per_latent" in values[0]) == ("decoder_only" not in options)


def test_the_rate_and_the_weight_of_the_divergence_are_those_of_magenta(folder, tmp_path):
    run = trainer(folder, tmp_path, learning_rate=1e-3, lr_decay_rate=0.5, kl_decay_rate=0.5)
    rates = [values["lr"] for values in steps(run, 4)]
    assert rates == pytest.approx([(1e-3 - 1e-5) * 0.5**step + 1e-5 for step in range(4)])
    found = [run.recipe.kl_weight(step) for step in (0, 1, 100)]
    assert found == pytest.approx([0.01, 0.5 - 0.49 / 2, 0.5])


def test_a_small_divergence_has_no_gradient(folder, tmp_path):
    recipe = trainer(folder, tmp_path).recipe
    low, high = torch.tensor([0.1, 0.2], requires_grad=True), torch.tensor([0.1, 0.4], requires_grad=True)
    assert recipe.tolerated(low).tolist() == pytest.approx([0.2, 0.2])
    recipe.tolerated(low).sum().backward()
    recipe.tolerated(high).sum().backward()
    assert recipe.tolerated(high).tolist() == pytest.approx([0.1, 0.4])
    assert low.grad.tolist() == [0, 0] and high.grad.tolist() == [1, 1]


def test_gradients_are_limited_by_value(folder, tmp_path):
    run = trainer(folder, tmp_path, max_grad_value=1e-3)
    optimizer = run.optimizers["model"].optimizer
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.extend(p.grad.abs().max().item() for p in parameters))
    reported = steps(run, 1)
    assert max(seen) == pytest.approx(1e-3) and reported[0]["grad_norm"] > 0.1


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained")
    assert trainer(folder, output, class_conditional=True).train()
    return output


def test_a_resumed_run_is_the_same_bit_for_bit(folder, tmp_path, trained):
    again = tmp_path / "again"
    interrupted = trainer(folder, again, class_conditional=True)
    steps(interrupted, 3)
    interrupted.checkpoints.save(3, {"samples_seen": interrupted.samples_seen, "training_seconds": 0.0})
    del interrupted
    assert trainer(folder, again, class_conditional=True, resume_from_checkpoint="latest").train()
    expected, found = tensors(trained, 6), tensors(again, 6)
    assert expected and all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_run_leaves_a_pipeline_which_loads_in_both_ways(trained):
    def draw(pipe):
        generator = torch.Generator().manual_seed(0)
        return pipe(class_labels=["low", "high"], generator=generator, output_type="svg").images

    pipe = SketchPipeline.from_pretrained(trained)
    other = DiffusionPipeline.from_pretrained(trained, trust_remote_code=True)
    assert type(other).__module__ != type(pipe).__module__
    assert draw(other) == draw(pipe)


def test_a_run_leaves_its_losses_and_a_card(trained):
    (row,) = json.loads((trained / "metrics.json").read_text())["evaluations"]
    assert all(math.isfinite(row[name]) for name in ("offset_loss", "pen_loss", "kl_per_latent"))
    assert row["provenance"]["split"] == "valid" and row["provenance"]["num_sketches"] == 18
    card = (trained / "README.md").read_text()
    assert "48 sketches of at most 12 points" in card and 'output_type="svg"' in card
    assert (trained / "samples.png").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"point_drop": 1.0}, r"--point_drop must be in \[0, 1\)"),
        ({"temperature": 0.0}, "--temperature must be positive"),
        ({"kl_decay_rate": 0.0}, r"--kl_decay_rate must be in \(0, 1\]"),
        ({"max_grad_value": 0.0}, "--max_grad_value must be positive"),
        ({"lr_scheduler": "constant", "lr_end": 0.0}, "--lr_end is for --lr_scheduler exponential, not constant"),
        ({"decoder_only": True, "kl_weight": 1.0}, "--kl_weight has no effect with --decoder_only"),
        ({"dataloader_num_workers": 2}, "--dataloader_num_workers has no effect"),
        ({"dataset_config_name": "raw"}, "--dataset_config_name is for --dataset_name"),
    ],
)
def test_options_that_do_not_fit_are_refused(folder, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        configuration(folder, tmp_path, **options)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_length": 3}, "all sketches are longer than --max_length 3; the shortest is 6"),
        ({"dataset_split": "test"}, "has no arrays test_lengths and test_strokes"),
        ({"model": {"num_mixtures": 0}}, "--model: SketchRNN can't be built"),
        ({"decoder_only": True}, "--model: latent_dim is None"),
        ({"class_conditional": True, "label_column": "none"}, "--class_conditional needs classes"),
    ],
)
def test_data_and_networks_that_do_not_fit_are_refused(folder, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        trainer(folder, tmp_path, **options)


@pytest.mark.slow
def test_two_processes_train_like_one(folder, tmp_path):
    """With the same sketches in each step; the order of additions differs."""
    options = {
        "train_data_dir": folder,
        "model": {**MODEL, "recurrent_dropout": 0.0},
        "train_batch_size": 6,
        "max_train_steps": 3,
        "validation_steps": 0,
        "kl_tolerance": 0.0,
    }
    for processes in (1, 2):
        train_in_processes("train_sketches", options, tmp_path / str(processes), processes)
    expected, found = (tensors(tmp_path / name, 3) for name in ("1", "2"))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5, msg=name)
