"""Opens the source of a data set: a Hub repository, a local folder or the built-in digits, all by HF `datasets`."""

import logging
import os
from dataclasses import dataclass, replace
from typing import Any

import torch
import yaml
from datasets import (
    Array2D,
    Array3D,
    ClassLabel,
    Dataset,
    DatasetDict,
    Features,
    Image,
    IterableDataset,
    LargeList,
    List,
    Value,
    load_dataset,
    load_from_disk,
)
from datasets.exceptions import DatasetGenerationError, DatasetsError
from huggingface_hub import metadata_load

from diffusers_ext.data.bitmap_files import EXTENSION, load_bitmap_folder
from diffusers_ext.data.captions import Captions, check_caption_column, load_captions
from diffusers_ext.data.image_folder import is_metadata, list_files, load_image_folder, select_images
from diffusers_ext.data.label_column import UNLABELLED, encode_labels, find_label_column
from diffusers_ext.data.left_out import describe_unread_pictures, name_some
from diffusers_ext.data.paired_folders import CONDITIONING_IMAGES, INSTANCE_MAPS, pair_with_folder


logger = logging.getLogger(__name__)

# Files that `datasets` can read besides images: files that contain the images, and files that name them.
_SHARD_EXTENSIONS = (".parquet", ".arrow", ".tar", ".zip", ".h5", ".hdf5", ".lance")
_CSV = (".csv", ".tsv")
_TABLE_EXTENSIONS = (*_CSV, ".json", ".jsonl")


@dataclass
class Source:
    """One split of a data set, with only the columns that training reads.

    Attributes:
        rows: a `Dataset`, or an `IterableDataset` when streaming, whose images are not decoded.
        image_columns: the column with the images, for a paired set the column with the conditioning images, and after
            it the column with the instance maps, if there are any.
        label_column: for a stream, the column with the class ids; None if there are no labels.
        labels: for a `Dataset`, the class ids, int64 (N,); None if there are no labels.
        id2label: the names of the classes by id; None if there are no labels.
        caption_column: the column with the captions; None if there are none.
        captions: the captions of a `Dataset`; None if there are none, and for a stream.
        folder: the folder that relative paths in the image columns start from.
        max_image_pixels: images with more pixels are refused; None has the limit of Pillow.
        cache_dir: where decoded images are kept; None for the cache of Hugging Face.
    """

    rows: Dataset | IterableDataset
    image_columns: list[str]
    label_column: str | None = None
    labels: torch.Tensor | None = None
    id2label: dict[int, str] | None = None
    caption_column: str | None = None
    captions: Captions | None = None
    folder: str = ""
    max_image_pixels: int | None = None
    cache_dir: str | None = None

    def locate(self, value: Any) -> Any:
        """A value of an image column that can be opened: a relative path is joined with `folder`."""
        if isinstance(value, dict) and value["bytes"] is None:
            value = value["path"]
        return os.path.join(self.folder, value) if isinstance(value, str) and "://" not in value else value


