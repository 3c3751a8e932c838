"""Checkpoint files of others: tensors come out, and nothing in them is run."""

import json
import os
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file


class _LightningCallback:
    """Stands for a class whose name Lightning wrote beside the weights until 2021, as the key of its notes."""


# The weights_only unpickler meets arbitrary bytes in a damaged file.
_DAMAGED = (
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    OSError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)

NESTED = ("state_dict", "model_state_dict")  # of Lightning, and of pythae


def read_state_dict(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by name: a state dict, or a file that holds one under a name of `NESTED`.

    Where all the names begin with `module.`, as `torch.nn.DataParallel` writes them, that is left out.

    Args:
        path (`str` or `os.PathLike`): a safetensors file, or one that `torch.save` wrote. Read with
            `weights_only=True`: no code in it is run.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, holds other objects than tensors, or no state dict.
    """
    if os.path.isdir(path):
        raise ValueError(f"{path} is a folder: give the checkpoint file in it.")
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no file {path}.")
    content = _read_safetensors(path) if str(path).endswith(".safetensors") else _read_pickle(path)
    for name in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path} holds no state dict, but a {type(content).__name__}.")
    unnamed = [repr(name) for name in content if not isinstance(name, str)]
    if unnamed:
        raise ValueError(f"{path} holds no state dict, for these keys are no strings: {listed(unnamed)}.")
    others = [name for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise ValueError(f"{path} holds no state dict, for these entries are no tensors: {listed(others)}.")
    wrapper = "module." if all(name.startswith("module.") for name in content) else ""
    return {name.removeprefix(wrapper): tensor for name, tensor in content.items()}


def read_companion(file: str | os.PathLike, filename: str) -> dict:
    """The entries of a JSON file beside a checkpoint, none if there is no such file.

    Raises:
        ValueError: if it is no JSON file of entries.
    """
    path = Path(file).with_name(filename)
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file ({error}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold the configuration of the checkpoint by names.")
    return content


def _read_safetensors(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged, or no safetensors file.") from error


def _read_pickle(path: str | os.PathLike):
    known = (_LightningCallback, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint")
    with open(path, "rb") as file, torch.serialization.safe_globals([known]):
        try:
            _check_sums(path)
            return torch.load(file, map_location="cpu", weights_only=True)
        except _DAMAGED as error:
            foreign = re.search(r"GLOBAL (\S+)", str(error))
            if foreign:
                raise ValueError(f"{path} holds {foreign[1]}, and only tensors are read from checkpoints.") from error
            raise ValueError(f"{path} is damaged, or no file of torch.save.") from error


def _check_sums(path: str | os.PathLike) -> None:
    """Refuses a zip file with a wrong byte: torch.load doesn't look at the checksums."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        # torch writes none, but zeros, after `set_crc32_options(False)`
        has_sums = any(entry.CRC for entry in archive.infolist())
        wrong = archive.testzip() if has_sums else None
    if wrong is not None:
        raise zipfile.BadZipFile(wrong)


def listed(names: list[str], limit: int = 20) -> str:
    """Names for a message, of long lists the first and how many more there are."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")
