"""The tensors in archives of TorchScript, which older releases of OpenAI are: read from their data, never run."""

import pickle
import zipfile
from collections import OrderedDict

import torch


class _ScriptModule:
    """Stands for any module of an archive: only its attributes are read."""


_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def _rebuild(storage: torch.Tensor, offset: int, size: tuple, stride: tuple, *_) -> torch.Tensor:
    return storage.as_strided(size, stride, offset).clone()


def _first(value, *_):
    return value


class _ArchiveUnpickler(pickle.Unpickler):
    """Builds tensors and placeholders for modules, and refuses everything else."""

    def __init__(self, archive: zipfile.ZipFile, folder: str):
        super().__init__(archive.open(f"{folder}/data.pkl"))
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str):
        if module == "__torch__" or module.startswith("__torch__."):
            return _ScriptModule
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle":  # lists and tags of types
            return _first
        raise pickle.UnpicklingError(f"Unsupported global: GLOBAL {module}.{name} was not allowed")

    def persistent_load(self, pid: tuple) -> torch.Tensor:
        _, dtype, key, _, _ = pid
        content = self._archive.read(f"{self._folder}/data/{key}")
        return torch.frombuffer(bytearray(content), dtype=dtype)


def torchscript_folder(path) -> str | None:
    """The folder in a zip file that holds an archive of TorchScript; `None` if the file is something else."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    folders = {name.partition("/")[0] for name in names}
    parts = ("constants.pkl", "data.pkl")
    return next((folder for folder in sorted(folders) if all(f"{folder}/{part}" in names for part in parts)), None)


def read_torchscript(path, folder: str) -> dict[str, torch.Tensor]:
    """The parameters and buffers of the module in an archive, by the names of a state dict.

    Raises:
        pickle.UnpicklingError: if it holds anything else than modules, tensors and plain values.
    """
    with zipfile.ZipFile(path) as archive:
        module = _ArchiveUnpickler(archive, folder).load()
    return _tensors(module, "")


def _tensors(module: _ScriptModule, prefix: str) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, value in vars(module).items():
        if isinstance(value, torch.Tensor):
            tensors[prefix + name] = value
        elif isinstance(value, _ScriptModule):
            tensors |= _tensors(value, f"{prefix}{name}.")
    return tensors