def open_source(
    dataset_name: str | None = None,
    dataset_config_name: str | None = None,
    train_data_dir: str | None = None,
    split: str = "train",
    image_column: str = "image",
    conditioning_image_column: str | None = None,
    label_column: str | None = None,
    caption_column: str | None = None,
    streaming: bool = False,
    cache_dir: str | None = None,
    conditioning_image_dir: str | None = None,
    max_image_pixels: int | None = None,
    instance_map_column: str | None = None,
    instance_map_dir: str | None = None,
) -> Source:
    """Find a data set, its split, its images and its labels. The arguments: see `load_image_dataset`.

    Raises:
        ValueError, FileNotFoundError: for a data set that cannot be loaded, and for splits or columns that it does not
            have.
    """
    if (dataset_name is None) == (train_data_dir is None):
        raise ValueError(
            "give --dataset_name (a Hub name, a local folder or 'digits') or --train_data_dir (a local folder), "
            + ("not both" if dataset_name is not None else "but neither is given")
        )
    if max_image_pixels is not None and max_image_pixels < 1:
        raise ValueError(f"--max_image_pixels must be at least 1, not {max_image_pixels}")
    name = os.fspath(dataset_name if train_data_dir is None else train_data_dir)
    folder = os.path.abspath(os.path.expanduser(name))
    is_local = train_data_dir is not None or os.path.isdir(folder) or name.startswith((".", "/", "~"))
    if dataset_name == "digits":
        # Importing scikit-learn takes a second, and only this data set needs it.
        from diffusers_ext.data.digits import load_digits_dataset

        splits = load_digits_dataset()
    elif is_local:
        splits = _load_folder(
            folder, dataset_config_name, image_column, label_column, caption_column, streaming, cache_dir
        )
    else:
        splits = _load(name, dataset_config_name, streaming, cache_dir)
    if split not in splits:
        raise ValueError(f"{name!r} has no split {split!r}, its splits are {', '.join(map(str, splits))}")
    image_columns = [image_column]
    for own, column, other_folder in (
        (CONDITIONING_IMAGES, conditioning_image_column, conditioning_image_dir),
        (INSTANCE_MAPS, instance_map_column, instance_map_dir),
    ):
        if other_folder is not None:
            if column is not None:
                raise ValueError(
                    f"--{own}_dir and --{own}_column are two ways to name {own.replace('_', ' ')}s: give one of them"
                )
            paired = pair_with_folder(splits[split], image_column, folder if is_local else None, other_folder, own)
            splits, column = {**splits, split: paired}, own
        image_columns += [] if column is None else [column]
    source = _select_columns(splits, split, image_columns, label_column, caption_column)
    if streaming and isinstance(source.rows, Dataset):
        source = _as_stream(source)
    return replace(source, folder=folder if is_local else "", max_image_pixels=max_image_pixels, cache_dir=cache_dir)


def open_splits(name: str, config_name: str | None = None, cache_dir: str | None = None) -> dict:
    """All splits of a data set that need not have images: of a local folder with data files, or of a Hub name.

    Raises:
        ValueError, FileNotFoundError: for a data set that cannot be loaded.
    """
    folder = os.path.abspath(os.path.expanduser(name))
    if os.path.isdir(folder) or name.startswith((".", "/", "~")):
        return _load_folder(folder, config_name, "image", UNLABELLED, None, False, cache_dir)
    return _load(name, config_name, False, cache_dir)


def _load(path: str, config_name: str | None, streaming: bool, cache_dir: str | None, **options) -> dict:
    try:
        return load_dataset(path, config_name, streaming=streaming, cache_dir=cache_dir, **options)
    except (OSError, ValueError, DatasetsError) as error:
        # this error for broken files has no message, only a cause
        reason = error.__cause__ or error if isinstance(error, DatasetGenerationError) else error
        raise ValueError(f"the data set {path!r} cannot be loaded: {' '.join(str(reason).split())}") from error


def _load_folder(
    folder: str,
    config_name: str | None,
    image_column: str,
    label_column: str | None,
    caption_column: str | None,
    streaming: bool,
    cache_dir: str | None,
) -> dict:
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"there is no folder {folder!r}")
    # The files that `save_to_disk` writes for a DatasetDict and for a Dataset.
    if os.path.exists(os.path.join(folder, "dataset_dict.json")):
        return load_from_disk(folder)
    if os.path.exists(os.path.join(folder, "state.json")):
        return DatasetDict({"train": load_from_disk(folder)})
    files = list_files(folder)
    images = select_images(files)
    shards = [file for file in files if file.endswith(_SHARD_EXTENSIONS) and not is_metadata(file)]
    if config_name is None and not _declares_configs(folder):
        # One or two preview images beside shards do not make a folder of images.
        if len(images) > len(shards):
            return load_image_folder(folder, files, label_column, caption_column, image_column)
        if images:
            logger.warning(
                f"Left out of {folder!r}, because it has data files: {len(images)} images ({name_some(images)})."
            )
    bitmaps = [file for file in files if file.endswith(EXTENSION)]
    if bitmaps and not images and not shards:
        return load_bitmap_folder(folder, bitmaps)
    if not images and not any(file.endswith(_SHARD_EXTENSIONS + _TABLE_EXTENSIONS) for file in files):
        others = describe_unread_pictures(folder, files)
        others = f", only {others}" if others else ""
        raise ValueError(f"{folder!r} contains neither images nor data files such as parquet{others}")
    data_files = [file for file in files if file.endswith(_SHARD_EXTENSIONS + _TABLE_EXTENSIONS)]
    options = {}
    if caption_column is not None and config_name is None and all(file.endswith(_CSV) for file in data_files):
        options["converters"] = {caption_column: str}  # captions are text, even if they look like numbers
    return _load(folder, config_name, streaming, cache_dir, **options)


