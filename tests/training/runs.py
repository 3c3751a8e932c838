"""Whole training runs for the tests: tiny networks on scikit-learn's digits, each run in a process of its own."""

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from diffusers_ext.data.digits import DIGIT_NAMES, load_digits_dataset
from diffusers_ext.training.loop.accelerator import build_accelerator
from diffusers_ext.training.loop.configuration import TrainingConfig
from diffusers_ext.training.loop.context import TrainingContext
from diffusers_ext.training.loop.recipe import Recipe
from diffusers_ext.training.loop.trainer import Trainer


TINY_UNET = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "dropout": 0.1,  # so that a resumed run has to repeat the masks too
}


def arguments(output_dir: Path, **options) -> list[str]:
    """The command line of a tiny run of train_diffusion.py."""
    options = {
        "dataset_name": "digits",
        "resolution": 10,
        "channels": 1,
        "random_flip": True,
        "unet": json.dumps(TINY_UNET),
        "train_batch_size": 8,
        "max_train_steps": 12,
        "checkpointing_steps": 3,
        "learning_rate": 1e-3,
        "lr_warmup_steps": 4,
        "lr_scheduler": "cosine",
        "output_dir": str(output_dir),
        **options,
    }
    return [f"--{name}={value}" for name, value in options.items()]


def context() -> TrainingContext:
    """What a recipe that is built without a trainer is given."""
    return TrainingContext(build_accelerator())


def trainer(
    build_recipe: Callable[[TrainingConfig, TrainingContext], Recipe], config: TrainingConfig, **keywords
) -> Trainer:
    """A trainer in this process; `keywords` are those of [`build_accelerator`]."""
    accelerator = build_accelerator(**keywords)
    return Trainer(build_recipe(config, TrainingContext(accelerator)), accelerator)


def train(command_line: list[str], log: Path) -> None:
    """One run, in this process, with its output in a file."""
    from diffusers_ext.training.loop.command import run

    from diffusers_ext.training.train_diffusion import DiffusionConfig, DiffusionRecipe

    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    run(DiffusionRecipe, DiffusionConfig, command_line)


def start(command_line: list[str], log: Path | str = os.devnull) -> multiprocessing.Process:
    """One run, in a new process that has the libraries imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["diffusers_ext.training.train_diffusion"])
    process = context.Process(target=train, args=(command_line, Path(log)))
    process.start()
    return process


def finish(command_line: list[str], log: Path | str = os.devnull) -> int:
    """One run in a new process, to its end: the exit code."""
    process = start(command_line, log)
    process.join(1800)
    return process.exitcode


def assert_resumes_exactly(train: Callable[..., Trainer], folder: Path, stop: int, end: int) -> None:
    """A run in `folder`/stopped that is stopped after `stop` steps and resumed has the bits of one in `folder`/whole.

    Args:
        train: makes a trainer of an output folder and further options.
        folder: where both runs write.
        stop, end: the steps after which the one is stopped, and both end.
    """
    whole, stopped = folder / "whole", folder / "stopped"
    assert train(whole).train()
    run = train(stopped)
    steps(run, stop)
    run._started = 0.0
    run._save()
    assert train(stopped, resume_from_checkpoint="latest").train()
    expected, found = tensors(whole, end), tensors(stopped, end)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert records(stopped) == records(whole)[stop:]


def write_few_digits(folder: Path, count: int = 40) -> None:
    """A folder per class, of few images and thus soon read."""
    for number, row in enumerate(load_digits_dataset()["test"].select(range(count))):
        class_folder = folder / DIGIT_NAMES[row["label"]]
        class_folder.mkdir(exist_ok=True)
        Image.fromarray(np.asarray(row["image"], dtype=np.uint8)).save(class_folder / f"{number}.png")


def records(output_dir: Path) -> list[dict]:
    """The lines of the run's metrics.jsonl."""
    return [json.loads(line) for line in (output_dir / "logs" / "metrics.jsonl").read_text().splitlines()]


def tensors(output_dir: Path, step: int) -> dict:
    """All weights of a checkpoint, the averaged ones included."""
    folder = output_dir / f"checkpoint-{step}"
    files = sorted(folder.glob("*.safetensors"))
    return {f"{file.stem}.{name}": tensor for file in files for name, tensor in load_file(file).items()}


def steps(trainer, count: int) -> list[dict]:
    """The values to report of the next steps of a `Trainer`, which starts with them."""
    trainer.start()
    for _ in range(count):
        trainer.update()
    return [values for _, values in trainer.reports.read()[0]]


def weights(network: torch.nn.Module) -> torch.Tensor:
    """A copy of all parameters, in one row."""
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()]).clone()


def command_line(options: dict) -> list[str]:
    """Options as a user types them: a dictionary as JSON, and each value of a list as a word."""
    parts = []
    for name, value in options.items():
        value = json.dumps(value) if isinstance(value, dict) else value
        parts += [f"--{name}", *map(str, value)] if isinstance(value, list) else [f"--{name}={value}"]
    return parts


def run_in_processes(command: str, processes: int, options: dict) -> None:
    """Run `command`, such as train_spade, to its end in new processes."""
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    line += ["-m", f"diffusers_ext.training.{command}", *command_line(options)]
    # The time is for a run that hangs, not for one that other work on the machine slows down.
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-4000:]


def launch(command: str, output_dir: Path, processes: int, **options) -> tuple[list[dict], dict]:
    """The records and the last checkpoint's weights of a run of `command` in new processes."""
    run_in_processes(command, processes, {**options, "output_dir": output_dir})
    return records(output_dir), tensors(output_dir, options["max_train_steps"])


def environment() -> dict[str, str]:
    """Variables for commands that the tests start."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


def train_in_processes(command: str, options: dict, output_dir: Path, processes: int) -> None:
    """Run a training command in several processes, with the same images in each step as in one.

    With the usual epsilon of Adam, a weight whose gradient is nothing but rounding, such as the bias of an attention's
    keys or one before a normalization, would move as far as any other, in another direction in each run.
    """
    batch_size = options["train_batch_size"] // processes
    options = {"adam_epsilon": 1e-3, **options, "train_batch_size": batch_size, "output_dir": output_dir}
    run_in_processes(command, processes, options)
