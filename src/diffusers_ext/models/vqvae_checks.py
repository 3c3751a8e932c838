"""Checks of the arguments that VQ-VAE and VQ-VAE-2 share."""

from collections.abc import Sequence

from .activations import OUTPUT_ACTIVATIONS, check_activation, check_sample_range


def check_codebook_arguments(
    sample_size: int | tuple[int, int],
    in_channels: int,
    num_embeddings: int,
    embedding_dim: int,
    ema_decay: float,
    revival_threshold: float,
) -> None:
    height, width = (sample_size, sample_size) if isinstance(sample_size, int) else sample_size
    if min(height, width, in_channels, num_embeddings, embedding_dim) < 1:
        raise ValueError(
            f"`sample_size`, `in_channels`, `num_embeddings` and `embedding_dim` must be positive, but are "
            f"{sample_size}, {in_channels}, {num_embeddings} and {embedding_dim}."
        )
    if not 0 <= ema_decay < 1 or not 0 <= revival_threshold < 1:
        raise ValueError(
            f"`ema_decay` and `revival_threshold` must be in [0, 1), but are {ema_decay} and {revival_threshold}."
        )


def check_conv_arguments(
    hidden_channels: int, num_downsamples: int, num_residual_layers: int, residual_channels: int
) -> None:
    if min(hidden_channels - 1, num_downsamples, num_residual_layers + 1, residual_channels) < 1:
        raise ValueError(
            "`hidden_channels` must be at least 2, `num_downsamples` and `residual_channels` at least 1 and "
            f"`num_residual_layers` at least 0, but are {hidden_channels}, {num_downsamples}, {residual_channels} and "
            f"{num_residual_layers}."
        )


def check_output_arguments(output_activation: str, sample_range: Sequence[float]) -> None:
    check_activation("output_activation", output_activation, OUTPUT_ACTIVATIONS)
    check_sample_range(sample_range, output_activation)
