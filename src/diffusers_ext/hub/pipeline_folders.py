"""Where pipelines and models are loaded from: a folder or a repository of the Hub."""

import os


def refuse_single_file(name_or_path: str | os.PathLike, option: str | None = None) -> None:
    """Refuses a file in place of a folder, which diffusers would read as JSON.

    Args:
        name_or_path (`str` or `os.PathLike`): what the user gave.
        option (`str`, *optional*): the option by which it was given, for the error.

    Raises:
        ValueError: if it is a file.
    """
    if os.path.isfile(name_or_path):
        given = name_or_path if option is None else f"{option} {name_or_path}"
        raise ValueError(
            f"{given} is a single file, but a folder or a repository of the Hub is needed: convert it first, by "
            "`from_single_file` and `save_pretrained` of its class in diffusers, or by python -m "
            "diffusers_ext.converters for checkpoints of other repositories."
        )
