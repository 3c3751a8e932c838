"""Reads a local folder of image files as a `datasets.Dataset` of paths, without copying or writing anything.

The layouts are those of the imagefolder of `datasets`; captions can also be in a text file beside each image, which is
common for trainers of image generators. imagefolder itself is not used, because it silently drops data: of a flat
folder with "a.png" and "my test.png" it only keeps the second image; of the class folders bus/, car/ and train/ it
only keeps the last; and if a single image lies beside the class folders, it drops all labels.
"""

import logging
import os
import re

import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Image, List, Value

from diffusers_ext.data.decoding import image_extensions, image_path
from diffusers_ext.data.label_column import UNLABELLED, class_names
from diffusers_ext.data.left_out import describe_unread_pictures, name_some
from diffusers_ext.data.metadata_files import METADATA_READERS, is_file_name


logger = logging.getLogger(__name__)

_METADATA = tuple(METADATA_READERS)  # a quick test for many thousands of files

# The words that make the name of a folder that of a split, alone or next to a separator or digit (train2017, my-val).
_SPLIT_WORDS = {
    "train": "train|training",
    "validation": "validation|valid|dev|val",
    "test": "test|testing|eval|evaluation",
}


def list_files(folder: str) -> list[str]:
    """The relative paths, with "/", of all files below `folder`, sorted; without hidden files and folders "__x__"."""
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "__")) and not _is_loop(parent, name)]
        prefix = os.path.relpath(parent, folder).replace(os.sep, "/") + "/"
        found += [(prefix + name).removeprefix("./") for name in names if not name.startswith(".")]
    return sorted(found)


def _is_loop(parent: str, name: str) -> bool:
    """Whether a folder is a link to a folder that contains it."""
    path, target = os.path.realpath(parent), os.path.realpath(os.path.join(parent, name))
    return os.path.islink(os.path.join(parent, name)) and os.path.commonpath([path, target]) == target


def is_metadata(file: str) -> bool:
    """Whether a file is a metadata file, which describes the images of its folder."""
    return file.endswith(_METADATA) and os.path.basename(file) in METADATA_READERS


def select_images(files: list[str]) -> list[str]:
    """The files with the extension of an image, in upper or lower case."""
    extensions = image_extensions()
    return [file for file in files if os.path.splitext(file)[1].lower() in extensions]


def load_image_folder(
    folder: str,
    files: list[str],
    label_column: str | None = None,
    caption_column: str | None = None,
    image_column: str = "image",
) -> dict[str, Dataset]:
    """The splits of a folder of images, each with the column "image" (paths), and with labels and captions if found.

    - If every folder at the top is named like a split (train/, val/, test2017/ ...), these are the splits. Otherwise
      all images are in the split "train".
    - If there are metadata files (`metadata.csv`, `.jsonl` or `.parquet`, in any folder), the rows come from them.
      Their column `file_name`, relative to the metadata file, becomes "image"; a column `x_file_name` becomes another
      image column, "x".
    - Otherwise there is a row for each image, sorted by path. The folders of the images are the classes, in the column
      "label", if there are at least two folders, or one folder and `label_column` is "label". All splits have the same
      list of classes.
    - If captions are requested and the metadata have no column "text", this column is read from text files beside the
      images ("a.txt" for "a.png"), if there are any: each line that is not empty is a caption.

    The number of images is logged, and files that look like pictures and are not used are named in a warning.

    Args:
        folder: where the files are.
        files: `list_files(folder)`.
        label_column: None; "label" if folders are classes, whatever their names; or "none" for no classes.
        caption_column: the column of the captions, which is read as text, or None for no captions.
        image_column: the images that the captions belong to.

    Raises:
        ValueError: if the layout is ambiguous, or a metadata or text file is not as described.
    """
    splits = _load_splits(folder, files, label_column, caption_column)
    _report(folder, files, splits)
    if caption_column is None or any("text" in dataset.column_names for dataset in splits.values()):
        return splits
    captions = {split: _text_files(dataset, image_column) for split, dataset in splits.items()}
    if not any(any(texts) for texts in captions.values()):
        return splits
    feature = List(Value("string"))
    return {split: splits[split].add_column("text", texts, feature=feature) for split, texts in captions.items()}


