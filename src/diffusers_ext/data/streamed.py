"""A data set that is read from front to back, possibly over the network, because it does not fit on this machine."""

import functools
import hashlib
import itertools
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from datasets import IterableDataset

from diffusers_ext.data.captions import MissingCaptionError, choose, read_captions
from diffusers_ext.data.decoding import UnreadableImageError, UnreadableImagesError
from diffusers_ext.data.image_dataset import ImageDataset, pixel_digest
from diffusers_ext.data.label_column import UNLABELLED, is_missing
from diffusers_ext.data.parallel import in_workers, threaded_map
from diffusers_ext.data.randomness import derive_seed
from diffusers_ext.data.sources import Source
from diffusers_ext.data.transforms import ImageTransform
from diffusers_ext.pixels import to_pixel_values


logger = logging.getLogger(__name__)

# How many rows after an unreadable one are tried as a replacement before the run stops.
_STAND_INS = 15

# How many images at the beginning of a stream are part of its fingerprint.
_FINGERPRINT_IMAGES = 16


class _Row(NamedTuple):
    epoch: int
    index: int
    columns: dict[str, Any]


class _Sample(NamedTuple):
    pixels: torch.Tensor  # (C or 2C, H, W) uint8, cropped
    label: int | None
    caption: str | None
    time_ids: tuple[int, ...]
    draw: int | None


