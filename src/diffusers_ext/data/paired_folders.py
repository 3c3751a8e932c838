"""Pairs of images in two folders: an image and its conditioning image have the same name."""

import os
from collections import defaultdict

from datasets import Dataset, Image, IterableDataset

from diffusers_ext.data.decoding import image_path
from diffusers_ext.data.image_folder import list_files, select_images


# The column that conditioning images from another folder become.
CONDITIONING_IMAGES = "conditioning_image"


def pair_with_folder(
    rows: Dataset | IterableDataset, image_column: str, folder: str | None, other_folder: str
) -> Dataset:
    """Adds the conditioning images to rows of image files, in the column "conditioning_image".

    Args:
        rows: the images, files in `folder`.
        image_column: the column with their paths.
        folder: where they are; None if they are not in a local folder.
        other_folder: where the conditioning images are, with the same paths as the images, up to the extension:
            `b/1.png` for `b/1.jpg`.

    Raises:
        ValueError: if the images are not files in a folder, or if one has no conditioning image, or several.
        FileNotFoundError: if there is no such folder.
    """
    other_folder = os.path.abspath(os.path.expanduser(other_folder))
    if not os.path.isdir(other_folder):
        raise FileNotFoundError(f"--conditioning_image_dir: there is no folder {other_folder!r}")
    paths = None
    if folder is not None and isinstance(rows, Dataset) and image_column in rows.column_names:
        values = rows[image_column][:]
        paths = [value and image_path(value) for value in values]
    if not paths or not all(paths):
        raise ValueError("--conditioning_image_dir is for a local folder of image files, whose names it repeats")
    if os.path.commonpath([folder, other_folder]) == folder:
        raise ValueError(
            f"--conditioning_image_dir {other_folder!r} must be outside the folder of the images, {folder!r}: give "
            f"each kind of image a folder of its own"
        )
    if CONDITIONING_IMAGES in rows.column_names:
        raise ValueError(
            f"the metadata of the images name conditioning images already: give --conditioning_image_column "
            f"{CONDITIONING_IMAGES} instead of --conditioning_image_dir"
        )
    names = [os.path.relpath(os.path.join(folder, path), folder).replace(os.sep, "/") for path in paths]
    partners = _partners(names, select_images(list_files(other_folder)), other_folder)
    located = [os.path.join(other_folder, partner) for partner in partners]
    return rows.add_column(CONDITIONING_IMAGES, located).cast_column(CONDITIONING_IMAGES, Image(decode=False))


def _partners(names: list[str], candidates: list[str], other_folder: str) -> list[str]:
    """For each name the candidate with this name, or else with this name up to the extension."""
    known, by_stem = set(candidates), defaultdict(list)
    for candidate in candidates:
        by_stem[os.path.splitext(candidate)[0]].append(candidate)
    partners, missing = [], []
    for name in names:
        found = [name] if name in known else by_stem[os.path.splitext(name)[0]]
        if len(found) > 1:
            raise ValueError(f"--conditioning_image_dir has {len(found)} images for {name!r}: {', '.join(found)}")
        missing += [] if found else [name]
        partners += found
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(names)} images have no conditioning image of the same name in {other_folder!r}, "
            f"first {missing[0]!r}"
        )
    return partners
