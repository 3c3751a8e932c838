"""Options, metrics and commands as they are published: without the folders of the author's machine."""

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path


def without_local_paths(value, name: str = ""):
    """JSON values in which each path of this machine is replaced by its last part.

    Paths are the values of options whose names end with `_dir`, absolute paths, paths that start with `~` or `..`, and
    strings with a separator that exist as files or folders on this machine.

    Args:
        value: a string, number, or `None`, or a list or dictionary of such values.
        name (`str`): the name of the option or entry with this value.
    """
    if isinstance(value, dict):
        return {key: without_local_paths(entry, str(key)) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_local_paths(entry, name) for entry in value]
    return _last_part(value) if _is_path(value, name) else value


def local_paths(value, name: str = "") -> Iterator[str]:
    """The strings that [`without_local_paths`] replaces."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from local_paths(entry, str(key))
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from local_paths(entry, name)
    elif _is_path(value, name):
        yield value


def text_without(paths: Iterable[str], text: str) -> str:
    """A text in which each of these paths is replaced by its last part."""
    for path in sorted(set(paths), key=len, reverse=True):  # a folder after its contents
        if len(Path(path).parts) > 1:
            text = re.sub(rf"(?<![\w./~-]){re.escape(path)}(?![\w-])", lambda found: _last_part(found[0]), text)
    return text


def shown_arguments(arguments: list[str]) -> list[str]:
    """The options of a command line, `--name value` or `--name=value`, without local paths and the access token."""
    shown, name = [], ""
    for argument in arguments:
        flag, assigned, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
        name = flag.removeprefix("--").replace("-", "_") or name
        if name != "hub_token":
            shown.append(flag + assigned + _shown_value(value, name))
    return shown


def _shown_value(value: str, name: str) -> str:
    try:
        parsed = json.loads(value)
    except ValueError:
        parsed = value
    if not isinstance(parsed, dict | list):
        return without_local_paths(value, name)
    public = without_local_paths(parsed, name)
    return value if public == parsed else json.dumps(public)


def _is_path(value, name: str) -> bool:
    if not isinstance(value, str) or not value or "\n" in value:
        return False
    if name.endswith("_dir") or os.path.isabs(value):
        return True
    parts = Path(value).parts
    # Addresses such as https://... and names of repositories have separators too, but no such file exists here.
    return parts[:1] in (("~",), ("..",)) or (len(parts) > 1 and os.path.exists(value))


def _last_part(path: str) -> str:
    return Path(os.path.abspath(os.path.expanduser(path))).name
