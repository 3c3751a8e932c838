"""Pairs of images in two folders: an image and its conditioning image have the same name."""

import os
from collections import defaultdict

from datasets import Dataset, Image, IterableDataset

from diffusers_ext.data.decoding import image_path
from diffusers_ext.data.image_folder import list_files, select_images


# The columns that conditioning images and instance maps from another folder become.
CONDITIONING_IMAGES = "conditioning_image"
INSTANCE_MAPS = "instance_map"


def pair_with_folder(
    rows: Dataset | IterableDataset,
    image_column: str,
    folder: str | None,
    other_folder: str,
    column: str = CONDITIONING_IMAGES,
) -> Dataset:
    """Adds the conditioning images or the instance maps to rows of image files, in a column of their own.

    Args:
        rows: the images, files in `folder`.
        image_column: the column with their paths.
        folder: where they are; None if they are not in a local folder.
        other_folder: where the others are, with the same paths as the images, up to the extension: `b/1.png` for
            `b/1.jpg`.
        column: what they are, `CONDITIONING_IMAGES` or `INSTANCE_MAPS`; errors name the option `--{column}_dir`.

    Raises:
        ValueError: if the images are not files in a folder, or if one has no partner, or several.
        FileNotFoundError: if there is no such folder.
    """
    other_folder, option, kind = os.path.abspath(os.path.expanduser(other_folder)), f"--{column}_dir", _kind(column)
    if not os.path.isdir(other_folder):
        raise FileNotFoundError(f"{option}: there is no folder {other_folder!r}")
    paths = None
    if folder is not None and isinstance(rows, Dataset) and image_column in rows.column_names:
        values = rows[image_column][:]
        paths = [value and image_path(value) for value in values]
    if not paths or not all(paths):
        raise ValueError(f"{option} is for a local folder of image files, whose names it repeats")
    if os.path.commonpath([folder, other_folder]) == folder:
        raise ValueError(
            f"{option} {other_folder!r} must be outside the folder of the images, {folder!r}: give each kind of image "
            f"a folder of its own"
        )
    if column in rows.column_names:
        raise ValueError(
            f"the metadata of the images name {kind}s already: give --{column}_column {column} instead of {option}"
        )
    names = [os.path.relpath(os.path.join(folder, path), folder).replace(os.sep, "/") for path in paths]
    partners = _partners(names, select_images(list_files(other_folder)), other_folder, column)
    located = [os.path.join(other_folder, partner) for partner in partners]
    return rows.add_column(column, located).cast_column(column, Image(decode=False))


def _kind(column: str) -> str:
    return column.replace("_", " ")


def _partners(names: list[str], candidates: list[str], other_folder: str, column: str) -> list[str]:
    """For each name the candidate with this name, or else with this name up to the extension."""
    known, by_stem = set(candidates), defaultdict(list)
    for candidate in candidates:
        by_stem[os.path.splitext(candidate)[0]].append(candidate)
    partners, missing = [], []
    for name in names:
        found = [name] if name in known else by_stem[os.path.splitext(name)[0]]
        if len(found) > 1:
            raise ValueError(f"--{column}_dir has {len(found)} images for {name!r}: {', '.join(found)}")
        missing += [] if found else [name]
        partners += found
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(names)} images have no {_kind(column)} of the same name in {other_folder!r}, "
            f"first {missing[0]!r}"
        )
    return partners