def _report(folder: str, files: list[str], splits: dict[str, Dataset]) -> None:
    """Logs how many images there are, and which files look like pictures but are not used."""
    counts = ", ".join(f"{len(dataset)} ({split})" for split, dataset in splits.items())
    logger.info(f"Images found in {folder!r}: {counts}.")
    left_out = describe_unread_pictures(folder, [file for file in files if not is_metadata(file)])
    if left_out:
        logger.warning(f"Left out of {folder!r}, because nothing here reads them: {left_out}.")
    if any(is_metadata(file) for file in files):
        used = {image_path(value) for dataset in splits.values() for value in _images(dataset)}
        unused = [image for image in select_images(files) if os.path.join(folder, image) not in used]
        if unused:
            logger.warning(
                f"Left out of {folder!r}, because no metadata file names them: {len(unused)} images "
                f"({name_some(unused)})."
            )


def _images(dataset: Dataset):
    """The values of all image columns."""
    for name, feature in dataset.features.items():
        if isinstance(feature, Image):
            yield from dataset[name][:]


def _load_splits(
    folder: str, files: list[str], label_column: str | None, caption_column: str | None
) -> dict[str, Dataset]:
    images = select_images(files)
    splits = _split_prefixes(folder, images, label_column)
    metadata = [file for file in files if is_metadata(file)]
    if metadata:
        return _metadata_splits(folder, metadata, splits, caption_column)
    members = {split: [path for path in images if path.startswith(prefixes)] for split, prefixes in splits.items()}
    labels = {}
    if label_column != UNLABELLED:
        below = {path: _below(path, splits[split]) for split, paths in members.items() for path in paths}
        labels = _folder_labels(folder, below)
    names = class_names(labels.values())
    if not names or len(names) == 1 and label_column is None:
        return {split: _path_dataset(folder, paths) for split, paths in members.items()}
    feature = ClassLabel(names=names)
    return {
        split: _path_dataset(folder, paths).add_column(
            "label", feature.str2int([labels[path] for path in paths]), feature=feature
        )
        for split, paths in members.items()
    }


def _split_prefixes(folder: str, images: list[str], label_column: str | None) -> dict[str, tuple[str, ...]]:
    """The splits, each with the prefixes of its paths."""
    prefix = _wrapper(images)
    inner = [path[len(prefix) :] for path in images]
    heads = sorted({path.partition("/")[0] for path in inner if "/" in path})
    named = [head for head in heads if _split_of(head)]
    if not named or (label_column == "label" and len(named) < len(heads)):
        return {"train": (prefix,)}
    others = [head for head in heads if head not in named] + [path for path in inner if "/" not in path]
    if others:
        raise ValueError(
            f"{os.path.join(folder, prefix)!r} contains {named[0]!r}, which is named like a split, and {others[0]!r}, "
            f"which is not: give the folder to train on, such as {os.path.join(folder, prefix, named[0])!r}, or "
            f"--label_column label if every folder is a class"
        )
    return {
        split: prefixes
        for split in _SPLIT_WORDS
        if (prefixes := tuple(f"{prefix}{head}/" for head in named if _split_of(head) == split))
    }


def _wrapper(images: list[str]) -> str:
    """The folders that all images share ("data/photos/"), down to a split or the last folder, which may be a class."""
    prefix = ""
    while True:
        inner = [path[len(prefix) :] for path in images]
        head = inner[0].partition("/")[0]
        if _split_of(head) or not all(path.startswith(f"{head}/") and path.count("/") > 1 for path in inner):
            return prefix
        prefix += f"{head}/"


def _split_of(name: str) -> str | None:
    for split, words in _SPLIT_WORDS.items():
        if re.search(rf"(^|[-._ 0-9])({words})($|[-._ 0-9])", name.lower()):
            return split
    return None


def _below(path: str, prefixes: tuple[str, ...]) -> str:
    return next(path.removeprefix(prefix) for prefix in prefixes if path.startswith(prefix))


