"""The files of a published pipeline: one repository for readers with this package and for readers without it.

In addition to what diffusers saves, a repository contains the code that diffusers does not have, as single files:

    model_index.json                 "_class_name": ["pipeline_x", "XPipeline"], "scheduler": ["scheduling_y", "Y"]
    pipeline_x.py
    scheduler/scheduling_y.py        beside scheduler_config.json

`DiffusionPipeline.from_pretrained(..., trust_remote_code=True)` of diffusers runs these files. This package takes the
same names for its own classes ([`installed_form`]) and does not run the files. Files keep the name that they have in
this package, because diffusers executes all of them in one flat namespace, where a second `pipeline.py` would
overwrite the globals of the first. They stand alone: what they import from files beside them is inlined
([`diffusers_ext.hub.inlining`]).
"""

import inspect
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import diffusers.pipelines
from diffusers import DiffusionPipeline
from diffusers.pipelines.pipeline_loading_utils import LOADABLE_CLASSES

import diffusers_ext
from diffusers_ext.hub.inlining import inline
from diffusers_ext.hub.resaving import drop_local_paths, is_run_from_file, read_json, write_code, write_json


INDEX = DiffusionPipeline.config_name
CARD = "README.md"
# Files beside the pipeline in its folder that belong to the model. No other file is published.
COMPANIONS = (CARD, "LICENSE", "samples.png", "metrics.json", "training_config.yaml", "posthoc_ema.json")
# A part of a pipeline, for others to load: LoRA weights, learned words, or a single model such as a ControlNet.
PARTS = re.compile(
    r"(pytorch_lora_weights|learned_embeds|diffusion_pytorch_model)[^/]*\.safetensors(\.index\.json)?|config\.json"
)
COMPONENT_SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".jinja")

WEIGHTS = re.compile(
    r"(diffusion_pytorch_model|pytorch_model|model)"
    r"(\.(?P<variant>[^.]+?))?(-\d{5}-of-\d{5})?\.(safetensors|bin)(?P<index>\.index(\.(?P<index_variant>[^.]+))?\.json)?"
)


def is_component(value) -> bool:
    """Whether a value of `model_index.json` names a component: `[library, class]`, or `[null, null]` for none."""
    return isinstance(value, list) and len(value) == 2 and all(isinstance(part, str | None) for part in value)


def components(index: dict) -> dict[str, list[str]]:
    """The components that a `model_index.json` names, `{name: [library, class]}`, without missing ones."""
    return {
        name: value for name, value in index.items() if name[0] != "_" and is_component(value) and value[0] is not None
    }


def bundle(folder: Path, pipeline_class: type) -> None:
    """Adds the code that diffusers does not have to a saved pipeline, and names it in its `model_index.json`.

    Args:
        folder (`Path`): the folder that diffusers' `save_pretrained` wrote.
        pipeline_class (`type`): the plain class of the pipeline file.

    Raises:
        ValueError: if a file of code would not stand alone.
    """
    index = read_json(folder / INDEX)
    index["_class_name"] = _bundle_class(pipeline_class, folder, pipeline_class.__name__)
    for name, (library, class_name) in components(index).items():
        if library == "diffusers_ext":
            index[name] = _bundle_class(getattr(diffusers_ext, class_name), folder / name)
        elif library in sys.modules and is_run_from_file(component_class := getattr(sys.modules[library], class_name)):
            index[name] = write_code(component_class, folder / name)
    write_json(folder / INDEX, index)
    drop_local_paths(folder)


def _bundle_class(published_class: type, folder: Path, pipeline_class: str | None = None) -> list[str]:
    file = Path(inspect.getsourcefile(published_class))
    (folder / file.name).write_text(inline(file, pipeline_class), encoding="utf-8")
    return [file.stem, published_class.__name__]


def bundled_pipeline_class(folder: Path) -> str | None:
    """The class in the pipeline file of a saved pipeline; `None` for pipelines of diffusers, which have no file."""
    name = read_json(folder / INDEX)["_class_name"]
    return name[1] if isinstance(name, list) else None


