"""A data set of unpaired images from two domains, as one stream of batches, for CycleGAN."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace

import torch

from diffusers_ext.data.image_dataset import ImageDataset
from diffusers_ext.data.indexed import IndexedImageDataset
from diffusers_ext.data.loading import build_transform, load_image_dataset
from diffusers_ext.data.randomness import derive_seed
from diffusers_ext.data.sources import Source, open_source


class UnpairedImageDataset:
    """Two sets of images, each in its own order, as an endless stream of batches.

    A recipe can use it like a paired [`ImageDataset`], whose conditioning images are the images of the first domain,
    but the two images at the same place of a batch are unrelated. The sets can have different sizes: each starts its
    next epoch when it reaches its end.

    Args:
        source, target ([`ImageDataset`]): the two domains, with the same resolution and number of channels.

    Attributes:
        source, target: the two sets, for evaluation.
        epoch_length, num_examples (`int | None`): the numbers of the larger set; None when streaming.
        num_skipped, resolution, channels: of both sets, see [`ImageDataset`].
        id2label: None.
    """

    id2label = None

    def __init__(self, source: ImageDataset, target: ImageDataset):
        for name in ("resolution", "channels"):
            if getattr(source, name) != getattr(target, name):
                raise ValueError(
                    f"the images of both domains must have the same {name}, not {getattr(source, name)} and "
                    f"{getattr(target, name)}"
                )
        self.source, self.target = source, target
        self.resolution, self.channels = source.resolution, source.channels

    @property
    def epoch_length(self) -> int | None:
        lengths = (self.source.epoch_length, self.target.epoch_length)
        return None if None in lengths else max(lengths)

    @property
    def num_examples(self) -> int | None:
        counts = (self.source.num_examples, self.target.num_examples)
        return None if None in counts else max(counts)

    @property
    def num_skipped(self) -> int:
        return self.source.num_skipped + self.target.num_skipped

    def prepare(self) -> None:
        """See [`ImageDataset.prepare`]."""
        self.source.prepare()
        self.target.prepare()

    def batches(self, batch_size: int, seed: int, **position) -> Iterator[dict[str, torch.Tensor]]:
        """The endless stream of training batches; each of the two sets follows [`ImageDataset.batches`].

        Yields:
            "conditioning_pixel_values", images of the first domain, and "pixel_values", images of the second, both
            float32 (B, C, H, W) in [-1, 1].
        """
        sources = self.source.batches(batch_size, derive_seed(seed, "first domain"), **position)
        targets = self.target.batches(batch_size, derive_seed(seed, "second domain"), **position)
        for first, second in zip(sources, targets, strict=True):
            yield {"conditioning_pixel_values": first["pixel_values"], "pixel_values": second["pixel_values"]}

    def fingerprint(self) -> str:
        """32 hexadecimal digits that identify the content of both sets, and their order."""
        content = f"{self.source.fingerprint()} {self.target.fingerprint()}".encode()
        return hashlib.blake2b(content, digest_size=16).hexdigest()


def load_unpaired_dataset(
    domains: tuple[str, str] | None = None,
    target_dataset_name: str | None = None,
    target_data_dir: str | None = None,
    target_split: str | None = None,
    **options,
) -> UnpairedImageDataset:
    """Load the images of two domains: two classes of one data set, or two data sets, folders or splits.

    Args:
        domains: the names of the two classes; images of other classes are left out. If neither these nor a second set
            are given, the set must have exactly two classes. The classes of a folder are the folders in it. (A folder
            with `trainA` and `trainB`, for the split "train", needs no further arguments: these are the domains.)
        target_dataset_name, target_data_dir: where the images of the second domain are, if not in the first set.
        target_split: the split of the second domain, by default the first domain's. If given alone, the second domain
            is another split of the first set.
        options: options of [`load_image_dataset`] for both domains; those that name a data set are for the first only.

    Raises:
        ValueError: if there are not exactly two domains, or if a class does not exist.
        FileNotFoundError: see [`load_image_dataset`].
    """
    options = dict(options)
    lettered = _lettered_folders(options) if domains is None and target_data_dir is None else None
    if lettered is not None:
        options |= {"dataset_name": None, "train_data_dir": lettered[0], "split": "train"}
        target_data_dir = lettered[1]
    if target_dataset_name is None and target_data_dir is None and target_split is None:
        return _from_classes(domains, **options)
    if domains is not None:
        raise ValueError("choose either two classes of one data set as domains, or a second data set, not both")
    options["label_column"] = "none"
    second = {**options, "split": target_split or options.get("split", "train")}
    if target_dataset_name is not None or target_data_dir is not None:
        second |= {"dataset_name": target_dataset_name, "train_data_dir": target_data_dir, "dataset_config_name": None}
    return UnpairedImageDataset(load_image_dataset(**options), load_image_dataset(**second))


def _lettered_folders(options: dict) -> tuple[str, str] | None:
    """The folders `<split>A` and `<split>B` of a local set, as in CycleGAN's data sets; None if there are none."""
    folder = options.get("train_data_dir") or options.get("dataset_name") or ""
    split = options.get("split", "train")
    folders = tuple(os.path.join(os.path.expanduser(folder), split + letter) for letter in "AB")
    return folders if all(map(os.path.isdir, folders)) else None


def _from_classes(
    domains: tuple[str, str] | None,
    resolution=64,
    channels: int = 3,
    center_crop: bool = False,
    random_flip: bool = False,
    streaming: bool = False,
    shuffle_buffer_size: int = 1000,
    skip_unreadable_images: bool = False,
    cache_images: bool | None = None,
    verify_images: bool = False,
    load_size=None,
    **where,
) -> UnpairedImageDataset:
    if streaming:
        raise ValueError("two classes of a stream cannot be separated before it is read: leave out --streaming")
    source = open_source(**where)
    transform = build_transform(resolution, center_crop, random_flip, load_size)
    sets = [
        IndexedImageDataset(chosen, transform, channels, skip_unreadable_images, cache_images, verify_images)
        for chosen in _select_classes(source, domains)
    ]
    return UnpairedImageDataset(*sets)


def _select_classes(source: Source, domains: tuple[str, str] | None) -> list[Source]:
    """The rows of each of the two classes, as sources without labels."""
    names = list((source.id2label or {}).values())
    if domains is None and len(names) != 2:
        found = f"{len(names)} classes ({', '.join(names[:10])})" if names else "no classes"
        raise ValueError(
            f"unpaired images need two domains, and the data set has {found}: choose two of its classes as domains, "
            "or a second data set"
        )
    domains = tuple(names) if domains is None else tuple(domains)
    if len(domains) != 2 or domains[0] == domains[1]:
        raise ValueError(f"domains must be two different classes, not {', '.join(domains)}")
    chosen = []
    for name in domains:
        if name not in names:
            raise ValueError(f"the domain {name!r} is not a class, the classes are {', '.join(names) or 'none'}")
        rows = (source.labels == names.index(name)).nonzero().flatten().tolist()
        if not rows:
            raise ValueError(f"the class {name!r} has no images in this split")
        chosen.append(replace(source, rows=source.rows.select(rows), label_column=None, labels=None, id2label=None))
    return chosen
