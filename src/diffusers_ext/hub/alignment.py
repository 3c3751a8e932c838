"""Safetensors files whose tensors begin where they would in memory.

Diffusers computes with a file's own bytes, mapped into memory, and the last digits of some matrix products depend on
where their factors lie. With aligned files, what is loaded gives the very images that the trained network gave.
"""

import os
import shutil
from pathlib import Path


ALIGNMENT = 64  # bytes


def aligned(content: bytes) -> bytes:
    """The content of a safetensors file with as many spaces behind its header as it takes."""
    end = 8 + int.from_bytes(content[:8], "little")
    return _padded(content[8:end]) + content[end:]


def align(file: Path) -> None:
    """Replace a safetensors file by its aligned form."""
    unfinished = file.with_name(f".tmp-{file.name}")
    with file.open("rb") as source, unfinished.open("wb") as target:
        target.write(_padded(source.read(int.from_bytes(source.read(8), "little"))))
        shutil.copyfileobj(source, target, 2**24)
    os.replace(unfinished, file)


def _padded(header: bytes) -> bytes:
    header += b" " * (-(8 + len(header)) % ALIGNMENT)
    return len(header).to_bytes(8, "little") + header
