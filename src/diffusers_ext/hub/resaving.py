"""Code that diffusers runs from the files of a repository comes along when its pipeline is saved again."""

import functools
import inspect
import json
from pathlib import Path

from diffusers import DiffusionPipeline
from diffusers.utils.constants import DIFFUSERS_DYNAMIC_MODULE_NAME
from diffusers.utils.torch_utils import unwrap_module


def is_run_from_file(published_class: type) -> bool:
    """Whether diffusers runs the code of a class from a file of a repository."""
    return published_class.__module__.split(".")[0] == DIFFUSERS_DYNAMIC_MODULE_NAME


def write_code(published_class: type, folder: Path) -> list[str]:
    """Writes the file of such a class, and returns how `model_index.json` names the class."""
    # Diffusers has one file for all versions of a class, so a published file keeps its text in its classes.
    code = vars(published_class).get("published_code")
    name = published_class.__module__.split(".")[-1]
    if code is None:
        code = Path(inspect.getsourcefile(published_class)).read_text(encoding="utf-8")
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    return [name, published_class.__name__]


def read_json(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def write_json(file: Path, content: dict) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def drop_local_paths(folder: Path) -> None:
    """Removes the folders from which a pipeline and its models were loaded: readers of a saved one don't have them."""
    for file in (folder / "model_index.json", *folder.glob("*/config.json")):
        content = read_json(file)
        if content.pop("_name_or_path", None) is not None:
            write_json(file, content)


def keep_code(pipeline_class: type[DiffusionPipeline]) -> None:
    """Lets a pipeline class save its code, and the code of its components, beside its `model_index.json`."""
    save_config = pipeline_class.save_config

    @functools.wraps(save_config)
    def save_config_and_code(self, save_directory, *args, **kwargs):
        save_config(self, save_directory, *args, **kwargs)
        folder = Path(save_directory)
        index = read_json(folder / "model_index.json")
        index["_class_name"] = write_code(type(self), folder)
        for name, component in self.components.items():
            component_class = type(unwrap_module(component))
            if is_run_from_file(component_class) and (folder / name).is_dir():
                index[name] = write_code(component_class, folder / name)
        write_json(folder / "model_index.json", index)
        drop_local_paths(folder)

    pipeline_class.save_config = save_config_and_code
