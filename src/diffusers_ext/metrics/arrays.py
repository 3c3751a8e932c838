"""Checks and conversions of the inputs of metrics, and blocks of rows that bound the memory of pairwise matrices."""

from collections.abc import Iterator

import torch

from diffusers_ext.pixels import as_pixel_values


# The largest block of a pairwise matrix that is held at once: 2**24 float64 numbers are 128 MiB.
BLOCK_ELEMENTS = 2**24


def as_matrix(values, name: str) -> torch.Tensor:
    """`values` (tensor or array, any real dtype) as a float64 matrix (N, D) on the CPU.

    Raises:
        ValueError: if it is not a matrix, is empty, or has rows that are not finite.
    """
    matrix = torch.as_tensor(values).detach().cpu().double()
    if matrix.ndim != 2 or matrix.numel() == 0:
        raise ValueError(f"{name} must be a matrix with one row per image, not of shape {tuple(matrix.shape)}.")
    bad_rows = int((~matrix.isfinite()).any(dim=1).sum())
    if bad_rows:
        raise ValueError(f"{name} have NaN or infinite values in {bad_rows} of {len(matrix)} rows.")
    return matrix


def as_feature_pair(real, generated) -> tuple[torch.Tensor, torch.Tensor]:
    """Real and generated features as float64 matrices (N_real, D) and (N_generated, D).

    Raises:
        ValueError: as `as_matrix`, and if the numbers of columns differ.
    """
    real, generated = as_matrix(real, "The real features"), as_matrix(generated, "The generated features")
    if real.shape[1] != generated.shape[1]:
        raise ValueError(
            f"Real and generated features must come from the same extractor, but have {real.shape[1]} and "
            f"{generated.shape[1]} columns."
        )
    return real, generated


def row_blocks(num_rows: int, num_columns: int, block_elements: int = BLOCK_ELEMENTS) -> Iterator[slice]:
    """Slices of rows that cut a (num_rows, num_columns) matrix into blocks of at most `block_elements` entries."""
    rows = max(1, block_elements // num_columns)
    return (slice(start, start + rows) for start in range(0, num_rows, rows))


def check_image_pair(first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns two batches of images unchanged if they can be compared one by one.

    Raises:
        ValueError: unless both are image tensors of the same shape (N, C, H, W), uint8 or in [-1, 1].
    """
    for images in (first, second):
        if not torch.is_tensor(images):
            raise ValueError(f"Images must be a tensor (N, C, H, W), not {type(images).__name__}.")
        as_pixel_values(images)
    if first.shape != second.shape or first.numel() == 0:
        raise ValueError(
            f"Images can only be compared with images of the same number and size, not {tuple(first.shape)} with "
            f"{tuple(second.shape)}."
        )
    return first, second
