"""A data set with random access to its rows."""

import functools
import itertools
from typing import Any

import torch

from diffusers_ext.data.buckets import BucketOrder, Size
from diffusers_ext.data.decoding import UnreadableImagesError
from diffusers_ext.data.image_dataset import ImageDataset
from diffusers_ext.data.image_rows import Fetched, ImageRows, Unreadable, reasons
from diffusers_ext.data.order import ShuffledOrder
from diffusers_ext.data.parallel import in_workers
from diffusers_ext.data.randomness import derive_seed
from diffusers_ext.data.row_contents import fingerprint
from diffusers_ext.data.sources import Source
from diffusers_ext.data.transforms import ImageTransform
from diffusers_ext.pixels import to_pixel_values


class IndexedImageDataset(ImageDataset):
    """A data set with random access; see `ImageDataset` for its methods, and `load_image_dataset` to create one.

    An epoch visits every row once. When unreadable images may be skipped, the next readable image of the set (of the
    same bucket) takes the place of each. So the order does not depend on whether unreadable images are known in
    advance, and a run that keeps decoded images is equal to one that does not.
    """

    def __init__(
        self,
        source: Source,
        transform: ImageTransform,
        channels: int,
        skip_unreadable_images: bool,
        cache_images: bool | None,
        verify_images: bool = False,
    ):
        super().__init__(source, transform, channels, skip_unreadable_images)
        self.epoch_length = len(source.rows)
        if self.epoch_length == 0:
            raise ValueError("the data set has no rows")
        treatment = (type(self).__name__, channels, source.max_image_pixels)
        self._rows = ImageRows(source, transform, self._decode, treatment, cache_images, verify_images)
        self._is_prepared = False
        self.captions = None if source.captions is None else source.captions.texts

    @property
    def num_skipped(self) -> int:
        return len(self._rows.unreadable)

    @property
    def num_examples(self) -> int:
        return self.epoch_length - self.num_skipped

    @property
    def cached(self) -> bool:
        return self._rows.cached

    @property
    def buckets(self) -> dict[Size, int] | None:
        if not self._transform.buckets:
            return None
        sizes, bucket_of = self._targets
        return dict(zip(sizes, bucket_of.bincount().tolist(), strict=True))

    def fingerprint(self) -> str:
        return fingerprint(self._source)

    def prepare(self) -> None:
        if not self._is_prepared:
            self._note(self._rows.prepare())
            self._is_prepared = True

    def _note(self, found: Unreadable) -> None:
        """Remember unreadable images, or refuse them if they may not be skipped, or if no image is left."""
        unreadable = {**self._rows.unreadable, **found}
        if found and not self._skip_unreadable_images or len(unreadable) == self.epoch_length:
            raise UnreadableImagesError(reasons(found))
        self._rows.unreadable = unreadable
        self._name_skipped(reasons(found))

    @functools.cached_property
    def _targets(self) -> tuple[list[Size], torch.Tensor]:
        """The final sizes of the images, sorted, and int64 (N,), the place in this list of the size of each image."""
        self.prepare()
        # A readable image of the same size takes the place of an unreadable one, whose own size is not known.
        targets = [self._transform.target(size if min(size) > 0 else (1, 1)) for size in self._rows.sizes()]
        found = {target: index for index, target in enumerate(sorted(set(targets)))}
        return list(found), torch.tensor([found[target] for target in targets])

    def _batches(self, batch_size, seed, start, process_index, num_processes, num_workers, run_length):
        self.prepare()
        if self._transform.buckets:
            order = BucketOrder(self._targets[1], run_length)
            start -= start % run_length  # all images of a batch are from one run
        else:
            order = ShuffledOrder(self.epoch_length)
        generate = functools.partial(self._generate, order, batch_size, seed, start, process_index, num_processes)
        for batch, found in in_workers(generate, 0 if self.cached else num_workers):
            self._note(found)
            if not batch:
                raise UnreadableImagesError(reasons(found))
            yield batch

    def _generate(self, order, batch_size, seed, start, process_index, num_processes, worker, num_workers):
        """Batches, each with the images that were found to be unreadable; an empty batch if it can't be filled.

        The errors are returned and not raised, because a worker process only passes on the text of an error.
        """
        for step in itertools.count(worker, num_workers):
            position = start + (step * num_processes + process_index) * batch_size
            rows, epochs = order.visits(seed, position, batch_size)
            fetched, found = self._rows.fetch(rows, self._stand_in)
            is_full = len(fetched.rows) == batch_size
            yield self._batch(seed, fetched, epochs) if is_full else {}, found

    def _stand_in(self, row: int, unreadable: Unreadable) -> int | None:
        """The next row (of the same bucket) that is not known to be unreadable, if there is one."""
        if not self._skip_unreadable_images:
            return None
        for other in itertools.chain(range(row + 1, self.epoch_length), range(row)):
            if other in self._rows.unreadable or other in unreadable:
                continue
            if not self._transform.buckets or self._targets[1][other] == self._targets[1][row]:
                return other
        return None

    def _batch(self, seed: int, fetched: Fetched, epochs: list[int]) -> dict[str, torch.Tensor]:
        """The batch of visits to some rows, each in its epoch."""
        draws = self._draws(seed, fetched, epochs)
        images = self._transform.flip(self._crop(fetched.images, draws), draws)
        batch = self._labelled(fetched.rows, to_pixel_values(images))
        if self.captions is not None:
            batch["caption_ids"] = self._source.captions.draw(fetched.rows, epochs, seed)
            batch["time_ids"] = self._time_ids(fetched.sizes, draws)
        return batch

    def _draws(self, seed: int, fetched: Fetched, epochs: list[int]) -> list[int]:
        """The random number that chooses the crop and the flip, for each visit."""
        if self._is_cropped(fetched.images) and not self._transform.random_flip:
            return [0] * len(fetched.rows)  # there is nothing to choose, and hashing takes time
        visits = zip(epochs, fetched.rows.tolist(), strict=True)
        return [derive_seed(seed, "augmentation", epoch, row) for epoch, row in visits]

    def _is_cropped(self, images: torch.Tensor | list[torch.Tensor]) -> bool:
        """Whether images have the requested size already."""
        return isinstance(images, torch.Tensor) and tuple(images.shape[-2:]) == self.resolution

    def _crop(self, images: torch.Tensor | list[torch.Tensor], draws: list[int] | None = None) -> torch.Tensor:
        """Crops (B, C, H, W): at the places that `draws` choose, or in the middle without `draws`."""
        if self._is_cropped(images):
            return images
        if draws is None:
            return torch.stack([self._transform.center(image) for image in images])
        return torch.stack([self._transform.crop(image, draw) for image, draw in zip(images, draws, strict=True)])

    def _time_ids(self, sizes: list[Size], draws: list[Any]) -> torch.Tensor:
        return torch.tensor([self._transform.time_ids(size, draw) for size, draw in zip(sizes, draws, strict=True)])

    def _reference_batches(self, batch_size, process_index, num_processes, limit):
        self.prepare()
        own = torch.arange(self.epoch_length)[process_index:limit:num_processes]
        runs = [own]
        if self._transform.buckets:
            _, lengths = self._targets[1][own].unique_consecutive(return_counts=True)
            runs = own.split(lengths.tolist())
        for rows in itertools.chain.from_iterable(run.split(batch_size) for run in runs):
            fetched, found = self._rows.fetch(rows, lambda row, unreadable: None)
            self._note(found)
            if len(fetched.rows):
                yield self._reference_batch(fetched)

    def _reference_batch(self, fetched: Fetched) -> dict[str, torch.Tensor]:
        batch = self._labelled(fetched.rows, self._crop(fetched.images))
        if self.captions is not None:
            batch["caption_ids"] = self._source.captions.first(fetched.rows)
            batch["time_ids"] = self._time_ids(fetched.sizes, [None] * len(fetched.rows))
        return batch

    def _labelled(self, rows: torch.Tensor, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        labels = {} if self._source.labels is None else {"class_labels": self._source.labels[rows]}
        return self._named(pixel_values) | labels
