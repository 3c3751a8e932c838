"""Disks that are full or became read-only during a run: one sentence instead of a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError


class CantWriteError(OSError):
    """Something that a run writes could not be written."""


@contextmanager
def writing(what: str, how_to_go_on: str) -> Iterator[None]:
    """In this context, errors of the disk become one sentence.

    Args:
        what (`str`): what is written.
        how_to_go_on (`str`): what the user can do when the disk is writable again, as the rest of a sentence.

    Raises:
        CantWriteError: if it can't be written.
    """
    try:
        yield
    except CantWriteError:
        raise
    except (OSError, SafetensorError, RuntimeError) as error:
        if not _is_of_the_disk(error):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise CantWriteError(
            f"{what} can't be written ({reason}); everything written before is whole: make sure that there is space, "
            f"and that you may write there, and {how_to_go_on}."
        ) from error


def _is_of_the_disk(error: Exception) -> bool:
    # torch.save reports what its writer was told as a RuntimeError, and closing the file again as another one.
    if isinstance(error, RuntimeError):
        return "PytorchStreamWriter" in str(error) or "unexpected pos" in str(error)
    return True
