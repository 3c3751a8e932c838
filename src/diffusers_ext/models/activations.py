"""Activations of autoencoders by name, and the range of images that an activation of the last layer can produce."""

from collections.abc import Iterable, Sequence

from torch import nn


ACTIVATIONS = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}
OUTPUT_ACTIVATIONS = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "identity": nn.Identity}
OUTPUT_RANGES = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}


def check_activation(name: str, activation: str, choices: Iterable[str]) -> None:
    """Refuses an unknown activation for the argument `name`."""
    if activation not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(choices)}, but is {activation!r}.")


def check_sample_range(sample_range: Sequence[float], output_activation: str) -> None:
    """Refuses a `sample_range` that is not the range of the output activation."""
    if tuple(sample_range) != OUTPUT_RANGES.get(output_activation, tuple(sample_range)):
        raise ValueError(
            f"`sample_range` must be {OUTPUT_RANGES[output_activation]}, the range of a {output_activation}, but is "
            f"{tuple(sample_range)}."
        )
