import json
import os
import random
import shutil
import signal
import time

import pytest
import torch

from tests.training.runs import TINY_UNET, arguments, finish, records, start, tensors


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert finish(arguments(folder)) == 0
    return folder


def assert_same_end(folder, expected):
    found, wanted = tensors(folder, 12), tensors(expected, 12)
    assert found.keys() == wanted.keys() and len(found) > 100
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    weights = "unet/diffusion_pytorch_model.safetensors"
    assert (folder / weights).read_bytes() == (expected / weights).read_bytes()
    assert [line for line in records(folder)] == [line for line in records(expected)]


def kill_at_random_moments(folder, kills, seed):
    """Start the run again and again, and kill it after a random while."""
    moments = random.Random(seed)
    command = arguments(folder, resume_from_checkpoint="latest")
    for _ in range(kills):
        process = start(command)
        time.sleep(moments.uniform(0.2, 4))
        process.kill()
        process.join()
        for checkpoint in folder.glob("checkpoint-*"):
            assert (checkpoint / "training_state.json").is_file()
            assert (checkpoint / "unet_ema.safetensors").is_file()
    assert finish(command) == 0


def test_a_killed_run_ends_with_the_same_bits(uninterrupted, tmp_path):
    kill_at_random_moments(tmp_path, kills=3, seed=0)
    assert_same_end(tmp_path, uninterrupted)


