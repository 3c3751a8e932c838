"""Weights that are divided among two processes (FSDP2): the same training, checkpoints and results as on one."""

import json

import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file

from diffusers_ext.training.loop.sharding import block_names
from tests.tiny_unet import tiny_unet
from tests.training.runs import TINY_UNET, arguments, records
from tests.training.sharded_run import held_bytes, launch


STEPS = 20
DIFFUSION = "diffusers_ext.training.train_diffusion"
UNET = json.dumps({**TINY_UNET, "dropout": 0.0})


def train(output_dir, processes=2, **options):
    """A run, and what it logs and publishes."""
    options = {"max_train_steps": STEPS, "checkpointing_steps": 10, "num_inference_steps": 2, "unet": UNET, **options}
    done = launch(DIFFUSION, arguments(output_dir, train_batch_size=8 // processes, **options), processes)
    assert done.returncode == 0, done.stderr[-3000:]
    return records(output_dir), load_file(output_dir / "unet" / "diffusion_pytorch_model.safetensors")


def assert_close(found, expected):
    for line, other in zip(found[0], expected[0], strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
    assert found[1].keys() == expected[1].keys()
    for name, tensor in expected[1].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=1e-4, atol=1e-4)


def test_blocks_are_those_that_a_network_has():
    assert block_names(tiny_unet()) == {"ResnetBlock2D", "Attention"}
    assert block_names(tiny_unet(), ["ResnetBlock2D", "Other"]) == {"ResnetBlock2D"}
    assert block_names(torch.nn.Linear(1, 1)) == set()


@pytest.mark.slow
def test_two_processes_with_divided_weights_follow_one_and_resume_exactly(tmp_path):
    expected, whole = train(tmp_path / "one", 1), train(tmp_path / "two", channels_last=True)
    assert (tmp_path / "two" / "checkpoint-10" / "shards").is_dir()
    assert_close(whole, expected)
    UNet2DModel.from_pretrained(tmp_path / "two" / "unet")
    one, two = (held_bytes(tmp_path / name) for name in ("one", "two"))
    assert two < 0.6 * one, (two, one)

    def resumed(name, processes):
        """The run in a folder, from its checkpoint of step 10."""
        return train(tmp_path / name, processes, resume_from_checkpoint="checkpoint-10")

    again = resumed("two", 2)
    assert again[0] == whole[0][:10] + again[0][10:]
    for line, other in zip(again[0], whole[0], strict=True):
        assert line == other
    assert all(torch.equal(tensor, whole[1][name]) for name, tensor in again[1].items())
    assert_close(resumed("two", 1), expected)
    assert_close(resumed("one", 2), expected)


@pytest.mark.slow
def test_what_cannot_be_divided_is_refused(tmp_path):
    gan = ["--dataset_name=digits", "--resolution=8", "--channels=1", f"--output_dir={tmp_path}", "--r1=1"]
    done = launch("diffusers_ext.training.train_gan", gan)
    assert done.returncode != 0
    assert "error: A penalty of gradients (--gradient_penalty, --r1, --r2) needs the graph" in done.stderr
