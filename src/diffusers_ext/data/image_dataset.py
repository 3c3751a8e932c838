"""The interface of all data sets: batches for training, and the images in order for evaluation."""

import hashlib
import logging
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch

from diffusers_ext.data.buckets import Size
from diffusers_ext.data.decoding import (
    UnreadableImageError,
    decode_image,
    decode_instance_map,
    decode_label_colors,
    decode_label_map,
    image_path,
    list_reasons,
)
from diffusers_ext.data.sources import Source
from diffusers_ext.data.transforms import ImageTransform


logger = logging.getLogger(__name__)

KINDS = ("image", "conditioning image", "instance map")  # the images of a row, in their order
INSTANCE_CHANNELS = 2  # of a decoded instance map


class ImageDataset(ABC):
    """Images of one size, with or without class labels, as an endless stream of batches.

    `load_image_dataset` creates data sets. In a paired set, each image has a conditioning image, which is cropped,
    resized and flipped in the same way.

    Attributes:
        epoch_length (`int | None`): the number N of images in an epoch; None when streaming.
        num_examples (`int | None`): N without the images that are known to be unreadable; None when streaming.
        id2label (`dict[int, str] | None`): the names of the classes; None if there are no labels.
        captions (`list[str] | None`): all different captions; None if there are none. A stream appends captions when
            it reads them for the first time.
        buckets (`dict[tuple[int, int], int] | None`): the sizes (H, W) that images are resized and cropped to, and the
            number of images of each; None if all images have the size `resolution`.
        num_skipped (`int`): the number of unreadable images that this process has found so far, and left out. A stream
            counts them again in each epoch.
        resolution (`tuple[int, int]`): (H, W).
        channels (`int`): C; 1 is L, 2 LA, 3 RGB, 4 RGBA.
        label_maps (`str | None`): "levels" or "colors" if the conditioning images are label maps, see
            `load_image_dataset`.
        cached (`bool`): whether the decoded images are kept on the disk, as `prepare` decides.
    """

    epoch_length: int | None = None
    num_examples: int | None = None
    num_skipped: int = 0
    cached: bool = False
    captions: list[str] | None = None
    buckets: dict[Size, int] | None = None

    def __init__(self, source: Source, transform: ImageTransform, channels: int, skip_unreadable_images: bool):
        self.id2label = source.id2label
        self.resolution = transform.resolution
        self.channels = channels
        self.label_maps = transform.label_maps
        self._source = source
        self._transform = transform
        self._skip_unreadable_images = skip_unreadable_images
        self._named_as_skipped: set[str] = set()

    @abstractmethod
    def prepare(self) -> None:
        """Decode the images that are to be kept or verified, if there are any; the first batch does this otherwise.

        Raises:
            UnreadableImagesError: listing all images that can't be decoded, unless they may be skipped.
        """

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
        """The endless stream of training batches, starting at position `start`.

        The samples of all processes form one stream with the positions p = 0, 1, 2, ... Every epoch is a permutation
        of the set, which is a function of (seed, epoch), and the stream is a sequence of epochs: a batch can span two
        epochs, and no image is dropped. Batch k of process r of P has the positions start + k*P*B + r*B + [0, B). So
        the sample at a position depends only on the seed: two processes with half the batch size see the same samples
        as one process, and a run that resumes at `start` sees the same samples as a run that was not interrupted.
        Crop, flip and the choice among several captions are functions of (seed, epoch, index in the set). No global
        random state is read or changed.

        With buckets, all images of a batch are from one bucket: the bucket only changes at multiples of `run_length`.
        Every bucket has its own epochs, and a number of runs according to its number of images; see `BucketOrder`.

        Args:
            batch_size: B, the batch size of this process.
            seed: the seed of the order and the augmentation.
            start: the number of samples that all processes together have seen.
            process_index: r.
            num_processes: P.
            num_workers: the number of processes (for a stream, threads in one process) that decode in the background.
                A cached set starts none.
            run_length: the number of consecutive positions with images of one bucket, a multiple of P*B; by default
                P*B. The order of a set with buckets depends on it. `start` is rounded down to a multiple of it.

        Yields:
            "pixel_values", float32 (B, C, H, W) in [-1, 1]; for a paired set also "conditioning_pixel_values", in the
            same form; with instance maps also "instance_pixel_values" (B, 2, H, W), equal for all pixels of an object;
            for a labelled set "class_labels", int64 (B,); and for a captioned set "caption_ids", int64
            (B,), which are indices into `captions`, and "time_ids", int64 (B, 6), the original sizes and the crops;
            see `ImageTransform.time_ids`.

        Raises:
            UnreadableImagesError: at an unreadable image that may not be skipped.
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
        """One pass over the set in its own order, for the comparison with generated images.

        Images are cropped in the middle and not flipped. Process r of P gets the rows r, r + P, r + 2P, ... of the
        first `limit` rows. The last batch may be smaller; with buckets, so may each batch before a change of the
        bucket.

        Yields:
            "pixel_values", uint8 (b, C, H, W); for a paired set also "conditioning_pixel_values", in the same form;
            for a labelled set "class_labels", int64 (b,); and for a captioned set "time_ids", int64 (b, 6), and
            "caption_ids", int64 (b,), of the first caption of each image.
        """
        _check_share(batch_size, process_index, num_processes)
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1 or None, not {limit}")
        return self._reference_batches(batch_size, process_index, num_processes, limit)

    @abstractmethod
    def fingerprint(self) -> str:
        """32 hexadecimal digits that identify the content of the set.

        The content is the labels and their names, the captions, the sizes of the encoded images and conditioning
        images in bytes, and the content of 64 of them, in order. No image is decoded. A copy of the set in another
        place has the same fingerprint; paths and times do not matter. The fingerprint of a stream only depends on its
        classes and the pixels of its first images.
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
        """The images of a row in their original sizes, (C, h, w) uint8; raises UnreadableImageError."""
        decode_other = self._decode_label_map if self._transform.label_maps else self._decode_one
        decoders = (self._decode_one, decode_other, self._decode_instance_map)
        images, count = [], len(values)
        for value, decode, kind in zip(values, decoders[:count], KINDS[:count], strict=True):
            path = image_path(value)
            try:
                image = decode(self._source.locate(value))
            except UnreadableImageError as error:
                raise UnreadableImageError(str(error), path) from error
            images.append(image)
            size, wanted = (tuple(entry.shape[-2:]) for entry in (image, images[0]))
            if not _same_shape(size, wanted):
                reason = "this {} of {}x{} pixels has another aspect ratio than its image, {}x{}"
                raise UnreadableImageError(reason.format(kind, *size, *wanted), path)
        return images

    def _decode_one(self, value: Any) -> torch.Tensor:
        return decode_image(value, self.channels, self._source.max_image_pixels)

    def _decode_label_map(self, value: Any) -> torch.Tensor:
        if self._transform.label_maps == "colors":
            return decode_label_colors(value, self._source.max_image_pixels)
        labels, num_labels = decode_label_map(value, self._source.max_image_pixels), self._transform.num_labels
        if num_labels is not None and labels.max() >= num_labels:
            raise UnreadableImageError(
                f"it has the label {labels.max()}, but --conditioning_num_labels says that labels are from 0 to "
                f"{num_labels - 1}"
            )
        return labels.expand(self.channels, -1, -1)

    def _decode_instance_map(self, value: Any) -> torch.Tensor:
        return decode_instance_map(value, self._source.max_image_pixels)

    def _name_skipped(self, reasons: dict[str, str]) -> None:
        """Log which images are left out, each once."""
        new = {name: reason for name, reason in reasons.items() if name not in self._named_as_skipped}
        self._named_as_skipped |= new.keys()
        if new:
            logger.warning(f"Images that cannot be read are left out, {len(new)}:\n{list_reasons(new)}")

    def _named(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The images of a batch by name. Conditioning images, and instance maps, are in the channels after them."""
        count = len(self._source.image_columns)
        names = ["pixel_values", "conditioning_pixel_values", "instance_pixel_values"][:count]
        sizes = [self.channels, self.channels, INSTANCE_CHANNELS][:count]
        parts = (part.contiguous() for part in images.split(sizes, dim=1))
        return dict(zip(names, parts, strict=True))


def _check_share(batch_size: int, process_index: int, num_processes: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    if not 0 <= process_index < num_processes:
        raise ValueError(f"process_index must be from 0 to num_processes - 1, not {process_index} of {num_processes}")


def _same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes have the same aspect ratio, up to the rounding of a side to whole pixels."""
    (height, width), (other_height, other_width) = sorted((one, other))
    scale = max(other_height / height, other_width / width)
    return abs(height * scale - other_height) <= scale and abs(width * scale - other_width) <= scale


def pixel_digest(images: list[torch.Tensor]) -> bytes:
    """A digest of the decoded images of a row, each (C, h, w) uint8."""
    return b"".join(_image_digest(image) for image in images)


def _image_digest(pixels: torch.Tensor) -> bytes:
    # decode_image returns a view of an (h, w, C) array, so this does not copy the memory that is hashed.
    pixels = pixels.permute(1, 2, 0).contiguous()
    return hashlib.blake2b(pixels.numpy(), digest_size=16, salt=b"%d,%d" % pixels.shape[:2]).digest()
