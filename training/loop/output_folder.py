"""What a run checks and cleans in its output folder before it writes there."""

import os
import re
from pathlib import Path

from diffusers_ext.atomic import remove_leftovers
from diffusers_ext.hub.repository import INDEX, PARTS
from diffusers_ext.training.loop.posthoc_ema import FOLDER as SNAPSHOTS


STATE_FILE = "training_state.json"  # in each checkpoint
CHECKPOINT = re.compile(r"checkpoint-\d+")
EARLIER = "earlier-runs"
LOG = "logs/metrics.jsonl"
# The names that version 0.1.0 gave to a checkpoint while another one took its place.
_REPLACED_BY_0_1 = re.compile(r"\.old-(checkpoint-\d+)")


def make_output_folder(folder: Path) -> None:
    """Make the output folder, if it is not there.

    Raises:
        ValueError: if it is a file.
    """
    _refuse_file(folder)
    folder.mkdir(parents=True, exist_ok=True)


def _refuse_file(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--output_dir must be a folder, but {folder} is a file.")


def prepare_output_folder(folder: Path) -> None:
    """Make the output folder, remove what killed runs left unfinished there, and refuse to mix with other models.

    Raises:
        ValueError: if it is a file, or has checkpoints or a model that this program did not write.
    """
    make_output_folder(folder)
    check_output_folder(folder)
    remove_leftovers(folder)
    remove_leftovers(folder / SNAPSHOTS)
    for path in list(folder.iterdir()):
        replaced = _REPLACED_BY_0_1.fullmatch(path.name)
        if replaced and (path / STATE_FILE).is_file() and not (folder / replaced[1]).exists():
            os.rename(path, folder / replaced[1])


def saved_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in an output folder, which need not exist, oldest first."""
    found = [path for path in folder.glob("checkpoint-*") if CHECKPOINT.fullmatch(path.name)]
    return sorted((path for path in found if (path / STATE_FILE).is_file()), key=lambda path: int(path.name[11:]))


def check_output_folder(folder: Path) -> None:
    """Refuse to mix with other models, and write nothing.

    Raises:
        ValueError: if it is a file, or has checkpoints or a model that this program did not write.
    """
    _refuse_file(folder)
    if not folder.exists():
        return
    names = sorted(path.name for path in folder.iterdir())
    foreign = [name for name in names if CHECKPOINT.fullmatch(name) and not (folder / name / STATE_FILE).is_file()]
    ran_before = (folder / LOG).is_file() or (folder / EARLIER).is_dir()
    if not ran_before:
        foreign += [name for name in names if name == INDEX or (PARTS.fullmatch(name) and ".safetensors" in name)]
    if foreign:
        raise ValueError(
            f"--output_dir {folder} has {', '.join(foreign)}, which no run of this program wrote: move it away, or "
            "choose another folder."
        )
