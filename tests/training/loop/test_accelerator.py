"""Two processes (gloo on CPU) are the same training as one."""

import subprocess
import sys

import pytest
import torch

from tests.training.runs import arguments, environment, finish, records, tensors


STEPS = 50


def command_line(output_dir, **options):
    options = {"max_train_steps": STEPS, "checkpointing_steps": 1000, "unet": UNET_WITHOUT_DROPOUT, **options}
    return arguments(output_dir, **options)


def launch(output_dir, processes, **options):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command += ["-m", "diffusers_ext.training.train_diffusion", *command_line(output_dir, **options)]
    subprocess.run(command, check=True, env=environment(), capture_output=True, text=True, timeout=1800)
    return records(output_dir)


UNET_WITHOUT_DROPOUT = '{"block_out_channels": [8, 16], "norm_num_groups": 4, "layers_per_block": 1, ' + (
    '"down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"]}'
)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    assert finish(command_line(folder, train_batch_size=8)) == 0
    return records(folder)


def assert_follows(found, expected):
    assert [line["step"] for line in found] == list(range(1, STEPS + 1))
    for line, other in zip(found, expected, strict=True):
        assert line["lr"] == other["lr"]
        assert abs(line["loss"] - other["loss"]) < 1e-5 * max(1, other["loss"])
        assert abs(line["grad_norm"] - other["grad_norm"]) < 1e-4 * max(1, other["grad_norm"])
        assert line["grad_norm"] > 0


def test_training_learns(one_process):
    losses = [line["loss"] for line in one_process]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_two_processes_follow_one(one_process, tmp_path):
    assert_follows(launch(tmp_path, 2, train_batch_size=4), one_process)


IMPORTANCE = {"prediction_type": "epsilon", "loss_type": "kl", "timestep_sampling": "loss_second_moment"}
IMPORTANCE |= {"num_train_timesteps": 8}


@pytest.mark.slow
def test_importance_sampling_is_the_same_in_two_processes_with_accumulation(tmp_path):
    expected = launch(tmp_path / "one", 1, train_batch_size=8, **IMPORTANCE)
    options = {"train_batch_size": 2, "gradient_accumulation_steps": 2, **IMPORTANCE}
    assert_follows(launch(tmp_path / "two", 2, **options), expected)
    histories = [tensors(tmp_path / name, STEPS) for name in ("one", "two")]
    assert histories[0]["recipe_state.counts"].min() >= 10  # warm, so that timesteps are drawn by their losses
    assert torch.equal(histories[0]["recipe_state.counts"], histories[1]["recipe_state.counts"])
    # Entry by entry: the losses were taken in in the order of the global batch.
    torch.testing.assert_close(
        histories[0]["recipe_state.losses"], histories[1]["recipe_state.losses"], rtol=1e-3, atol=1e-6
    )


@pytest.mark.slow
def test_two_processes_with_accumulation_follow_one(one_process, tmp_path):
    assert_follows(launch(tmp_path, 2, train_batch_size=2, gradient_accumulation_steps=2), one_process)