class StreamedImageDataset(ImageDataset):
    """A stream; see `ImageDataset` for its methods, and `load_image_dataset` to create one.

    The order of an epoch comes from the shuffle of HF `datasets`: shards are in random order, and rows are mixed in a
    buffer of `shuffle_buffer_size`. Every process reads the whole stream, but only decodes its own rows. A resumed run
    reads the rows that were seen before without decoding them. An unreadable image that is skipped is replaced by the
    next readable image of the stream, so that every position has an image.
    """

    def __init__(
        self,
        source: Source,
        transform: ImageTransform,
        channels: int,
        skip_unreadable_images: bool,
        shuffle_buffer_size: int,
    ):
        super().__init__(source, transform, channels, skip_unreadable_images)
        self._shuffle_buffer_size = shuffle_buffer_size
        self._caption_ids: dict[str, int] = {}
        if source.caption_column is not None:
            self.captions = []

    def prepare(self) -> None:
        """Nothing is read in advance."""

    def fingerprint(self) -> str:
        content = hashlib.blake2b(repr(self.id2label).encode(), digest_size=16)
        for row in itertools.islice(_rows(self._source.rows), _FINGERPRINT_IMAGES):
            try:
                content.update(pixel_digest(self._decode(self._values(row))))
            except UnreadableImageError:
                continue
            content.update(repr(self._label(row)).encode())
            if self.captions is not None:
                content.update(repr(self._row_captions(row)).encode())
        return content.hexdigest()

    def _batches(self, batch_size, seed, start, process_index, num_processes, num_workers, run_length):
        generate = functools.partial(
            self._generate, batch_size, seed, start, process_index, num_processes, num_workers
        )
        # One worker process reads the stream once, whatever the number of threads that decode in it.
        for batch, num_skipped, unreadable in in_workers(generate, min(num_workers, 1)):
            if not batch:
                raise UnreadableImagesError(unreadable)
            self.num_skipped += num_skipped
            self._name_skipped(unreadable)
            yield self._with_caption_ids(batch)

    def _generate(self, batch_size, seed, start, process_index, num_processes, num_threads, worker, num_workers):
        """Batches, each with the number of images replaced in it, and the unreadable images with their errors.

        An empty batch ends the stream. The unreadable images that end it are returned, not raised, because a worker
        process only passes on the text of an error.
        """
        windows = _windows(self._shuffled_rows(seed), 1 + (_STAND_INS if self._skip_unreadable_images else 0))
        owned = (
            window
            for position, window in enumerate(windows, -start)
            if position >= 0 and position // batch_size % num_processes == process_index
        )
        samples = threaded_map(functools.partial(self._sample, seed), owned, num_threads)
        while True:
            batch = list(itertools.islice(samples, batch_size))
            lost = {name: why for sample, failed in batch if sample is None for name, why in failed.items()}
            if lost:
                yield {}, 0, lost
                return
            samples_read = [sample for sample, _ in batch]
            images = torch.stack([sample.pixels for sample in samples_read])
            images = self._transform.flip(images, [sample.draw for sample in samples_read])
            num_skipped = sum(bool(failed) for _, failed in batch)
            unreadable = {name: why for _, failed in batch for name, why in failed.items()}
            yield self._described(to_pixel_values(images), samples_read), num_skipped, unreadable

    def _sample(self, seed: int, window: tuple[_Row, ...]) -> tuple[_Sample | None, dict[str, str]]:
        """The first readable image of a window (None if there is none), and the errors of the images before it."""
        unreadable = {}
        for row in window:
            try:
                return self._read(row, seed), unreadable
            except UnreadableImageError as error:
                unreadable[error.path or f"image {row.index} of epoch {row.epoch}"] = str(error)
        return None, unreadable

    def _read(self, row: _Row, seed: int | None = None) -> _Sample:
        """A row, cropped for training; without a seed, cropped in the middle. Raises UnreadableImageError."""
        images = self._decode(self._values(row))
        fitted, size = self._transform.fit(*images), tuple(images[0].shape[-2:])
        if seed is None:
            pixels, draw = self._transform.center(fitted), None
        else:
            draw = derive_seed(seed, "augmentation", row.epoch, row.index)
            pixels = self._transform.crop(fitted, draw)
        return _Sample(pixels, self._label(row), self._caption(row, seed), self._transform.time_ids(size, draw), draw)

    def _values(self, row: _Row) -> tuple[Any, ...]:
        return tuple(row.columns[name] for name in self._source.image_columns)

    def _label(self, row: _Row) -> int | None:
        if self._source.label_column is None:
            return None
        label = row.columns[self._source.label_column]
        if is_missing(label):
            raise ValueError(
                f"image {row.index} of epoch {row.epoch} has no label in column {self._source.label_column!r} "
                f"(null, empty or -1): choose a split with labels, or give --label_column {UNLABELLED}"
            )
        return label

    def _caption(self, row: _Row, seed: int | None = None) -> str | None:
        """A random caption of a row; without a seed, the first one."""
        if self.captions is None:
            return None
        texts = self._row_captions(row)
        return texts[0 if seed is None else choose(len(texts), seed, row.epoch, row.index)]

    def _row_captions(self, row: _Row) -> list[str]:
        column = self._source.caption_column
        texts = read_captions(row.columns[column], self._source.rows.features[column])
        if not texts:
            raise MissingCaptionError(f"image {row.index} of epoch {row.epoch} has no caption", column)
        return texts

    def _described(self, pixel_values: torch.Tensor, samples: Sequence[_Sample]) -> dict:
        """A batch with its captions as text, because a worker process does not know the ids of earlier captions."""
        batch = self._named(pixel_values)
        if self.id2label is not None:
            batch["class_labels"] = torch.tensor([sample.label for sample in samples], dtype=torch.int64)
        if self.captions is not None:
            batch["captions"] = [sample.caption for sample in samples]
            batch["time_ids"] = torch.tensor([sample.time_ids for sample in samples])
        return batch

    def _with_caption_ids(self, batch: dict) -> dict[str, torch.Tensor]:
        if self.captions is not None:
            batch["caption_ids"] = torch.tensor([self._caption_id(text) for text in batch.pop("captions")])
        return batch

    def _caption_id(self, text: str) -> int:
        if text not in self._caption_ids:
            self._caption_ids[text] = len(self.captions)
            self.captions.append(text)
        return self._caption_ids[text]

    def _shuffled_rows(self, seed: int) -> Iterator[_Row]:
        """The rows of all epochs, one after the other."""
        for epoch in itertools.count():
            order = derive_seed(seed, "order", epoch)
            yield from _rows(self._source.rows.shuffle(seed=order, buffer_size=self._shuffle_buffer_size), epoch)

    def _reference_batches(self, batch_size, process_index, num_processes, limit):
        rows = itertools.islice(_rows(self._source.rows), process_index, limit, num_processes)
        samples = (sample for sample in map(self._reference_sample, rows) if sample is not None)
        while batch := list(itertools.islice(samples, batch_size)):
            images = torch.stack([sample.pixels for sample in batch])
            yield self._with_caption_ids(self._described(images, batch))

    def _reference_sample(self, row: _Row) -> _Sample | None:
        """A row cropped in the middle; None for an unreadable image, which is not replaced here."""
        try:
            return self._read(row)
        except UnreadableImageError as error:
            if not self._skip_unreadable_images:
                raise UnreadableImagesError({error.path or f"row {row.index}": str(error)}) from error
            self.num_skipped += 1
            self._name_skipped({error.path or f"row {row.index}": str(error)})
            return None


def _rows(rows: IterableDataset, epoch: int = 0) -> Iterator[_Row]:
    """One pass over the rows of a stream."""
    index = 0
    # By `iter`, because `__iter__` shuffles differently in a worker process of torch.
    for batch in rows.iter(batch_size=16):
        for values in zip(*batch.values(), strict=True):
            yield _Row(epoch, index, dict(zip(batch, values, strict=True)))
            index += 1
    if index == 0:
        raise ValueError("the data set has no rows")


def _windows(rows: Iterator[_Row], size: int) -> Iterator[tuple[_Row, ...]]:
    """Every row of an endless stream, together with the `size - 1` rows that follow it."""
    window = deque(itertools.islice(rows, size), maxlen=size)
    while True:
        yield tuple(window)
        window.append(next(rows))
