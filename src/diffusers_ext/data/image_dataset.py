"""What a training loop and a measure need of a data set, however it is read."""

import hashlib
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch

from diffusers_ext.data.decoding import decode_image
from diffusers_ext.data.sources import Source
from diffusers_ext.data.transforms import ImageTransform


class ImageDataset(ABC):
    """Images of one size, with or without class labels, as an endless stream of batches. Made by `load_image_dataset`.

    Attributes:
        num_examples (`int | None`): the number of readable images N; None when streaming.
        id2label (`dict[int, str] | None`): the names of the classes; None when unlabelled.
        num_skipped (`int`): the unreadable images that were left out. A stream counts those that this process has met
            so far, each time.
        resolution (`tuple[int, int]`): (H, W).
        channels (`int`): C; 1 is L, 2 LA, 3 RGB, 4 RGBA.
        cached (`bool`): whether the images lie decoded in memory.
    """

    num_examples: int | None
    num_skipped: int = 0
    cached: bool = False

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
    ) -> Iterator[dict[str, torch.Tensor]]:
        """The endless stream of training batches, from position `start` on.

        The samples of all processes form one stream with the positions p = 0, 1, 2, ... Every epoch is a permutation
        of the set, a function of (seed, epoch), and the stream is one epoch after the other: batches straddle epochs
        and nothing is dropped. Batch k of process r of P holds the positions start + k*P*B + r*B + [0, B). So what is
        at a position depends on the seed only: two processes with half the batch see what one would, and a run that
        resumes at `start` sees what it would have seen. Crop and flip are functions of (seed, epoch, index in the
        set). No global random state is read or changed.

        Args:
            batch_size: B, of this process.
            seed: of the order and the augmentation.
            start: the number of samples that all processes together have seen.
            process_index: r.
            num_processes: P.
            num_workers: processes (for a stream: threads of one process) that decode in the background. A cached set
                needs none and starts none.

        Yields:
            "pixel_values", float32 (B, C, H, W) in [-1, 1], and for a labelled set "class_labels", int64 (B,).

        Raises:
            UnreadableImagesError: while streaming, at an unreadable image.
        """
        _check_share(batch_size, process_index, num_processes)
        if start < 0 or num_workers < 0:
            raise ValueError(f"start ({start}) and num_workers ({num_workers}) must not be negative")
        return self._batches(batch_size, operator.index(seed), start, process_index, num_processes, num_workers)

    def reference_batches(
        self, batch_size: int, process_index: int = 0, num_processes: int = 1, limit: int | None = None
    ) -> Iterator[dict[str, torch.Tensor]]:
        """The set once, in its own order: what generated images are compared with.

        Images are cropped in the middle and not flipped. Process r of P gets the rows r, r + P, r + 2P, ... of the
        first `limit` rows; the last batch may be smaller.

        Yields:
            "pixel_values", uint8 (b, C, H, W), and for a labelled set "class_labels", int64 (b,).
        """
        _check_share(batch_size, process_index, num_processes)
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1 or None, not {limit}")
        return self._reference_batches(batch_size, process_index, num_processes, limit)

    @abstractmethod
    def fingerprint(self) -> str:
        """32 hexadecimal digits that identify the content: pixels (before resizing), labels and their names, in order.

        A copy of the set elsewhere has the same; paths and times play no role. A stream is known by its columns, its
        classes and its first images only.
        """

    @abstractmethod
    def _batches(
        self, batch_size: int, seed: int, start: int, process_index: int, num_processes: int, num_workers: int
    ) -> Iterator[dict[str, torch.Tensor]]: ...

    @abstractmethod
    def _reference_batches(
        self, batch_size: int, process_index: int, num_processes: int, limit: int | None
    ) -> Iterator[dict[str, torch.Tensor]]: ...

    def _decode(self, value: Any) -> torch.Tensor:
        """An image of the source as (C, h, w) uint8 in its own size; raises UnreadableImageError."""
        return decode_image(self._source.locate(value), self.channels)


def _check_share(batch_size: int, process_index: int, num_processes: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    if not 0 <= process_index < num_processes:
        raise ValueError(f"process_index must be from 0 to num_processes - 1, not {process_index} of {num_processes}")


def pixel_digest(pixels: torch.Tensor) -> bytes:
    """What identifies one decoded image, (C, h, w) uint8."""
    # decode_image gives a view of an (h, w, C) array, whose memory is hashed as it lies.
    pixels = pixels.permute(1, 2, 0).contiguous()
    return hashlib.blake2b(pixels.numpy(), digest_size=16, salt=b"%d,%d" % pixels.shape[:2]).digest()