def _declares_configs(folder: str) -> bool:
    """Whether the card of a data set declares how to read its files."""
    card = os.path.join(folder, "README.md")
    try:
        return os.path.exists(card) and "configs" in (metadata_load(card) or {})
    except yaml.YAMLError as error:
        raise ValueError(f"the header of {card!r} is not YAML: {' '.join(str(error).split())}") from error


def _select_columns(
    splits: dict, split: str, image_columns: list[str], label_column: str | None, caption_column: str | None
) -> Source:
    rows = splits[split]
    if rows.features is None:
        raise ValueError(
            "the columns of this data set have no declared types, so it cannot be streamed: leave out --streaming"
        )
    repeated = [column for column in image_columns if image_columns.count(column) > 1]
    if repeated:
        kinds = ("images", "conditioning images", "instance maps")[: len(image_columns)]
        raise ValueError(f"{' and '.join(kinds)} must be different columns, not both {repeated[0]!r}")
    for column in image_columns:
        _check_image_column(rows.features, column)
    label_column = find_label_column(rows.features, label_column)
    source = Source(rows, image_columns, label_column)
    if label_column is not None:
        feature = rows.features[label_column]
        if not _is_stream(rows):
            source.labels, source.id2label = encode_labels(rows, label_column, splits.values())
        elif isinstance(feature, ClassLabel):
            source.id2label = dict(enumerate(feature.names))
        else:
            raise ValueError(
                f"the label column {label_column!r} has {feature}, whose classes are not known until all rows are "
                f"read: leave out --streaming, convert it to a ClassLabel, or give --label_column {UNLABELLED}"
            )
    if caption_column is not None:
        check_caption_column(rows.features, caption_column)
        source.caption_column = caption_column
    in_stream = [column for column in (label_column, caption_column) if column is not None]
    source.rows = rows.select_columns(image_columns + list(dict.fromkeys(in_stream)) * _is_stream(rows))
    for column in image_columns:
        if isinstance(rows.features[column], Image):
            source.rows = source.rows.cast_column(column, Image(decode=False))
    if caption_column is not None and not _is_stream(rows):
        values, feature = rows[caption_column][:], rows.features[caption_column]
        source.captions = load_captions(values, feature, caption_column, source.rows[image_columns[0]])
    return source


def _is_stream(rows: Dataset | IterableDataset) -> bool:
    return isinstance(rows, IterableDataset)


def _check_image_column(features: Features, image_column: str) -> None:
    if image_column not in features:
        raise ValueError(f"there is no image column {image_column!r}, the columns are {', '.join(features)}")
    feature = features[image_column]
    is_file = isinstance(feature, Value) and feature.dtype in ("string", "large_string", "binary", "large_binary")
    is_array = isinstance(feature, (Array2D, Array3D)) or (
        isinstance(feature, (List, LargeList)) and isinstance(feature.feature, (List, LargeList))
    )
    if not (isinstance(feature, Image) or is_file or is_array):
        raise ValueError(f"the image column {image_column!r} has {feature}, not images, paths, bytes or arrays")


def _as_stream(source: Source) -> Source:
    """Converts a source with known rows and classes to a stream."""
    rows, label_column, caption_column = source.rows, None, None
    if source.labels is not None:
        label_column = "label"
        feature = ClassLabel(names=list(source.id2label.values()))
        rows = rows.add_column(label_column, source.labels.tolist(), feature=feature)
    if source.captions is not None:
        caption_column = "captions"
        texts = [source.captions.of_row(row) for row in range(len(rows))]
        rows = rows.add_column(caption_column, texts, feature=List(Value("string")))
    return replace(
        source,
        rows=rows.to_iterable_dataset(),
        labels=None,
        label_column=label_column,
        captions=None,
        caption_column=caption_column,
    )
