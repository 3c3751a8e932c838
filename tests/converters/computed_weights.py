"""Weights of golden cases that are computed from their names, so that no file has to hold them."""

import zlib

import torch


def computed_weights(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Pseudo-random float32 weights by name, the same on every machine.

    Weights with two or more dimensions have the standard deviation fan_in^-1/2, embeddings 0.5, and vectors 0.1,
    around 1 for scales and around 0 for biases.
    """
    return {name: _weight(name, shape) for name, shape in shapes.items()}


def _weight(name: str, shape: list[int]) -> torch.Tensor:
    uniform = _hashes(zlib.crc32(name.encode()), torch.Size(shape).numel()).double() / 2**31 - 1
    if len(shape) == 1:
        mean, std = float(name.endswith("weight")), 0.1
    else:
        is_table = any(part in name for part in ("embedding", "_emb.", "label_emb"))
        mean, std = 0.0, 0.5 if is_table else torch.Size(shape[1:]).numel() ** -0.5
    return (mean + std * 3**0.5 * uniform).float().view(shape)


def _hashes(seed: int, count: int) -> torch.Tensor:
    """`count` whole numbers below 2^32, by the finalizer of MurmurHash3."""
    numbers = (torch.arange(count) + seed) & 0xFFFFFFFF
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        numbers = ((numbers ^ (numbers >> shift)) * factor) & 0xFFFFFFFF
    return numbers ^ (numbers >> 16)
