"""Files and folders that appear under their final name when they are complete, or not at all.

Everything is first written under another name, flushed to the disk, and then renamed, which is atomic in POSIX. A
killed process can leave an entry with the prefix `UNFINISHED` behind, but never a half-written file or folder under a
name that is read. Only this program gives such names, so every entry with such a name may be removed.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


UNFINISHED = ".diffusers_ext-tmp-"


def beside(final_dir: str | os.PathLike) -> Path:
    """The folder into which `written_beside(final_dir)` writes, for other processes that write into it, too."""
    final_dir = Path(os.path.realpath(final_dir))
    return final_dir.parent / f"{UNFINISHED}{final_dir.name}"


def refuse_content(folder: str | os.PathLike) -> None:
    """Refuse to make a new folder under a name that is taken.

    Raises:
        FileExistsError: if `folder` is a file, or a folder that is not empty.
    """
    if os.path.lexists(folder) and not (os.path.isdir(folder) and not os.listdir(folder)):
        raise FileExistsError(f"{folder} exists and is not an empty folder: move it away, or choose another name.")


@contextmanager
def written_beside(final_dir: str | os.PathLike) -> Iterator[Path]:
    """Yields an empty folder next to `final_dir`, which takes the name `final_dir` when the block ends.

    The content is flushed to the disk before the rename. If the block raises, or the folder can't be renamed, it is
    removed.

    With several processes, one of them opens the block, and all of them write into `beside(final_dir)` between two
    barriers inside the block.

    Raises:
        FileExistsError: if `final_dir` is there already, and is not an empty folder.
    """
    final_dir, unfinished = Path(os.path.realpath(final_dir)), beside(final_dir)
    refuse_content(final_dir)
    final_dir.parent.mkdir(parents=True, exist_ok=True)
    remove(unfinished)
    unfinished.mkdir()
    with removed_on_failure(unfinished):
        yield unfinished
        flush(unfinished)
        if final_dir.exists():  # empty
            final_dir.rmdir()
        os.rename(unfinished, final_dir)
    _flush_entry(final_dir.parent)


def move_into(source: str | os.PathLike, folder: str | os.PathLike, last: str) -> None:
    """Moves every file under `source` to the same relative path under `folder`, each in one rename.

    Files of `folder` that `source` does not have stay. Both must be on one file system. `last`, a relative path, is
    moved after all others: it is the file that readers open first, and it must not name files that are not there yet.
    `source` is removed.
    """
    source, folder = Path(source), Path(folder)
    flush(source)
    names = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    for name in sorted(names, key=lambda name: name == Path(last)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(source / name, folder / name)
    for parent in {(folder / name).parent for name in names}:
        _flush_entry(parent)
    remove(source)


def write_text_atomically(path: str | os.PathLike, text: str) -> None:
    """Writes `text` to `path` in UTF-8, replacing the file in one rename. Creates missing parent folders."""
    write_bytes_atomically(path, text.encode("utf-8"))


def write_bytes_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Writes `content` to `path`, replacing the file in one rename. Creates missing parent folders."""
    path = Path(os.path.abspath(path))
    unfinished = path.parent / f"{UNFINISHED}{path.name}-{os.getpid()}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with removed_on_failure(unfinished):
        unfinished.write_bytes(content)
        _flush_entry(unfinished)
        os.replace(unfinished, path)
    _flush_entry(path.parent)


def remove_leftovers(parent: str | os.PathLike) -> None:
    """Removes unfinished entries of killed processes from `parent`.

    Never call it while another process writes there. Does nothing if `parent` does not exist.
    """
    for unfinished in Path(parent).glob(f"{UNFINISHED}*"):
        remove(unfinished)


def flush(folder: Path) -> None:
    """Forces every file and folder under `folder`, and `folder` itself, to the disk."""
    for path in folder.rglob("*"):
        _flush_entry(path)
    _flush_entry(folder)


def remove(path: Path) -> None:
    """Removes a file or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def removed_on_failure(unfinished: Path) -> Iterator[None]:
    """Removes a file or folder that is written in this context, if the context ends with an error."""
    try:
        yield
    except BaseException:
        # On a disk that became read-only it can't be removed either; the first error is the one to report.
        with suppress(OSError):
            remove(unfinished)
        raise


def _flush_entry(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows cannot open a folder, and does not need to flush it
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
