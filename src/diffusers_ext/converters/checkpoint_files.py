"""Safe reading of other people's checkpoint files: only tensors are read, and no code in a file is executed."""

import json
import os
import pickle
import re
import struct
import zipfile
import zlib
from argparse import Namespace  # of a training command, beside the weights
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from diffusers_ext.converters.state_dicts import listed
from diffusers_ext.converters.torchscript_files import read_torchscript, torchscript_folder


class _LightningCallback:
    """Stands for a class that Lightning named beside the weights until 2021, as the key of a callback's state."""


# The weights_only unpickler meets arbitrary bytes in a damaged file, and raises any of these.
DAMAGED = (
    AssertionError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
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

# The names that Lightning and pythae save the weights under, and DiT the averaged ones.
NESTED = ("state_dict", "model_state_dict", "ema")


def read_state_dict(path: str | os.PathLike, nested: Sequence[str] = NESTED) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by name.

    The file holds a state dict, or a dict with a state dict under one of the names `nested`. What wrappers of networks
    add to names is removed: `_orig_mod.` of `torch.compile`, and `module.` of `torch.nn.DataParallel` if all names
    begin with it.

    Args:
        path (`str` or `os.PathLike`): a safetensors file, one that `torch.save` wrote, which is read with
            `weights_only=True`, or an archive of TorchScript. No code in it is executed.
        nested (`Sequence[str]`): the names under which the state dict may stand, the preferred one first.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the file is damaged, holds other objects than tensors, does not hold a state dict, or holds a
            tensor both with and without the name of a wrapper.
    """
    check_file(path)
    content = _read_safetensors(path) if str(path).endswith(".safetensors") else read_pickle(path)
    for name in nested:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path} does not hold a state dict, but a value of the type {type(content).__name__}.")
    unnamed = [repr(name) for name in content if not (isinstance(name, str) and name.isprintable())]
    if unnamed:
        raise ValueError(
            f"{path} does not hold a state dict: these keys are not printable strings: {listed(unnamed)}."
        )
    others = [name for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise ValueError(f"{path} does not hold a state dict: these entries are not tensors: {listed(others)}.")
    return _without_wrappers(path, content)


def check_file(path: str | os.PathLike) -> None:
    """Refuses what is no file."""
    if os.path.isdir(path):
        raise ValueError(f"{path} is a folder: give the checkpoint file in it.")
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no file {path}.")


def _without_wrappers(path: str | os.PathLike, content: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # A module that is compiled alone has the prefix in the middle of its names.
    names = {name: re.sub(r"(^|\.)_orig_mod\.", r"\1", name) for name in content}
    parallel = "module." if all(name.startswith("module.") for name in names.values()) else ""
    bare = {}
    for name, tensor in content.items():
        if bare.setdefault(names[name].removeprefix(parallel), tensor) is not tensor:
            raise ValueError(f"{path} holds {names[name]} twice, once with the prefix `_orig_mod.` of torch.compile.")
    return bare


def read_settings(path: Path) -> dict:
    """The entries of a JSON file; none if the file does not exist.

    Raises:
        ValueError: if the file is not a JSON object.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not a JSON file ({error}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold the settings of the checkpoint by name.")
    return content


def _read_safetensors(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged, or is not a safetensors file.") from error


def read_pickle(path: str | os.PathLike):
    """What `torch.save` wrote to a file, if it is made of tensors and plain values.

    Raises:
        ValueError: if the file is damaged, or holds anything else.
    """
    known = [(_LightningCallback, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"), Namespace]
    with open(path, "rb") as file, torch.serialization.safe_globals(known):
        try:
            _check_sums(path)
            archive = torchscript_folder(path)
            if archive is not None:
                return read_torchscript(path, archive)
            return torch.load(file, map_location="cpu", weights_only=True)
        except DAMAGED as error:
            foreign = re.search(r"GLOBAL (\S+)", str(error))
            if foreign:
                raise ValueError(f"{path} holds {foreign[1]}, but only tensors are read from checkpoints.") from error
            raise ValueError(f"{path} is damaged, or was not written by torch.save.") from error


def _check_sums(path: str | os.PathLike) -> None:
    """Refuses a zip file whose content does not match its checksums, which torch.load does not verify."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        # after `set_crc32_options(False)`, torch writes zeros instead of checksums
        has_sums = any(entry.CRC for entry in archive.infolist())
        wrong = archive.testzip() if has_sums else None
    if wrong is not None:
        raise zipfile.BadZipFile(wrong)
