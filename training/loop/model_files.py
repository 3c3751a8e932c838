"""Writing the files of trained models: all of them or none, aligned, and without the paths of this machine."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from diffusers import DiffusionPipeline, ModelMixin

from diffusers_ext.atomic import UNFINISHED, move_into
from diffusers_ext.hub.alignment import align


def write_whole(write: Callable[[Path], None], folder: Path, last: str) -> None:
    """Write files into a folder so that it is complete as soon as the file `last` exists.

    Args:
        write (`Callable`): writes all files into the empty folder that it is given.
        folder (`Path`): the files are moved here, one by one, after all of them are written.
        last (`str`): the name of the file that is moved last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=folder, ignore_cleanup_errors=True) as unfinished:
        write(Path(unfinished))
        for file in Path(unfinished).rglob("*.safetensors"):
            align(file)
        move_into(unfinished, folder, last=last)


def save_pipeline(pipeline: DiffusionPipeline, folder: Path) -> None:
    """Save a pipeline of diffusers without the names of the local folders that its parts were loaded from."""
    pipeline.save_pretrained(folder)
    for file in (folder / "model_index.json", *folder.glob("*/config.json")):
        _forget_origin(file)


def save_model(model: ModelMixin, folder: Path) -> None:
    """Save a model of diffusers without the name of the local folder that it was loaded from."""
    model.save_pretrained(folder)
    _forget_origin(folder / "config.json")


def _forget_origin(file: Path) -> None:
    content = json.loads(file.read_text())
    content.pop("_name_or_path", None)
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
