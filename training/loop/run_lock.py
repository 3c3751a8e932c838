"""One run at a time in an output folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from diffusers_ext.training.loop.output_folder import make_output_folder


LOCK = ".diffusers_ext-lock"
# The workers that load data outlive a killed run for up to 5 seconds, and hold its lock for as long.
PATIENCE = 6.0


@contextmanager
def only_run_in(output_dir: str | Path) -> Iterator[None]:
    """In this context no other process trains in `output_dir`. The lock ends with the process, however that ends.

    Contexts for one folder can be nested in a process.

    Raises:
        ValueError: if another run writes there, or if the folder can't be made or written to.
    """
    lock = FileLock((Path(output_dir) / LOCK).resolve(), is_singleton=True)
    try:
        make_output_folder(Path(output_dir))
        lock.acquire(timeout=PATIENCE, poll_interval=0.2)
    except Timeout:
        raise ValueError(
            f"Another run writes into --output_dir {output_dir}: wait until it has ended, or choose another folder."
        ) from None
    except OSError as error:
        raise ValueError(
            f"--output_dir {output_dir} can't be written to ({error.strerror}): make it writable, or choose another "
            "folder."
        ) from error
    try:
        yield
    finally:
        lock.release()