def _folder_labels(folder: str, inner: dict[str, str]) -> dict[str, str]:
    """path -> the name of its folder; empty if there are no folders below the split."""
    by_depth = {path.count("/"): path for path in inner.values()}
    if len(by_depth) > 1:
        raise ValueError(
            f"images of {folder!r} are at different depths ({by_depth[min(by_depth)]!r} and "
            f"{by_depth[max(by_depth)]!r}), so their folders cannot be classes: move the images, or give "
            f"--label_column {UNLABELLED} to train without labels"
        )
    return {path: below.split("/")[-2] for path, below in inner.items() if "/" in below}


def _path_dataset(folder: str, paths: list[str]) -> Dataset:
    features = Features({"image": Image(decode=False)})
    return Dataset.from_dict({"image": [os.path.join(folder, path) for path in paths]}, features=features)


def _metadata_splits(
    folder: str, files: list[str], splits: dict[str, tuple[str, ...]], caption_column: str | None
) -> dict[str, Dataset]:
    columns: dict[str, None] = {}
    rows = []
    for file in files:
        names, records = _read_metadata(folder, file, caption_column)
        targets = {
            name: name.removesuffix("file_name").removesuffix("_") or "image" for name in names if is_file_name(name)
        }
        if not targets:
            raise ValueError(
                f"{os.path.join(folder, file)!r} has no column 'file_name' (or 'x_file_name'), only {', '.join(names)}"
            )
        columns |= dict.fromkeys(targets.values())
        for row in records:
            located = {target: _locate(folder, file, row.pop(name, None)) for name, target in targets.items()}
            rows.append(row | located)
    if len(splits) == 1:
        return {split: _metadata_dataset(folder, rows, list(columns)) for split in splits}
    members = {}
    for row in rows:
        for split, prefixes in splits.items():
            if (row[next(iter(columns))] or "").startswith(tuple(os.path.join(folder, prefix) for prefix in prefixes)):
                members.setdefault(split, []).append(row)
    return {split: _metadata_dataset(folder, members[split], list(columns)) for split in splits if split in members}


def _read_metadata(folder: str, file: str, caption_column: str | None) -> tuple[list[str], list[dict]]:
    path = os.path.join(folder, file)
    try:
        return METADATA_READERS[os.path.basename(file)](path, caption_column)
    except (pa.ArrowInvalid, ValueError) as error:
        raise ValueError(f"{path!r} cannot be read: {' '.join(str(error).split())}") from error


def _locate(folder: str, file: str, name: object) -> str | None:
    """The path of the image that the metadata file calls `name`."""
    if name is None or name == "":  # an empty cell is the null of CSV files
        return None
    if not isinstance(name, str):
        raise ValueError(f"{file!r} names {name!r}: file names must be text in UTF-8")
    relative = os.path.normpath(name)
    if os.path.isabs(name) or "://" in name or relative.split(os.sep)[0] == "..":
        raise ValueError(f"{file!r} names {name!r}: file names must be relative and stay inside the file's folder")
    return os.path.join(folder, os.path.dirname(file), relative)


def _metadata_dataset(folder: str, rows: list[dict], columns: list[str]) -> Dataset:
    names = dict.fromkeys(name for row in rows for name in row)  # one file may have more columns than another
    try:
        dataset = Dataset.from_dict({name: [row.get(name) for row in rows] for name in names})
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the metadata files of {folder!r} differ in the types of a column: {reason}") from error
    for name in columns:
        dataset = dataset.cast_column(name, Image(decode=False))
    return dataset


def _text_files(dataset: Dataset, image_column: str) -> list[list[str]]:
    """The lines of the text file beside each image; none if there is no such file."""
    if image_column not in dataset.column_names:
        return []
    paths = [value["path"] if value else "" for value in dataset[image_column][:]]
    return [_read_lines(os.path.splitext(path)[0] + ".txt") for path in paths]


def _read_lines(path: str) -> list[str]:
    if not os.path.isfile(path):
        return []
    try:
        # "-sig", because Notepad starts files with a byte order mark.
        with open(path, encoding="utf-8-sig") as file:
            return [line.strip() for line in file if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"the captions in {path!r} are not UTF-8: {error}") from error