def installed_form(index: dict) -> dict:
    """A `model_index.json` with the classes of this package in place of the files with their copies.

    Raises:
        ValueError: if neither this package nor diffusers has the class of a component.
    """
    installed = dict(index)
    if isinstance(index.get("_class_name"), list):
        installed["_class_name"] = index["_class_name"][1]
    for name, (library, class_name) in components(index).items():
        own_class = getattr(diffusers_ext, class_name, None)
        if isinstance(own_class, type) and own_class.__module__.split(".")[-1] == library:
            installed[name] = ["diffusers_ext", class_name]
        elif not (library in LOADABLE_CLASSES or hasattr(diffusers.pipelines, library) or library in sys.modules):
            raise ValueError(
                f"{INDEX} wants {class_name} of {library} as `{name}`, which diffusers_ext "
                f"{diffusers_ext.__version__} does not have: update diffusers_ext, import the module that has it, or "
                "run the code of the repository with DiffusionPipeline.from_pretrained(..., trust_remote_code=True)."
            )
    return installed


def _set_of_weights(filename: str) -> tuple[str, str | None] | None:
    """The folder and the variant of a weight file or its index; `None` for other files."""
    folder, _, name = filename.rpartition("/")
    match = WEIGHTS.fullmatch(name)
    return match and (folder, match["index_variant"] if match["index"] else match["variant"])


def superseded_weights(existing: Iterable[str], written: Iterable[str]) -> set[str]:
    """Existing weight files that are obsolete after `written` were saved: shards, or the single file before shards.

    Weights of other variants and files in other folders are not among them. Names are relative, with `/`.
    """
    written = set(written)
    sets = {_set_of_weights(filename) for filename in written} - {None}
    return {filename for filename in set(existing) - written if _set_of_weights(filename) in sets}


def files_to_load(filenames: Iterable[str], folders: Iterable[str], variant: str | None) -> list[str]:
    """The files to download for the components in `folders`: no code, and safetensors only.

    A component without weights of the `variant` is loaded with the weights without variant, as in diffusers.
    """
    inside = [f for f in filenames if f.split("/")[0] in set(folders) and f.endswith(COMPONENT_SUFFIXES)]
    sets = {_set_of_weights(filename) for filename in inside}

    def is_wanted(filename: str) -> bool:
        weights = _set_of_weights(filename)
        return weights is None or weights == (weights[0], variant if (weights[0], variant) in sets else None)

    return [filename for filename in inside if is_wanted(filename)]


def files_to_publish(folder: Path) -> list[str]:
    """The files of a pipeline folder that belong to the model, as names relative to it.

    These are the pipeline and the components that it names, or else the files that match [`PARTS`], and
    [`COMPANIONS`]. Checkpoints, logs and other files in the folder do not belong to it.

    Raises:
        ValueError: if there is neither a pipeline nor a part of a pipeline in the folder, or if readers could not load
            it.
    """
    companions = [folder / name for name in COMPANIONS if (folder / name).is_file()]
    if not (folder / INDEX).is_file():
        parts = [path for path in sorted(folder.iterdir()) if PARTS.fullmatch(path.name)]
        if not any(path.suffix == ".safetensors" for path in parts):
            raise ValueError(
                f"{folder} can't be published, because it has no {INDEX}, and no weights of a part of a pipeline: "
                "it is not a saved pipeline."
            )
        return [path.name for path in parts + companions]
    index = read_json(folder / INDEX)
    files = [folder / INDEX, *companions]
    if isinstance(index["_class_name"], list):
        files.append(folder / f"{index['_class_name'][0]}.py")
    for name, (library, class_name) in components(index).items():
        code = folder / name / f"{library}.py"
        if code.is_file():
            files.append(code)
        elif library not in LOADABLE_CLASSES and not hasattr(diffusers.pipelines, library):
            raise ValueError(
                f"{folder} can't be published, because its `{name}` is {class_name} of {library}, a module that "
                "readers don't have; use a class of diffusers, transformers or diffusers_ext."
            )
        saved = [path for path in sorted((folder / name).rglob("*")) if path.is_file()]
        if any(path.suffix == ".bin" for path in saved) and not any(path.suffix == ".safetensors" for path in saved):
            raise ValueError(f"{folder} can't be published, because the weights of `{name}` are not safetensors.")
        files += [path for path in saved if path.name.endswith(COMPONENT_SUFFIXES)]
    return [path.relative_to(folder).as_posix() for path in files]
