"""SHA-256 hashes of the files of a checkpoint, which tell whether they are as they were written."""

import hashlib
import json
from pathlib import Path


def file_hash(path: Path) -> str:
    """The SHA-256 hash of a file's content, in hexadecimal digits."""
    content = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**22):
            content.update(part)
    return content.hexdigest()


def json_hash(value) -> str:
    """The SHA-256 hash of a JSON value; values that are equal after writing and reading have equal hashes."""
    return hashlib.sha256(json.dumps(json.loads(json.dumps(value)), sort_keys=True).encode()).hexdigest()


def file_hashes(folder: Path) -> dict[str, str]:
    """The hash of every file under `folder`, by its relative name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in files}


def check_files(folder: Path, hashes: dict[str, str]) -> None:
    """Check that files are as they were when [`file_hashes`] read them.

    Raises:
        ValueError: if one is missing, or has changed.
    """
    for name, expected in hashes.items():
        if not (folder / name).is_file():
            raise ValueError(f"{name} is missing")
        if file_hash(folder / name) != expected:
            raise ValueError(f"{name} is not as it was written")
