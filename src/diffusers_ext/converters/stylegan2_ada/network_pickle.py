"""Reads the `network-snapshot-*.pkl` of StyleGAN2-ADA: its tensors and arguments, and nothing that could be executed.

The reference pickles objects with the source code of their classes, which its own reader executes. Here only a few
names are known, each by a harmless counterpart, and every other name in the file is refused.
"""

import io
import math
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from diffusers_ext.converters.checkpoint_files import DAMAGED


@dataclass
class PickledNetwork:
    """A network in the file: its tensors by name, and the arguments it was made with, those of its parts nested."""

    tensors: dict[str, torch.Tensor]
    arguments: dict = field(default_factory=dict)


def read_network_pickle(path: str | os.PathLike) -> dict[str, PickledNetwork]:
    """The networks in a pickle of the reference, by name: `G`, `D` and `G_ema`, and perhaps `augment_pipe`.

    Raises:
        ValueError: if the file is damaged, or holds anything but networks, tensors and plain values.
    """
    with open(path, "rb") as file:
        try:
            content = _NetworkUnpickler(file).load()
            if not isinstance(content, Mapping):
                raise pickle.UnpicklingError("not a dict")
            return {name: _network(value) for name, value in content.items() if isinstance(value, _PersistentObject)}
        except _ForeignName as error:
            raise ValueError(f"{path} holds {error}, but only the networks of StyleGAN2-ADA are read.") from error
        except (*DAMAGED, RecursionError) as error:
            raise ValueError(f"{path} is damaged, or is not a pickle of StyleGAN2-ADA.") from error


class _ForeignName(Exception):
    """A name in a pickle that is not known."""


class _PersistentObject:
    """Stands for an object of the reference, of which the class name and the state are kept."""

    def __init__(self, meta: Mapping):
        self.class_name, self.state = meta["class_name"], dict(meta["state"])


class _PlainDict(dict):
    """Stands for the reference's dict with attributes."""


class _NumpyType:
    """Stands for `numpy.dtype`, and holds its name."""

    def __init__(self, name: str, *_):
        if re.fullmatch(r"[biuf][1248]", name) is None:
            raise pickle.UnpicklingError(f"no number: {name}")
        self.name = name

    def __setstate__(self, state): ...  # the order of bytes, which is that of all published files


def _numpy_scalar(kind: _NumpyType, value: bytes):
    return np.frombuffer(value, dtype=f"<{kind.name}")[0].item()


def _storage(content: bytes):
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _tensor(storage, offset: int, size: tuple, stride: tuple, *_) -> torch.Tensor:
    if not isinstance(storage, torch.storage.TypedStorage):
        raise pickle.UnpicklingError("not a storage")
    return torch._utils._rebuild_tensor(storage, offset, size, stride)  # which checks that they are within it


def _parameter(tensor: torch.Tensor, *_) -> torch.Tensor:
    return tensor


COUNTERPARTS = {
    "torch_utils.persistence._reconstruct_persistent_obj": _PersistentObject,
    "dnnlib.util.EasyDict": _PlainDict,
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.storage._load_from_bytes": _storage,
    "numpy.dtype": _NumpyType,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
}


class _NetworkUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if f"{module}.{name}" not in COUNTERPARTS:
            raise _ForeignName(f"{module}.{name}")
        return COUNTERPARTS[f"{module}.{name}"]


def _network(pickled: _PersistentObject) -> PickledNetwork:
    arguments = pickled.state.get("_init_kwargs", {})
    return PickledNetwork(dict(_tensors(pickled.state, "")), _plain(arguments))


def _plain(arguments: Mapping) -> dict:
    """The arguments of a network that are plain values, with those of its parts."""
    kept = {}
    for name, value in arguments.items():
        if isinstance(value, Mapping):
            kept[name] = _plain(value)
        elif (
            value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value))
        ):
            kept[name] = value
        elif isinstance(value, (list, tuple)):
            kept[name] = list(value)
    return kept


def _tensors(module: Mapping, prefix: str):
    """The parameters and buffers of a module and of the modules in it, each with its name."""
    for kind in ("_parameters", "_buffers"):
        for name, tensor in module.get(kind, {}).items():
            if isinstance(tensor, torch.Tensor):
                yield f"{prefix}{name}", tensor
    for name, part in module.get("_modules", {}).items():
        yield from _tensors(part.state if isinstance(part, _PersistentObject) else part, f"{prefix}{name}.")
