"""Folders of .npy files with images as arrays, as Google publishes the bitmaps of QuickDraw: a file per class."""

import math
import os

import numpy as np
from datasets import Array2D, ClassLabel, Dataset, DatasetDict, Features, concatenate_datasets


EXTENSION = ".npy"


def load_bitmap_folder(folder: str, files: list[str]) -> DatasetDict:
    """Gray images from .npy files, uint8 (N, H, W), or (N, D) for square ones; the name of a file is its class.

    Args:
        folder: where the files are.
        files: their paths, relative to it. If their folders are called train, test ..., these are the splits.

    Returns:
        The splits, with the columns "image" (H, W) and "label".

    Raises:
        ValueError: for other arrays, for files with pickles, and for images of several sizes.
    """
    names = sorted({_name(file) for file in files})
    splits = {}
    for file in files:
        split = os.path.dirname(file) or "train"
        splits.setdefault(split, []).append((_read(os.path.join(folder, file)), names.index(_name(file))))
    sizes = {pixels.shape[1:] for parts in splits.values() for pixels, _ in parts}
    if len(sizes) > 1:
        raise ValueError(f"the .npy files in {folder!r} have images of several sizes: {sorted(sizes)}")
    features = Features({"image": Array2D(sizes.pop(), "uint8"), "label": ClassLabel(names=names)})
    return DatasetDict(
        {
            split: concatenate_datasets(
                [
                    Dataset.from_dict({"image": pixels, "label": np.full(len(pixels), label)}, features=features)
                    for pixels, label in parts
                ]
            )
            for split, parts in splits.items()
        }
    )


def _name(file: str) -> str:
    return os.path.splitext(os.path.basename(file))[0]


def _read(file: str) -> np.ndarray:
    try:
        pixels = np.load(file, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(
            f"{file!r} can't be read as an array without pickles: {' '.join(str(error).split())}"
        ) from error
    if pixels.ndim == 2 and math.isqrt(pixels.shape[1]) ** 2 == pixels.shape[1]:
        side = math.isqrt(pixels.shape[1])
        pixels = pixels.reshape(-1, side, side)
    if pixels.ndim != 3 or pixels.dtype != np.uint8 or pixels.size == 0:
        raise ValueError(
            f"{file!r} must have gray images, uint8 (N, H, W) or (N, D) for square ones, but has {pixels.dtype} "
            f"{pixels.shape}"
        )
    return pixels
