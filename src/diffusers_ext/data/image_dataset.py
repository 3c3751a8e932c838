"""What a training loop and a measure need of a data set, however it is read."""

import hashlib
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch

from diffusers_ext.data.buckets import Size
from diffusers_ext.data.decoding import UnreadableImageError, decode_image, decode_label_map, image_path
from diffusers_ext.data.sources import Source
from diffusers_ext.data.transforms import ImageTransform


class ImageDataset(ABC):
    """Images of one size, with or without class labels, as an endless stream of batches. Made by `load_image_dataset`.

    Of a paired set, each image comes with its conditioning image, cropped, resized and flipped as one with it.

    Attributes:
        num_examples (`int | None`): the number of readable images N; None when streaming.
        id2label (`dict[int, str] | None`): the names of the classes; None when unlabelled.
        captions (`list[str] | None`): the different captions; None when there are none. Those of a stream are met as
            it is read, and appended then.
        buckets (`dict[tuple[int, int], int] | None`): the sizes (H, W) that the images are brought to, and how many
            images each has; None when all have one, `resolution`.
        num_skipped (`int`): the unreadable images that were left out. A stream counts those that this process has met
            so far, each time.
        resolution (`tuple[int, int]`): (H, W).
        channels (`int`): C; 1 is L, 2 LA, 3 RGB, 4 RGBA.
        cached (`bool`): whether the images lie decoded in memory.
    """

    num_examples: int | None
    num_skipped: int = 0
    cached: bool = False
    captions: list[str] | None = None
    buckets: dict[Size, int] | None = None

    def __init__(self, source: Source, transform: ImageTransform, channels: int, skip_unreadable_images: bool):
        self.id2label = source.id2label
        self.resolution = transform.resolution
        self.channels = channels
        self._source = source
        self._transform = transform
        self._skip_unreadable_images = skip_unreadable_images

    def batches(
        self,
        batch_size: int,
        seed: int,
        start: int = 0,
        process_index: int = 0,
        num_processes: int = 1,
        num_workers: int = 0,
        run_length: int | None = None,
    ) -> Iterator[dict[str, torch.Tensor]]:
        """The endless stream of training batches, from position `start` on.

        The samples of all processes form one stream with the positions p = 0, 1, 2, ... Every epoch is a permutation
        of the set, a function of (seed, epoch), and the stream is one epoch after the other: batches straddle epochs
        and nothing is dropped. Batch k of process r of P holds the positions start + k*P*B + r*B + [0, B). So what is
        at a position depends on the seed only: two processes with half the batch see what one would, and a run that
        resumes at `start` sees what it would have seen. Crop, flip and the choice among several captions are functions
        of (seed, epoch, index in the set). No global random state is read or changed.

        With buckets, each batch is of one of them: from each multiple of `run_length` on, as many positions share one.
        Every bucket has epochs of its own, and as many runs as it has images; see `BucketOrder`.

        Args:
            batch_size: B, of this process.
            seed: of the order and the augmentation.
            start: the number of samples that all processes together have seen.
            process_index: r.
            num_processes: P.
            num_workers: processes (for a stream: threads of one process) that decode in the background. A cached set
                needs none and starts none.
            run_length: how many positions in a row share a bucket, a multiple of P*B, which it is by default. The
                order of a set with buckets depends on it. `start` is lowered to a multiple of it.

        Yields:
            "pixel_values", float32 (B, C, H, W) in [-1, 1], for a paired set "conditioning_pixel_values", likewise,
            for a labelled set "class_labels", int64 (B,), and for a captioned one "caption_ids", int64 (B,), indices
            into `captions`, and "time_ids", int64 (B, 6), what was cut out of which size; see
            `ImageTransform.time_ids`.

        Raises:
            UnreadableImagesError: while streaming, at an unreadable image.
        """
        _check_share(batch_size, process_index, num_processes)
        if start < 0 or num_workers < 0:
            raise ValueError(f"start ({start}) and num_workers ({num_workers}) must not be negative")
        whole_batch = batch_size * num_processes
        run_length = run_length or whole_batch
        if run_length % whole_batch:
            raise ValueError(f"run_length ({run_length}) must be a multiple of all processes' batch ({whole_batch})")
        seed = operator.index(seed)
        return self._batches(batch_size, seed, start, process_index, num_processes, num_workers, run_length)

    def reference_batches(
        self, batch_size: int, process_index: int = 0, num_processes: int = 1, limit: int | None = None
    ) -> Iterator[dict[str, torch.Tensor]]:
        """The set once, in its own order: what generated images are compared with.

        Images are cropped in the middle and not flipped. Process r of P gets the rows r, r + P, r + 2P, ... of the
        first `limit` rows; the last batch may be smaller, and with buckets each where the next image is of another.

        Yields:
            "pixel_values", uint8 (b, C, H, W), for a paired set "conditioning_pixel_values", likewise, for a labelled
            set "class_labels", int64 (b,), and for a captioned one "time_ids", int64 (b, 6), and "caption_ids", int64
            (b,), those of the first caption of each image.
        """
        _check_share(batch_size, process_index, num_processes)
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1 or None, not {limit}")
        return self._reference_batches(batch_size, process_index, num_processes, limit)

    @abstractmethod
    def fingerprint(self) -> str:
        """32 hexadecimal digits that identify the content: pixels (before resizing) of images and conditioning images,
        labels and their names, and captions, in order.

        A copy of the set elsewhere has the same; paths and times play no role. A stream is known by its columns, its
        classes and its first images only.
        """

    @abstractmethod
    def _batches(
        self,
        batch_size: int,
        seed: int,
        start: int,
        process_index: int,
        num_processes: int,
        num_workers: int,
        run_length: int,
    ) -> Iterator[dict[str, torch.Tensor]]: ...

    @abstractmethod
    def _reference_batches(
        self, batch_size: int, process_index: int, num_processes: int, limit: int | None
    ) -> Iterator[dict[str, torch.Tensor]]: ...

    def _decode(self, values: tuple[Any, ...]) -> list[torch.Tensor]:
        """The images of a row as (C, h, w) uint8 in their own sizes; raises UnreadableImageError."""
        images = []
        for value in values:
            try:
                located = self._source.locate(value)
                if images and self._transform.label_maps:
                    images.append(decode_label_map(located).expand(self.channels, -1, -1))
                else:
                    images.append(decode_image(located, self.channels))
            except UnreadableImageError as error:
                raise UnreadableImageError(str(error), image_path(value)) from error
        sizes = [tuple(image.shape[-2:]) for image in images]
        if not all(_same_shape(size, sizes[0]) for size in sizes):
            reason = "this conditioning image of {}x{} pixels has not the shape of its image, {}x{}"
            raise UnreadableImageError(reason.format(*sizes[1], *sizes[0]), image_path(values[1]))
        return images

    def _named(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The images (B, C, H, W) of a batch by name; the conditioning images of a pair follow in the channels."""
        names = ["pixel_values", "conditioning_pixel_values"][: len(self._source.image_columns)]
        parts = (part.contiguous() for part in images.split(self.channels, dim=1))
        return dict(zip(names, parts, strict=True))


def _check_share(batch_size: int, process_index: int, num_processes: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    if not 0 <= process_index < num_processes:
        raise ValueError(f"process_index must be from 0 to num_processes - 1, not {process_index} of {num_processes}")


def _same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether one size is the other times a factor, up to the rounding of a side to whole pixels."""
    (height, width), (other_height, other_width) = sorted((one, other))
    scale = max(other_height / height, other_width / width)
    return abs(height * scale - other_height) <= scale and abs(width * scale - other_width) <= scale


def pixel_digest(images: list[torch.Tensor]) -> bytes:
    """What identifies the decoded images of a row, each (C, h, w) uint8."""
    return b"".join(_image_digest(image) for image in images)


def _image_digest(pixels: torch.Tensor) -> bytes:
    # decode_image gives a view of an (h, w, C) array, whose memory is hashed as it lies.
    pixels = pixels.permute(1, 2, 0).contiguous()
    return hashlib.blake2b(pixels.numpy(), digest_size=16, salt=b"%d,%d" % pixels.shape[:2]).digest()
