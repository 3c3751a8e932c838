"""Files that this program writes into a folder where the user may have files of the same names.

The `RECORD` in the folder has the name under which each file was written, and a hash of its content. A file that is
not recorded, or was changed since, belongs to the user: it stays, and the new file gets a number (`README-2.md`).
Publishing takes the recorded file.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from diffusers_ext.atomic import write_bytes_atomically, write_text_atomically


logger = logging.getLogger(__name__)

RECORD = ".diffusers_ext-files.json"


def write_own(folder: str | os.PathLike, name: str, content: bytes) -> Path:
    """Write a file into a folder, and replace only files that this program wrote.

    Args:
        folder (`str` or `os.PathLike`): the folder, which is created if necessary.
        name (`str`): the name of the file in the folder, and in a repository.
        content (`bytes`): its content.

    Returns:
        `Path`: the file; its name has a number if a file of the user has the name already.
    """
    folder, record, digest = Path(folder), _read(folder), hashlib.sha256(content).hexdigest()
    entry = record.get(name, {"file": name, "sha256": []})
    path = next(path for path in _candidates(folder / name) if _may_replace(path, entry, digest))
    if path.name != name:
        logger.warning(f"{folder / name} is not as this program wrote it, so it stays, and the new file is {path}.")
    # The old content stays in the record, too, because the process may be killed before the file gets its name.
    before = entry["sha256"][:1] if path.name == entry["file"] else []
    record[name] = {"file": path.name, "sha256": [digest, *before]}
    write_text_atomically(folder / RECORD, json.dumps(record, indent=2) + "\n")
    write_bytes_atomically(path, content)
    return path


def own_file(folder: str | os.PathLike, name: str) -> Path:
    """The file in a folder that this program wrote as `name`; the file `name` itself, if it wrote none."""
    return Path(folder) / _read(folder).get(name, {"file": name})["file"]


def _read(folder: str | os.PathLike) -> dict:
    file = Path(folder) / RECORD
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _candidates(path: Path) -> Iterator[Path]:
    yield path
    for number in count(2):
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")


def _may_replace(path: Path, entry: dict, digest: str) -> bool:
    if not os.path.lexists(path):
        return True
    if not path.is_file():
        return False
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    return found == digest or (path.name == entry["file"] and found in entry["sha256"])
