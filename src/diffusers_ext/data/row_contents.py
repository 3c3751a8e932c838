"""What tells whether the images of a data set have changed, without decoding them."""

import functools
import hashlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diffusers_ext.data.captions import Captions
from diffusers_ext.data.parallel import threaded_map
from diffusers_ext.data.sources import Source


_SLICE = 1024  # rows that are read at a time
_THREADS = 2  # more of them would wait for each other, not for the disk
_SAMPLED = 64  # images whose bytes are part of the fingerprint


def fingerprint(source: Source) -> str:
    """32 hexadecimal digits that identify the content of a data set, wherever it is stored.

    The content is: the labels and their names, the captions, the size of each encoded image in bytes, and the bytes of
    64 images, which are spread evenly. Names and times of files do not matter.
    """
    num_rows = len(source.rows)
    content = hashlib.blake2b(f"{num_rows} {source.id2label!r}".encode(), digest_size=16)
    if source.labels is not None:
        content.update(source.labels.numpy())
    if source.captions is not None:
        _update_with_captions(content, source.captions)
    for lengths in threaded_map(_lengths, map(functools.partial(_sized, source), _slices(num_rows)), _THREADS):
        content.update(lengths)
    for row in sorted(set(np.linspace(0, num_rows - 1, _SAMPLED).astype(int).tolist())):
        for (value,) in _values(source, range(row, row + 1)):
            content.update(hashlib.blake2b(_content(value)).digest())
    return content.hexdigest()


def row_identities(source: Source) -> np.ndarray:
    """Digests (N, 16), uint8: two rows with the same digest have the same images.

    An image in a file is identified by its path, its size, and the times of the last changes of the file and its
    state; other images by their content.
    """
    values = map(functools.partial(_values, source), _slices(len(source.rows)))
    digests = threaded_map(_identities, values, _THREADS)
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 16)


def _update_with_captions(content, captions: Captions) -> None:
    for text in captions.texts:
        content.update(text.encode("utf-8", "surrogatepass") + b"\0")
    for part in (captions.ids, captions.starts, captions.counts):
        content.update(part.numpy())


def _slices(num_rows: int) -> Iterator[range]:
    return (range(start, min(start + _SLICE, num_rows)) for start in range(0, num_rows, _SLICE))


def _values(source: Source, rows: range) -> list[list[Any]]:
    """The located values of each image column."""
    columns = source.rows[rows]
    return [[source.locate(value) for value in columns[name]] for name in source.image_columns]


def _sized(source: Source, rows: range) -> list[list[Any]]:
    """Like `_values`, but with the numbers of bytes of images that are stored in the set, which are not read."""
    table = source.rows.with_format("arrow")[rows]
    columns = []
    for name in source.image_columns:
        column = table[name]
        if pa.types.is_struct(column.type):
            lengths = pc.binary_length(pc.struct_field(column, "bytes")).to_pylist()
            paths = pc.struct_field(column, "path").to_pylist()
            values = [path if length is None else length for length, path in zip(lengths, paths, strict=True)]
        elif pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            values = pc.binary_length(column).to_pylist()
        else:
            values = column.to_pylist()
        columns.append([source.locate(value) for value in values])
    return columns


def _lengths(columns: list[list[Any]]) -> bytes:
    return "\n".join(_length(value) for column in columns for value in column).encode("utf-8", "surrogateescape")


def _length(value: Any) -> str:
    """The size of an encoded image in bytes; the address of an image that is elsewhere."""
    if _is_file(value):
        state = _state(value)
        return "missing" if state is None else str(state.st_size)
    return str(value) if isinstance(value, str | int) else str(len(_content(value)))


def _identities(columns: list[list[Any]]) -> bytes:
    identities = zip(*(map(_identity, column) for column in columns), strict=True)
    return b"".join(hashlib.blake2b(b" ".join(row), digest_size=16).digest() for row in identities)


def _identity(value: Any) -> bytes:
    if not _is_file(value):
        return hashlib.blake2b(_content(value), digest_size=16).digest()
    state = _state(value)
    # Some programs change a file and set its time of modification back. They can't set the time of its status (ctime).
    times = () if state is None else (state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    return f"{value}\0{times}".encode("utf-8", "surrogateescape")


def _is_file(value: Any) -> bool:
    return isinstance(value, str) and "://" not in value


def _state(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _content(value: Any) -> bytes:
    """The bytes of an encoded image or of an array. For an image elsewhere, the bytes of its address."""
    if isinstance(value, dict):
        value = value["bytes"] if value["bytes"] is not None else value["path"]
    if _is_file(value):
        try:
            with open(value, "rb") as file:
                return file.read()
        except OSError:
            return b"missing"
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes | bytearray) or value is None:
        return bytes(value or b"")
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        return repr(value).encode()
    return f"{array.shape} {array.dtype}".encode() + array.tobytes()
