"""What every metric does to its input: one dtype, one check, and blocks that bound memory."""

from collections.abc import Iterator

import torch


# The largest block of a pairwise matrix held at once: 2**24 float64 numbers are 128 MiB.
BLOCK_ELEMENTS = 2**24


def as_matrix(values, name: str) -> torch.Tensor:
    """`values` (tensor or array, any real dtype) as a float64 matrix (N, D) on the CPU.

    Raises:
        ValueError: if it is not a matrix, is empty or has rows that are not finite.
    """
    matrix = torch.as_tensor(values).detach().cpu().double()
    if matrix.ndim != 2 or matrix.numel() == 0:
        raise ValueError(f"{name} should be a matrix of one row per image, not of shape {tuple(matrix.shape)}.")
    bad_rows = int((~matrix.isfinite()).any(dim=1).sum())
    if bad_rows:
        raise ValueError(f"{name} hold NaN or infinite values in {bad_rows} of {len(matrix)} rows.")
    return matrix


def as_pixel_values(images: torch.Tensor) -> torch.Tensor:
    """Images (N, C, H, W) as float32 in [-1, 1], from that or from uint8.

    Raises:
        ValueError: for another shape, and values out of range.
    """
    if images.ndim != 4:
        raise ValueError(f"images must have the shape (N, C, H, W), not {tuple(images.shape)}.")
    if images.dtype == torch.uint8:
        return images.float() / 127.5 - 1
    images = images.float()
    if not (images.abs() <= 1).all():
        raise ValueError("images must be uint8, or in [-1, 1].")
    return images


def as_feature_pair(real, generated) -> tuple[torch.Tensor, torch.Tensor]:
    """Real and generated features as float64 matrices (N_real, D) and (N_generated, D).

    Raises:
        ValueError: as `as_matrix`, and if the numbers of columns differ.
    """
    real, generated = as_matrix(real, "The real features"), as_matrix(generated, "The generated features")
    if real.shape[1] != generated.shape[1]:
        raise ValueError(
            f"Real and generated features should come from one extractor, but have {real.shape[1]} and "
            f"{generated.shape[1]} columns."
        )
    return real, generated


def row_blocks(num_rows: int, num_columns: int, block_elements: int = BLOCK_ELEMENTS) -> Iterator[slice]:
    """Slices that cut a (num_rows, num_columns) matrix into blocks of whole rows of at most `block_elements`."""
    rows = max(1, block_elements // num_columns)
    return (slice(start, start + rows) for start in range(0, num_rows, rows))
