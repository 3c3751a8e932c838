"""A data set with random access to its rows: decoded once if it fits into memory, and otherwise for every batch."""

import functools
import hashlib
import itertools
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import torch
from tqdm.auto import tqdm

from diffusers_ext.data.buckets import BucketOrder, Size
from diffusers_ext.data.decoding import UnreadableImageError, UnreadableImagesError, list_reasons
from diffusers_ext.data.image_dataset import ImageDataset, pixel_digest
from diffusers_ext.data.order import ShuffledOrder
from diffusers_ext.data.parallel import in_workers, threaded_map
from diffusers_ext.data.randomness import derive_seed
from diffusers_ext.data.sources import Source
from diffusers_ext.data.transforms import ImageTransform
from diffusers_ext.pixels import to_pixel_values


logger = logging.getLogger(__name__)

_MEMORY_SHARE = 0.5  # of the free memory; the rest is for the model, its optimizer and everything else


class IndexedImageDataset(ImageDataset):
    """A data set with random access; see `ImageDataset` for its methods, and `load_image_dataset` to create one.

    All images are decoded once at creation, in threads. This finds unreadable images before training starts, computes
    the fingerprint, and fills the cache if there is one.
    """

    def __init__(
        self,
        source: Source,
        transform: ImageTransform,
        channels: int,
        skip_unreadable_images: bool,
        cache_images: bool | None,
    ):
        super().__init__(source, transform, channels, skip_unreadable_images)
        if len(source.rows) == 0:
            raise ValueError("the data set has no rows")
        self.cached = self._fits_in_memory() if cache_images is None else cache_images
        self._cache = _ImageCache(len(source.rows))
        self._labels, self._captions = source.labels, source.captions
        self._read_all()
        self.captions = None if self._captions is None else self._captions.texts

    def fingerprint(self) -> str:
        return self._fingerprint

    def _fits_in_memory(self) -> bool:
        num_rows = len(self._source.rows)
        sizes = []
        for values in self._values(list(range(0, num_rows, max(1, num_rows // 16)))):
            try:
                sizes.append(self._transform.fit(*self._decode(values)).numel())
            except UnreadableImageError:
                continue  # reported by _read_all
        estimate = num_rows * sum(sizes) / max(1, len(sizes))
        return estimate <= _MEMORY_SHARE * available_memory() / _local_processes()

    def _read_all(self) -> None:
        """Decode every image: find unreadable images, compute the fingerprint, fill the cache."""
        rows = self._source.rows
        slices = (range(start, min(start + 256, len(rows))) for start in range(0, len(rows), 256))
        values = itertools.chain.from_iterable(map(self._values, slices))
        images = tqdm(
            threaded_map(self._read, values, max(1, min(8, (os.cpu_count() or 1) // _local_processes()))),
            total=len(rows),
            desc="Decoding images" if self.cached else "Verifying images",
            unit="image",
            delay=1,
            mininterval=1,
            disable=int(os.environ.get("LOCAL_RANK", 0)) > 0,
        )
        readable, sizes, reasons, content = [], [], {}, hashlib.blake2b(digest_size=16)
        for row, image in enumerate(images):
            if isinstance(image, UnreadableImageError):
                reasons[image.path or f"row {row}"] = str(image)
                continue
            digest, size, pixels = image
            readable.append(row)
            sizes.append(size)
            content.update(digest)
            if self.cached:
                self._cache.append(pixels)
        if reasons and not (self._skip_unreadable_images and readable):
            raise UnreadableImagesError(reasons)
        if reasons:
            logger.warning(f"Images that cannot be read are left out, {len(reasons)}:\n{list_reasons(reasons)}")
        if self._labels is not None:
            self._labels = self._labels[readable]
            content.update(self._labels.numpy())
        content.update(repr(self.id2label).encode())
        if self._captions is not None:
            self._captions = self._captions.select(readable)
            for row in range(len(readable)):
                content.update(repr(self._captions.of_row(row)).encode())
        self._note_sizes(sizes)
        self._fingerprint = content.hexdigest()
        self._source = replace(self._source, rows=rows.select(readable))
        self.num_examples = len(readable)
        self.num_skipped = len(rows) - len(readable)

    def _note_sizes(self, sizes: list[Size]) -> None:
        """Store the original sizes of the images, and the bucket of each."""
        self._sizes = torch.tensor(sizes)
        targets = [self._transform.target(size) for size in sizes]
        found = {target: index for index, target in enumerate(sorted(set(targets)))}
        self._bucket_of = torch.tensor([found[target] for target in targets])
        if self._transform.buckets:
            self.buckets = dict(zip(found, self._bucket_of.bincount().tolist(), strict=True))

    def _values(self, indices: range | list[int]) -> list[tuple[Any, ...]]:
        columns = self._source.rows[indices]
        return list(zip(*(columns[name] for name in self._source.image_columns), strict=True))

    def _read(self, values: tuple[Any, ...]) -> tuple[bytes, Size, torch.Tensor | None] | UnreadableImageError:
        """The digest, the size and the fitted pixels of a row, or the error if it cannot be read."""
        try:
            images = self._decode(values)
        except UnreadableImageError as error:
            return error
        size = tuple(images[0].shape[-2:])
        return pixel_digest(images), size, self._transform.fit(*images) if self.cached else None

    def _batches(self, batch_size, seed, start, process_index, num_processes, num_workers, run_length):
        if self._transform.buckets:
            order = BucketOrder(self._bucket_of, run_length)
            start -= start % run_length  # all images of a batch are from one run
        else:
            order = ShuffledOrder(self.num_examples)
        generate = functools.partial(self._generate, order, batch_size, seed, start, process_index, num_processes)
        return in_workers(generate, 0 if self.cached else num_workers)

    def _generate(self, order, batch_size, seed, start, process_index, num_processes, worker, num_workers):
        for step in itertools.count(worker, num_workers):
            position = start + (step * num_processes + process_index) * batch_size
            yield self._batch(seed, *order.visits(seed, position, batch_size))

    def _batch(self, seed: int, indices: torch.Tensor, epochs: list[int]) -> dict[str, torch.Tensor]:
        """The batch of visits to the images `indices`, each in its epoch."""
        draws = self._draws(seed, indices, epochs)
        images = self._transform.flip(self._crops(indices, draws), draws)
        batch = self._labelled(indices, to_pixel_values(images))
        if self._captions is not None:
            batch["caption_ids"] = self._captions.draw(indices, epochs, seed)
            batch["time_ids"] = self._time_ids(indices, draws)
        return batch

    def _draws(self, seed: int, indices: torch.Tensor, epochs: list[int]) -> list[int]:
        """The random number that chooses the crop and the flip, for each visit."""
        if self._is_fitted and not self._transform.random_flip:
            return [0] * len(indices)  # there is nothing to choose, and hashing takes time
        visits = zip(epochs, indices.tolist(), strict=True)
        return [derive_seed(seed, "augmentation", epoch, index) for epoch, index in visits]

    @property
    def _is_fitted(self) -> bool:
        """Whether all images are in memory at the requested size."""
        images = self._cache.images
        return isinstance(images, torch.Tensor) and tuple(images.shape[-2:]) == self.resolution

    def _time_ids(self, indices: torch.Tensor, draws: list[int | None]) -> torch.Tensor:
        sizes = map(tuple, self._sizes[indices].tolist())
        return torch.tensor([self._transform.time_ids(size, draw) for size, draw in zip(sizes, draws, strict=True)])

    def _reference_batches(self, batch_size, process_index, num_processes, limit):
        stop = self.num_examples if limit is None else min(limit, self.num_examples)
        own = torch.arange(self.num_examples)[process_index:stop:num_processes]
        _, lengths = self._bucket_of[own].unique_consecutive(return_counts=True)
        for run in own.split(lengths.tolist()):
            for indices in run.split(batch_size):
                batch = self._labelled(indices, self._crops(indices))
                if self._captions is not None:
                    batch["caption_ids"] = self._captions.first(indices)
                    batch["time_ids"] = self._time_ids(indices, [None] * len(indices))
                yield batch

    def _labelled(self, indices: torch.Tensor, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        labels = {} if self._labels is None else {"class_labels": self._labels[indices]}
        return self._named(pixel_values) | labels

    def _crops(self, indices: torch.Tensor, draws: list[int] | None = None) -> torch.Tensor:
        """Crops (B, C or 2C, H, W) uint8: at the places that `draws` choose, or in the middle without `draws`."""
        images = self._cache.images
        if self._is_fitted:
            return images.index_select(0, indices)  # many times faster than indexing
        if self.cached:
            fitted = [images[index] for index in indices.tolist()]
        else:
            values = self._values(indices.tolist())
            fitted = [self._decode_again(index, row) for index, row in zip(indices.tolist(), values, strict=True)]
        if draws is None:
            return torch.stack([self._transform.center(image) for image in fitted])
        return torch.stack([self._transform.crop(image, draw) for image, draw in zip(fitted, draws, strict=True)])

    def _decode_again(self, index: int, values: tuple[Any, ...]) -> torch.Tensor:
        try:
            return self._transform.fit(*self._decode(values))
        except UnreadableImageError as error:  # it was readable when the set was loaded
            raise UnreadableImagesError({error.path or f"image {index}": str(error)}) from error


class _ImageCache:
    """uint8 images: one tensor as long as all have the same size, and a list after the first image of another size."""

    def __init__(self, capacity: int):
        self._capacity = capacity
        self._stacked = torch.empty(0)
        self._separate: list[torch.Tensor] = []
        self._length = 0

    @property
    def images(self) -> torch.Tensor | list[torch.Tensor]:
        return self._separate or self._stacked[: self._length]

    def append(self, image: torch.Tensor) -> None:
        if self._length == 0:
            # The system only provides the part of this memory that is written.
            self._stacked = torch.empty((self._capacity, *image.shape), dtype=torch.uint8)
        if not self._separate and image.shape != self._stacked.shape[1:]:
            self._separate = list(self._stacked[: self._length])
        if self._separate:
            self._separate.append(image)
        else:
            self._stacked[self._length] = image
        self._length += 1


def available_memory() -> int:
    """Bytes of free memory, within the limits of the machine and of the container (cgroup v2)."""
    available = psutil.virtual_memory().available
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and limit.read_text().strip() != "max":
        available = min(available, int(limit.read_text()) - int(used.read_text()))
    return available


def _local_processes() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))
