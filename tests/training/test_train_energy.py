"""Energy-based models train by each objective, resume with their buffer, and are published; the rest is refused."""

import json

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file

from diffusers_ext import EnergyPipeline
from diffusers_ext.training.energy.replay_buffer import ReplayBuffer
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.train_energy import EnergyConfig, EnergyRecipe
from tests.training import runs
from tests.training.runs import context, steps, tensors, weights


OPTIONS = {
    "dataset_name": "digits",
    "validation_split": "test",
    "resolution": [8],
    "channels": 1,
    "architecture": "mlp",
    "model": {"hidden_dims": [8]},
    "num_chain_steps": 2,
    "num_inference_steps": 2,
    "buffer_size": 16,
    "max_train_steps": 4,
    "train_batch_size": 8,
    "checkpointing_steps": 2,
    "num_evaluation_samples": 20,
}
WITHOUT_BUFFER = {name: value for name, value in OPTIONS.items() if name != "buffer_size"}
WITHOUT_CHAINS = {name: value for name, value in WITHOUT_BUFFER.items() if name != "num_chain_steps"}
MODELS = {
    "conv": {"hidden_channels": [4], "strides": [2], "head_dim": 4},
    "mlp": {"hidden_dims": [8]},
    "resnet": {"hidden_channels": [4, 4]},
    "wide_resnet": {"depth": 10, "width": 1},
}


def configuration(output_dir, base=OPTIONS, **options) -> EnergyConfig:
    return EnergyConfig(**{**base, "output_dir": str(output_dir), **options})


def trainer(output_dir, base=OPTIONS, **options):
    return runs.trainer(EnergyRecipe, configuration(output_dir, base, **options))


@pytest.mark.parametrize("architecture", MODELS)
def test_every_network_learns(tmp_path, architecture):
    run = trainer(tmp_path, architecture=architecture, model=MODELS[architecture], class_conditional=True)
    before, images = weights(run.networks["model"]), run.recipe.buffer.images.clone()
    _, second = steps(run, 2)
    assert not torch.equal(weights(run.networks["model"]), before) and second["grad_norm"] > 0
    assert run.networks["model"].training
    assert 1 <= (run.recipe.buffer.images != images).flatten(1).any(dim=1).sum() <= 16


@pytest.mark.parametrize(
    "base, options",
    [
        (WITHOUT_BUFFER, {"objective": "contrastive_divergence"}),
        (WITHOUT_CHAINS, {"objective": "score_matching"}),
        (OPTIONS, {"class_conditional": True, "classification_weight": 0.1, "max_grad_rms": 3.0}),
    ],
)
def test_every_objective_learns(tmp_path, base, options):
    run = trainer(tmp_path, base, **options)
    before = weights(run.networks["model"])
    _, second = steps(run, 2)
    assert not torch.equal(weights(run.networks["model"]), before) and second["grad_norm"] > 0
    assert ("train_accuracy" in second) == ("classification_weight" in options)
    assert (run.recipe.buffer is None) == ("objective" in options)


def test_the_energy_of_images_falls_below_that_of_noise(tmp_path):
    run = trainer(tmp_path, learning_rate=0.01, restart_probability=1.0, step_size=0.001)
    last = steps(run, 20)[-1]
    assert last["real_energy"] < last["fake_energy"]


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
    kept = [load_file(folder / "checkpoint-4" / "recipe_state.safetensors") for folder in (trained, tmp_path)]
    assert kept[0].keys() == {"images", "labels"}
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path):
    """With the same images and chains in each step; the order of additions differs."""
    options = {**OPTIONS, "resolution": 8, "class_conditional": True}
    for processes in (1, 2):
        runs.train_in_processes("train_energy", options, tmp_path / str(processes), processes)
    one, two = tensors(tmp_path / "1", 4), tensors(tmp_path / "2", 4)
    for folder, values in ((tmp_path / "1", one), (tmp_path / "2", two)):
        values |= load_file(folder / "checkpoint-4" / "recipe_state.safetensors")  # the buffer
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


def test_a_run_leaves_a_pipeline_which_loads_in_both_ways(trained):
    def images(pipe):
        generator = torch.Generator().manual_seed(0)
        return pipe(class_labels=["three"], generator=generator, output_type="pt").images

    pipe = EnergyPipeline.from_pretrained(trained)
    other = DiffusionPipeline.from_pretrained(trained, trust_remote_code=True)
    assert type(other).__module__ != type(pipe).__module__
    assert torch.equal(images(other), images(pipe)) and images(pipe).shape == (1, 1, 8, 8)


def test_a_run_leaves_its_measures_and_a_card(trained):
    outliers, samples = json.loads((trained / "metrics.json").read_text())["evaluations"]
    assert outliers["provenance"] == {"num_images": 531, "split": "test"}
    assert all(0 <= area <= 1 for area in outliers["outlier_auroc"].values())
    assert {"fid", "accuracy"} <= samples.keys()
    card = (trained / "README.md").read_text()
    assert "pipe.energy(images)" in card and "EnergyMLP" in card


def test_chains_return_to_their_places_and_keep_their_classes():
    buffer = ReplayBuffer(3, (1, 2, 2), 5, 0.0, torch.Generator().manual_seed(0))
    images, labels, places = buffer.sample(Draw(0, torch.device("cpu")).begin(0, range(6)))
    assert torch.equal(images, buffer.images[places]) and torch.equal(labels, buffer.labels[places])
    new = torch.arange(6.0)[:, None, None, None].expand(-1, 1, 2, 2)
    buffer.update(new, torch.arange(6), places)
    for place in places.unique():
        last = (places == place).nonzero().max()  # of several chains from one place
        assert (buffer.images[place] == last).all() and buffer.labels[place] == last
    restarted = ReplayBuffer(3, (1, 2, 2), 5, 1.0, torch.Generator().manual_seed(0))
    images, labels, places = restarted.sample(Draw(0, torch.device("cpu")).begin(0, range(6)))
    assert not (images == restarted.images[places]).any() and images.abs().max() <= 1 and labels.max() < 5


@pytest.mark.parametrize(
    "options, message",
    [
        ({"step_size": 0.0}, "--step_size must be positive"),
        ({"restart_probability": 1.5}, "--restart_probability must be from 0 to 1"),
        ({"final_noise_std": 0.1}, "--final_noise_std must be above 0 and at most --noise_std"),
        ({"noise_range": [0.1, 2.0]}, "--noise_range is for --objective score_matching"),
        ({"objective": "contrastive_divergence"}, "--buffer_size is for --objective persistent"),
        ({"classification_weight": 1.0}, "--classification_weight needs --class_conditional"),
        (
            {"classification_weight": 1.0, "class_conditional": True, "architecture": "resnet", "model": {}},
            "--classification_weight needs an --architecture that",
        ),
        ({"max_grad_rms": 0.0}, "--max_grad_rms must be positive"),
        ({"model": {"heads": 2}}, "--model: EnergyMLP has no argument 'heads'"),
    ],
)
def test_bad_options_are_refused_at_once(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        recipe = EnergyRecipe(configuration(tmp_path, **options), context())
        recipe.networks()