@pytest.mark.slow
def test_twenty_kills(uninterrupted, tmp_path):
    kill_at_random_moments(tmp_path, kills=20, seed=1)
    assert_same_end(tmp_path, uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_writes_a_checkpoint_and_stops(uninterrupted, tmp_path, number):
    process = start(arguments(tmp_path, checkpointing_steps=1000, resume_from_checkpoint="latest"))
    while not (tmp_path / "logs" / "metrics.jsonl").exists() or not records(tmp_path):
        time.sleep(0.01)
    os.kill(process.pid, number)
    process.join(1800)
    assert process.exitcode == 0
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    assert checkpoint.name != "checkpoint-12" and not (tmp_path / "model_index.json").exists()
    assert finish(arguments(tmp_path, resume_from_checkpoint="latest")) == 0
    assert_same_end(tmp_path, uninterrupted)


# Everything that has a state of its own: importance sampling (warm after a few steps) and post-hoc averages.
STATEFUL = {
    "prediction_type": "epsilon",
    "variance_type": "learned_range",
    "loss_type": "rescaled_kl",
    "timestep_sampling": "loss_second_moment",
    "num_train_timesteps": 3,
    "posthoc_ema_stds": 0.1,
    "posthoc_ema_steps": 2,
}


@pytest.fixture(scope="module")
def uninterrupted_stateful(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted_stateful")
    assert finish(arguments(folder, **STATEFUL)) == 0
    return folder


def test_the_state_of_a_recipe_and_snapshots_resume_with_the_same_bits(uninterrupted_stateful, tmp_path):
    expected = uninterrupted_stateful
    assert tensors(expected, 12)["recipe_state.counts"].sum() == 12 * 8
    assert tensors(expected, 6)["recipe_state.counts"].min() >= 10  # what follows was not drawn uniformly
    command = arguments(tmp_path, **STATEFUL, resume_from_checkpoint="latest")
    process = start(command)
    while not (tmp_path / "posthoc_ema" / "step-8").exists():
        time.sleep(0.01)
    process.kill()
    process.join()
    assert finish(command) == 0
    assert_same_end(tmp_path, expected)
    snapshots = sorted(expected.glob("posthoc_ema/**/*.safetensors"))
    assert [path.parent.name for path in snapshots] == ["step-10", "step-12", "step-2", "step-4", "step-6", "step-8"]
    assert sorted(tmp_path.glob("posthoc_ema/**/*")) == [
        tmp_path / path.relative_to(expected) for path in sorted(expected.glob("posthoc_ema/**/*"))
    ]
    for path in snapshots:
        assert (tmp_path / path.relative_to(expected)).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_snapshots_of_an_earlier_run_are_not_mixed_with_those_of_a_new_one(tmp_path):
    options = {"max_train_steps": 5, "posthoc_ema_stds": 0.1, "posthoc_ema_steps": 1, "checkpointing_steps": 2}
    assert finish(arguments(tmp_path, **options)) == 0
    assert finish(arguments(tmp_path, **options, resume_from_checkpoint="checkpoint-2")) == 0
    (earlier,) = (tmp_path / "earlier-runs").iterdir()
    assert sorted(path.name for path in (earlier / "posthoc_ema").iterdir()) == ["step-3", "step-4", "step-5"]
    assert finish(arguments(tmp_path, **{**options, "max_train_steps": 3})) == 0
    assert sorted(path.name for path in (tmp_path / "posthoc_ema").iterdir()) == ["step-1", "step-2", "step-3"]


@pytest.mark.slow
def test_training_time_is_counted_over_all_runs(tmp_path):
    assert finish(arguments(tmp_path, max_train_steps=2)) == 0
    file = tmp_path / "checkpoint-2" / "training_state.json"
    state = json.loads(file.read_text())
    del state["sha256"], state["files"]  # as an earlier version wrote it
    file.write_text(json.dumps({**state, "training_seconds": 1e6}))
    assert finish(arguments(tmp_path, max_train_steps=3, resume_from_checkpoint="latest")) == 0
    # Far more than any machine takes for one step: the seconds of the first run are not lost.
    assert json.loads((tmp_path / "metrics.json").read_text())["training_seconds"] > 1_000_000


def test_only_the_last_checkpoints_are_kept(tmp_path):
    assert finish(arguments(tmp_path, checkpoints_total_limit=2)) == 0
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-12", "checkpoint-9"]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"unet": json.dumps({**TINY_UNET, "layers_per_block": 2})}, "unet.layers_per_block is 1 there and 2 here"),
        ({"dataset_split": "test"}, "because the data set is"),
        ({"prediction_type": "epsilon"}, "recipe.prediction_type is flow_prediction there and epsilon here"),
        ({"posthoc_ema_stds": 0.1}, "posthoc_ema_stds is None there and [0.1] here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"resume_from_checkpoint": "checkpoint-7"}, "there is no checkpoint checkpoint-7"),
    ],
)
def test_resuming_something_else_is_refused_in_one_sentence(uninterrupted, tmp_path, changed, sentence):
    before = sorted(path.name for path in uninterrupted.rglob("*"))
    command = arguments(uninterrupted, **{"resume_from_checkpoint": "latest", **changed})
    assert finish(command, tmp_path / "log") == 2
    error = (tmp_path / "log").read_text()
    assert sentence in error and "Traceback" not in error
    assert sorted(path.name for path in uninterrupted.rglob("*")) == before


@pytest.mark.parametrize("file", ["training_state.json", "unet.safetensors", "optimizer.bin"])
def test_a_damaged_checkpoint_is_named_in_one_sentence(uninterrupted, tmp_path, file):
    damaged = tmp_path / "run" / "checkpoint-12"
    shutil.copytree(uninterrupted / "checkpoint-12", damaged)
    (damaged / file).write_bytes((damaged / file).read_bytes()[:100])
    command = arguments(tmp_path / "run", resume_from_checkpoint="latest")
    assert finish(command, tmp_path / "log") == 2
    error = (tmp_path / "log").read_text()
    assert f"{damaged} can't be read" in error and "Traceback" not in error


@pytest.mark.slow
def test_resuming_an_older_checkpoint_moves_the_newer_ones_aside(tmp_path):
    options = {"checkpointing_steps": 1, "max_train_steps": 3}
    assert finish(arguments(tmp_path, **options)) == 0
    options |= {"resume_from_checkpoint": "checkpoint-1", "checkpoints_total_limit": 1, "max_train_steps": 2}
    assert finish(arguments(tmp_path, **options)) == 0
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    (earlier,) = (tmp_path / "earlier-runs").iterdir()
    assert sorted(path.name for path in earlier.iterdir()) == ["checkpoint-2", "checkpoint-3"]


def test_a_new_run_moves_the_checkpoints_of_an_earlier_one_aside(tmp_path):
    assert finish(arguments(tmp_path, max_train_steps=3)) == 0
    assert finish(arguments(tmp_path, max_train_steps=2)) == 0
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    (earlier,) = (tmp_path / "earlier-runs").iterdir()
    assert (earlier / "checkpoint-3" / "training_state.json").is_file()
    assert [line["step"] for line in records(tmp_path)] == [1, 2]


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path):
    command = arguments(tmp_path, learning_rate=1e30, lr_scheduler="constant", checkpointing_steps=1, max_grad_norm=0)
    assert finish(command, tmp_path / "log") == 1
    error = (tmp_path / "log").read_text()
    assert "at step" in error and "the last good checkpoint is" in error
    last = max(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert all(tensor.isfinite().all() for tensor in tensors(tmp_path, int(last.name.split("-")[1])).values())
