"""Reads DALL-E's `encoder.pkl` and `decoder.pkl`, whole pickled modules: only their tensors, and without their code.

The files are those of `torch.save`, with objects of the package `dall_e`. PyTorch's reader of weights alone refuses
these, unless it is told what may stand for them: here classes that hold the attributes and do nothing.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import torch

from diffusers_ext.converters.checkpoint_files import DAMAGED, check_file


class _Module:
    """Stands for a module of the file, and holds its attributes."""


MODULES = (
    "dall_e.encoder.Encoder",
    "dall_e.encoder.EncoderBlock",
    "dall_e.decoder.Decoder",
    "dall_e.decoder.DecoderBlock",
    "dall_e.utils.Conv2d",
    "torch.nn.modules.activation.ReLU",
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.linear.Identity",
    "torch.nn.modules.pooling.MaxPool2d",
    "torch.nn.modules.upsampling.Upsample",
)


def read_dalle_module(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The parameters of a pickled encoder or decoder, by name.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, or holds other objects than the modules of DALL-E.
    """
    check_file(path)
    counterparts = [(type(name.rpartition(".")[2], (_Module,), {}), name) for name in MODULES]
    try:
        with torch.serialization.safe_globals(counterparts):
            content = torch.load(path, map_location="cpu", weights_only=True)
        return dict(_tensors(content, ""))
    except DAMAGED as error:
        raise ValueError(f"{path} is damaged, or is not a pickled encoder or decoder of DALL-E.") from error


def read_dalle_pair(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The parameters of `encoder.pkl` and of the `decoder.pkl` beside it, with `encoder.` and `decoder.` before them.

    Raises:
        FileNotFoundError, ValueError: as [`read_dalle_module`].
    """
    files = {"encoder": Path(path), "decoder": Path(path).with_name("decoder.pkl")}
    return {
        f"{part}.{name}": tensor for part, file in files.items() for name, tensor in read_dalle_module(file).items()
    }


def _tensors(module, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    attributes = vars(module)
    for name, tensor in attributes["_parameters"].items():
        if tensor is not None:
            yield f"{prefix}{name}", tensor.detach()
    for name, part in attributes["_modules"].items():
        yield from _tensors(part, f"{prefix}{name}.")
