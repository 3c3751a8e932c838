"""From an original checkpoint file to a folder that `from_pretrained` loads."""

import os
from collections.abc import Mapping
from pathlib import Path

from diffusers_ext.atomic import written_beside
from diffusers_ext.converters.checkpoint_files import read_settings
from diffusers_ext.converters.family import Family, RunFiles
from diffusers_ext.converters.listing import families
from diffusers_ext.converters.original_arguments import checked


def convert_checkpoint(
    file: str | os.PathLike,
    output_dir: str | os.PathLike,
    family: str,
    preset: str | None = None,
    id2label: Mapping[int, str] | None = None,
    **options,
) -> str:
    r"""
    Converts a checkpoint file to a folder, which appears complete or not at all.

    `python -m diffusers_ext.converters --help` describes the families, what their files become, their presets and
    their options. A pipeline is written to `output_dir` itself. What no pipeline runs, such as a super-resolution
    network of guided-diffusion, is written to the subfolders `unet` and `scheduler`.

    Args:
        file (`str` or `os.PathLike`):
            A file written by `torch.save` or safetensors. Nothing in it is executed. For `pythae` and
            `disentangling_vae` it may also be the folder of a training run; the `model_config.json` or `specs.json`
            beside a file is read in either case.
        output_dir (`str` or `os.PathLike`):
            The folder to write, which must not exist or must be empty.
        family (`str`):
            The repository and network that the file comes from: a key of `converters.listing.families()`.
        preset (`str`, *optional*):
            The name of the published checkpoint or of its configuration: a key of the family's `presets`.
        id2label (`dict[int, str]`, *optional*, defaults to the ids themselves):
            The names of the classes.
        options:
            What the tensors do not show: arguments of the original's network and of its diffusion process, under the
            original's names. They replace the preset's arguments.

    Returns:
        `str`: what was written, and what was assumed, in a sentence.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the file is not such a checkpoint, an option is missing, unknown or wrong, or the folder is not
            empty.
    """
    known = families()
    if family not in known:
        raise ValueError(f"There is no family {family!r}: it must be one of {', '.join(known)}.")
    chosen = known[family]
    options = {**_preset_options(chosen, preset), **options}
    if id2label is not None:
        if "id2label" not in chosen.options:
            raise ValueError(f"`id2label` is for class-conditional pipelines, and {family} does not become one.")
        options["id2label"] = id2label
    output_dir = Path(output_dir)
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise ValueError(f"{output_dir} is not empty: give a folder that does not exist or is empty.")
    if chosen.run_files is not None:
        file, settings = _read_run(file, chosen.run_files)
        options = {**{name: settings[name] for name in chosen.options if settings.get(name) is not None}, **options}
    checked_options = checked(options, chosen.options)
    components, assumed = chosen.convert(chosen.read(file), checked_options)

    with written_beside(output_dir) as folder:
        for name, component in components.items():
            component.save_pretrained(folder / name)
    written = [f"{type(component).__name__} in {output_dir / name}" for name, component in components.items()]
    return " and ".join(written) + (f", assuming {', '.join(assumed)}" if assumed else "")


def _preset_options(family: Family, preset: str | None) -> Mapping:
    if preset is None:
        return {}
    if preset not in family.presets:
        names = ", ".join(family.presets)
        raise ValueError(
            f"There is no preset {preset!r} of {family.name}: "
            + (f"it must be one of {names}." if names else "this family has no presets.")
        )
    return family.presets[preset]


def _read_run(file: str | os.PathLike, names: RunFiles) -> tuple[Path, dict]:
    """The checkpoint file of a run, given the file or its folder, and the settings beside it."""
    file = Path(file) / names.weights if os.path.isdir(file) else Path(file)
    return file, read_settings(file.with_name(names.settings))
