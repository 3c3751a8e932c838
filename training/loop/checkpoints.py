"""Checkpoints: they are complete or absent, and continue exactly the run that wrote them."""

import json
import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from diffusers_ext.atomic import beside, remove, written_beside
from diffusers_ext.training.loop.ema import trained_state
from diffusers_ext.training.loop.file_hashes import check_files, file_hashes, json_hash
from diffusers_ext.training.loop.output_folder import (
    EARLIER,
    STATE_FILE,
    prepare_output_folder,
    saved_checkpoints,
)
from diffusers_ext.training.loop.posthoc_ema import FOLDER as SNAPSHOTS
from diffusers_ext.training.loop.sharded_checkpoints import FOLDER as SHARDS, RunState
from diffusers_ext.training.loop.sharding import is_sharding


logger = logging.getLogger(__name__)

# The errors of reading a checkpoint with missing, truncated or foreign files.
_READ_ERRORS = (
    OSError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    SafetensorError,
    pickle.UnpicklingError,
)


class Checkpoints:
    """The checkpoints of one run: `checkpoint-<step>` folders in its output folder.

    A checkpoint holds the trained tensors of each network and each further state as safetensors, the state that
    Accelerate keeps (optimizers), and `training_state.json`: the step, the identity of the run, and the hashes of all
    files, which tell whether the checkpoint is as it was written. A run with FSDP writes the parts of its processes
    instead (`shards`). Either kind can be continued by any number of processes, with or without FSDP.

    Args:
        output_dir (`str` or `Path`): the output folder of the run.
        accelerator (`Accelerator`): prepared with the networks and optimizers.
        networks (`dict`): the networks without wrappers, by name.
        optimizers (`dict`): their optimizers, by the name of the network.
        states (`dict`): further states to save, by the name of their file: objects with a `state_dict` of tensors and
            a `load_state_dict`, such as averages. They are the same on every process.
        identity (`dict`): JSON values that describe architecture and data; only a run with equal values may continue.
        total_limit (`int` or `None`): how many checkpoints are kept; `None` keeps all.
    """

    def __init__(self, output_dir, accelerator: Accelerator, networks, optimizers, states, identity, total_limit):
        self.output_dir = Path(output_dir)
        self.accelerator = accelerator
        self.networks = networks
        self.states = states
        self.is_sharded = is_sharding(accelerator)
        self.run_state = RunState(networks, optimizers, states)
        self.identity = json.loads(json.dumps(identity))
        self.total_limit = total_limit
        if accelerator.is_main_process:
            prepare_output_folder(self.output_dir)
        accelerator.wait_for_everyone()
        accelerator.register_save_state_pre_hook(self._save_networks)
        accelerator.register_load_state_pre_hook(self._load_networks)

    def save(self, step: int, state: dict) -> None:
        """Write a temporary folder, rename it to `checkpoint-<step>`, and only then remove the oldest checkpoint.

        Every process calls it.
        """
        final = self.output_dir / f"checkpoint-{step}"
        if not self.accelerator.is_main_process:
            self.accelerator.wait_for_everyone()
            self._save_state(beside(final))
            self.accelerator.wait_for_everyone()
        else:
            with written_beside(final) as folder:
                self.accelerator.wait_for_everyone()
                self._save_state(folder)
                self.accelerator.wait_for_everyone()
                state = {**state, "step": step, "identity": self.identity, "files": file_hashes(folder)}
                (folder / STATE_FILE).write_text(json.dumps({**state, "sha256": json_hash(state)}))
            for old in self.saved()[: -self.total_limit] if self.total_limit else []:
                old.rename(beside(old))  # so that a process killed while it deletes leaves no incomplete checkpoint
                remove(beside(old))
        self.accelerator.wait_for_everyone()

    def _save_state(self, folder: Path) -> None:
        if self.is_sharded:
            self.run_state.save(folder)
            return
        self.accelerator.save_state(str(folder))
        for name, kept in self.states.items() if self.accelerator.is_main_process else ():
            _save(kept.state_dict(), folder / f"{name}.safetensors")

    def _load_state(self, folder: Path) -> None:
        if (folder / SHARDS).is_dir():
            self.run_state.load(folder)
        elif self.is_sharded:
            self.run_state.load_whole(folder)
        else:
            self.accelerator.load_state(str(folder))
            for name, kept in self.states.items():
                kept.load_state_dict(load_file(folder / f"{name}.safetensors"))

    def saved(self) -> list[Path]:
        """The complete checkpoints, oldest first."""
        return saved_checkpoints(self.output_dir)

    def find(self, name: str) -> Path | None:
        """The checkpoint that `--resume_from_checkpoint` names; `None` for `latest` when there is none yet.

        `latest` is the last one that is not damaged.

        Raises:
            FileNotFoundError: if there is no such checkpoint.
            ValueError: if `latest` is asked for, and all are damaged.
        """
        if name == "latest":
            return self._latest()
        for path in (self.output_dir / name, Path(name)):
            if (path / STATE_FILE).is_file():
                return path
        saved = ", ".join(path.name for path in self.saved()) or "none"
        raise FileNotFoundError(
            f"--resume_from_checkpoint: there is no checkpoint {name}; {self.output_dir} has {saved}."
        )

    def _latest(self) -> Path | None:
        saved = self.saved()
        for path in reversed(saved):
            try:
                _read_state(path)
            except ValueError as error:
                if path == saved[0]:
                    raise
                logger.warning(f"{path} is damaged ({error.__cause__}): trying the checkpoint before it.")
            else:
                return path
        return None

    def load(self, path: Path) -> dict:
        """Restore everything from a checkpoint, and return the `state` that `save` wrote, with its `step`.

        Raises:
            ValueError: if the checkpoint is damaged, or belongs to another architecture or data set.
        """
        state = _read_state(path)
        # An earlier version recorded less of a run, or in another way.
        recorded = [name for name in self.identity if name in state["identity"]]
        difference = first_difference(
            *({name: identity[name] for name in recorded} for identity in (state["identity"], self.identity))
        )
        if difference is not None:
            where, there, here = difference
            raise ValueError(
                f"{path} can't be resumed by this run, because {where} is {there} there and {here} here: use the "
                "options that it was started with, or another --output_dir."
            )
        with _damage_named(path):
            self._load_state(path)
        return state

    def set_aside(self, after: int | None = None) -> None:
        """Move the checkpoints and snapshots that the run does not continue into `earlier-runs/<time>`.

        Args:
            after (`int`, *optional*): move only checkpoints of later steps; by default all of them, and the logs.
        """
        if self.accelerator.is_main_process:
            written = [*self.saved(), *(self.output_dir / SNAPSHOTS).glob("step-*")]
            written += (self.output_dir / "samples").glob("step-*.png")
            moved = [path for path in written if after is None or _step(path) > after]
            if moved:
                folder = self.output_dir / EARLIER / datetime.now().strftime("%Y-%m-%d-%H%M%S-%f")
                folder.mkdir(parents=True)
                for path in moved + ([self.output_dir / "logs"] if after is None else []):
                    if path.exists():
                        new = folder / path.relative_to(self.output_dir)
                        new.parent.mkdir(exist_ok=True)
                        path.rename(new)
                logger.warning(f"What an earlier run wrote was moved to {folder}.")
        self.accelerator.wait_for_everyone()

    # Accelerate would name the tensors after their current wrapper (DDP). With these hooks a run can also be continued
    # with another number of processes.

    def _save_networks(self, models, weights, output_dir):
        if weights and self.accelerator.is_main_process:
            for name, network in self.networks.items():
                _save(trained_state(network), Path(output_dir) / f"{name}.safetensors")
        weights.clear()

    def _load_networks(self, models, input_dir):
        if models:
            for name, network in self.networks.items():
                saved = load_file(Path(input_dir) / f"{name}.safetensors")
                network.load_state_dict({**network.state_dict(), **saved})
        models.clear()


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Turn the errors of reading a checkpoint into one sentence that names it."""
    try:
        yield
    except _READ_ERRORS as error:
        raise ValueError(
            f"{path} can't be read ({type(error).__name__}: {' '.join(str(error).split())}): name another checkpoint "
            "with --resume_from_checkpoint, or leave this out to start anew."
        ) from error


def _read_state(path: Path) -> dict:
    """The content of the state file of a checkpoint, all files of which are as they were written.

    Raises:
        ValueError: if something is damaged.
    """
    with _damage_named(path):
        state = json.loads((path / STATE_FILE).read_text())
        written = state.pop("sha256", None)  # an earlier version wrote no hashes
        if written is not None and written != json_hash(state):
            raise ValueError(f"{STATE_FILE} is not as it was written")
        check_files(path, state.get("files", {}))
        missing = [name for name in ("step", "samples_seen", "training_seconds", "identity") if name not in state]
        if missing:
            raise ValueError(f"{STATE_FILE} has no {', '.join(missing)}")
    return state


def _step(path: Path) -> int:
    return int(path.stem.rsplit("-", 1)[1])


def _save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    # channels_last weights are not contiguous, and safetensors stores contiguous tensors only.
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def first_difference(there, here, where: str = "the run") -> tuple | None:
    """The first place where two nested JSON values differ: (dotted path, value there, value here), or `None`."""
    if not (isinstance(there, dict) and isinstance(here, dict)):
        return None if there == here else (where, there, here)
    for key in [*there, *(key for key in here if key not in there)]:
        path = key if where == "the run" else f"{where}.{key}"
        difference = first_difference(there.get(key), here.get(key), path)
        if difference is not None:
            return difference
    return None
