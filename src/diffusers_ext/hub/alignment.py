"""Safetensors files whose tensors are aligned as in memory.

Diffusers maps a file into memory and computes with its bytes, and the last digits of some matrix products depend on
the alignment of their factors. With aligned files, a loaded network makes exactly the images of the trained network.
"""

import os
import shutil
from pathlib import Path

from diffusers_ext.atomic import UNFINISHED, removed_on_failure


ALIGNMENT = 64  # bytes


def aligned(content: bytes) -> bytes:
    """The content of a safetensors file, with spaces behind its header so that the tensors are aligned."""
    end = 8 + int.from_bytes(content[:8], "little")
    return _padded(content[8:end]) + content[end:]


def align(file: Path) -> None:
    """Replace a safetensors file by its aligned form."""
    unfinished = file.with_name(f"{UNFINISHED}{file.name}")
    with removed_on_failure(unfinished):
        with file.open("rb") as source, unfinished.open("wb") as target:
            target.write(_padded(source.read(int.from_bytes(source.read(8), "little"))))
            shutil.copyfileobj(source, target, 2**24)
        os.replace(unfinished, file)


def _padded(header: bytes) -> bytes:
    header += b" " * (-(8 + len(header)) % ALIGNMENT)
    return len(header).to_bytes(8, "little") + header
