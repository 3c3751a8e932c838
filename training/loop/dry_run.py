"""A rehearsal of a training, `--dry_run`: everything is built, a few real steps are timed, and nothing is kept.

The run writes into a temporary folder, which is removed, so that a recipe does not know that it is rehearsed.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import torch

from diffusers_ext.training.loop.configuration import RunConfig
from diffusers_ext.training.loop.output_folder import check_output_folder, saved_checkpoints
from diffusers_ext.training.loop.trainer import Trainer


SHOWN_CLASSES = 10


@contextmanager
def without_outputs(config: RunConfig) -> Iterator[RunConfig]:
    """The options of a rehearsal, which writes into a temporary folder instead of `--output_dir`.

    Raises:
        ValueError: if the run could not write into `--output_dir`, or would mix its files with others there.
    """
    output_dir = Path(config.output_dir)
    check_output_folder(output_dir)
    existing = nearest_folder(output_dir)
    if not os.access(existing, os.W_OK):
        raise ValueError(
            f"--output_dir {output_dir} can't be written to: make {existing} writable, or choose another."
        )
    resumed = config.resume_from_checkpoint
    if resumed == "latest":
        saved = saved_checkpoints(output_dir)
        resumed = str(saved[-1]) if saved else None
    elif resumed is not None and (output_dir / resumed).is_dir():
        resumed = str(output_dir / resumed)
    with tempfile.TemporaryDirectory(prefix="dry-run-") as folder:
        yield replace(config, output_dir=folder, resume_from_checkpoint=resumed, push_to_hub=False, report_to="none")


def rehearse(trainer: Trainer, output_dir: str) -> str:
    """Make a few steps, and describe the run.

    Args:
        trainer (`Trainer`): built with the options of [`without_outputs`]; it can't be used afterwards.
        output_dir (`str`): the folder of the real run.

    Returns:
        `str`: lines about the data, the networks, the steps, the time and the memory.
    """
    left = trainer.max_train_steps - trainer.step
    seconds = trainer.rehearse()
    rows = {"data": _data(trainer)}
    rows |= {name: _network(network) for name, network in trainer.networks.items()}
    rows |= {
        "steps": _steps(trainer, left),
        "time": f"{_duration(seconds)} per step (the median of a few), {_duration(seconds * left)} for all, without "
        "samples, evaluation and checkpoints",
        "memory": _memory(trainer),
        "disk": _disk(trainer, nearest_folder(Path(output_dir))),
    }
    width = max(map(len, rows)) + 2
    lines = [f"  {name:<{width}}{text}" for name, text in rows.items()]
    return "\n".join(["The dry run found no error. Without --dry_run, this is what is trained:", *lines])


def nearest_folder(path: Path) -> Path:
    """The folder, or the first one above it that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def _data(trainer: Trainer) -> str:
    dataset, text = trainer.recipe.dataset, trainer.recipe.describe_data()
    if dataset.id2label is None:
        return f"{text}, no classes"
    names = list(map(str, dataset.id2label.values()))
    more = ", ..." if len(names) > SHOWN_CLASSES else ""
    return f"{text}, {len(names)} classes: {', '.join(names[:SHOWN_CLASSES])}{more}"


def _network(network: torch.nn.Module) -> str:
    total = sum(parameter.numel() for parameter in network.parameters())
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    return f"{type(network).__name__}, {total:,} parameters" + ("" if trained == total else f", {trained:,} trained")


def _steps(trainer: Trainer, left: int) -> str:
    if trainer.recipe.takes_all_images:
        return f"{left} step{'s' * (left != 1)} of all images"
    text = f"{left} steps of {trainer.batch_size} {trainer.recipe.examples if trainer.batch_size > 1 else 'example'}"
    if left < trainer.max_train_steps:
        text += f", up to step {trainer.max_train_steps}"
    length = trainer.recipe.dataset.epoch_length
    if length is None:
        return text
    epochs = left * trainer.batch_size / length
    return f"{text}, which is {epochs:,.0f} epochs" if epochs >= 100 else f"{text}, which is {epochs:.3g} epochs"


def _memory(trainer: Trainer) -> str:
    device = trainer.accelerator.device
    if device.type == "cuda":
        used, total = torch.cuda.max_memory_allocated(device), torch.cuda.mem_get_info(device)[1]
        return f"{_size(used)} of the GPU's {_size(total)} at the peak of these steps"
    used, total = psutil.Process().memory_info().rss, psutil.virtual_memory().total
    return f"{_size(used)} of this machine's {_size(total)}, for each process"


def _disk(trainer: Trainer, folder: Path) -> str:
    steps, limit = trainer.config.checkpointing_steps, trainer.config.checkpoints_total_limit
    # Counted as if the first one were written at the next multiple of `steps`; there is always one at the end.
    count = trainer.max_train_steps // steps - trainer.step // steps + (trainer.max_train_steps % steps > 0)
    count = min(count, limit or count)
    needed, free = count * trainer.checkpoint_bytes(), shutil.disk_usage(folder).free
    enough = "" if needed < free else ": too little, unless --checkpoints_total_limit is lower"
    checkpoints = "1 checkpoint" if count == 1 else f"{count} checkpoints"
    return f"{_size(needed)} for {checkpoints}, {_size(free)} are free{enough}"


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes, hours = round(seconds / 60), seconds / 3600
    return f"{minutes} min" if hours < 2 else f"{hours:.1f} h" if hours < 72 else f"{hours / 24:.1f} days"
