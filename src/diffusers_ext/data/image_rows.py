"""Random access to the images of a data set: decoded once and kept on the disk, or decoded each time they are used."""

import functools
import hashlib
import itertools
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import PIL
import psutil
import torch
from huggingface_hub import constants
from tqdm.auto import tqdm

from diffusers_ext.data.buckets import Size
from diffusers_ext.data.decoded_images import DamagedImagesError, DecodedImage, DecodedImages, open_decoded_images
from diffusers_ext.data.decoding import UnreadableImageError, read_size
from diffusers_ext.data.parallel import threaded_map
from diffusers_ext.data.row_contents import row_identities
from diffusers_ext.data.sources import Source
from diffusers_ext.data.transforms import ImageTransform


logger = logging.getLogger(__name__)

_MEMORY_SHARE = 0.5  # of the free memory; the rest is for the model, its optimizer and everything else

Unreadable = dict[int, tuple[str | None, str]]  # the path (if it is known) and the reason, by row

# The row whose image takes the place of the unreadable image of a row, when other rows are unreadable too; or None.
StandIn = Callable[[int, Unreadable], int | None]


class Fetched(NamedTuple):
    """The images of some rows, in the size in which they are cropped.

    Attributes:
        rows: int64 (B,).
        sizes: B original sizes (height, width).
        images: uint8, one tensor (B, C, H, W), or B tensors (C, h, w).
    """

    rows: torch.Tensor
    sizes: list[Size]
    images: torch.Tensor | list[torch.Tensor]


class ImageRows:
    """The images of all rows of a source.

    Args:
        source: the rows.
        transform: its `fit` is applied to the images.
        decode: decodes the values of a row to images (C, h, w) uint8, or raises UnreadableImageError.
        treatment: all else that decides which pixels come from an encoded image.
        cache_images: keep the decoded images on the disk; None does so if they fit into half of the free memory.
        verify_images: decode all images before the first is used, even if they are not kept.

    Attributes:
        cached (`bool`): whether the decoded images are kept.
        unreadable (`dict`): the rows that are known to be unreadable.
    """

    def __init__(
        self,
        source: Source,
        transform: ImageTransform,
        decode: Callable[[tuple[Any, ...]], list[torch.Tensor]],
        treatment: tuple,
        cache_images: bool | None,
        verify_images: bool,
    ):
        self._source, self._transform, self._decode, self._treatment = source, transform, decode, treatment
        self._cache_images, self._verify_images = cache_images, verify_images
        self._kept: DecodedImages | None = None
        self.cached = False
        self.unreadable: Unreadable = {}

    def __len__(self) -> int:
        return len(self._source.rows)

    # Before the first image is used

    def prepare(self) -> Unreadable:
        """Decode the images that are to be kept or verified, and return those that are found to be unreadable."""
        self.cached = self._is_worth_caching()
        if self.cached or self._verify_images:
            self._open()
        return {} if self._kept is None else self._kept.unreadable

    def _is_worth_caching(self) -> bool:
        if self._cache_images is False:
            return False
        return self._cache_images or self._estimate_bytes() <= _MEMORY_SHARE * available_memory()

    def _estimate_bytes(self) -> float:
        rows = list(range(0, len(self), max(1, len(self) // 16)))
        images = [self._read(values).pixels for values in self._values(rows)]
        sizes = [image.numel() for image in images if image is not None]
        return len(self) * sum(sizes) / max(1, len(sizes))

    @functools.cached_property
    def _root(self) -> Path:
        """The folder of all decoded images."""
        cache = Path(self._source.cache_dir or constants.HF_ASSETS_CACHE).expanduser()
        return cache / "diffusers_ext" / "decoded_images"

    def _open(self, check_all: bool = False) -> None:
        """Open the decoded images, or decode them now."""
        try:
            self._kept = self._open_kept(check_all)
            if any(self._read(values).reason is None for values in self._values(list(self._kept.unreadable))):
                shutil.rmtree(self._kept.folder)  # what made them unreadable is gone
                self._kept = self._open_kept(check_all)
        except OSError as error:
            logger.warning(
                f"Decoded images can't be kept in {self._root} ({error.strerror or error}): images are decoded each "
                "time they are used. Choose another place with --cache_dir."
            )
            self.cached, self._kept = False, None
            return
        if self._kept.has_pixels:
            logger.info(f"The decoded images take {_megabytes(self._kept.num_bytes)} in {self._kept.folder}.")

    def _open_kept(self, check_all: bool) -> DecodedImages:
        versions = PIL.__version__, torch.__version__
        treatment = repr((self._treatment, self._transform.fit_options(), self.cached, versions))
        digest = hashlib.blake2b(f"{treatment} {self._source.folder}".encode(), digest_size=8).hexdigest()
        return open_decoded_images(self._root, digest, row_identities(self._source), self._read_all, check_all)

    def _read_all(self, rows: list[int]) -> Iterator[DecodedImage]:
        if self.cached:
            self._check_disk()
        read = functools.partial(self._read, keep_pixels=self.cached)
        return tqdm(
            threaded_map(read, self._all_values(rows), _num_threads()),
            total=len(rows),
            desc="Decoding images" if self.cached else "Verifying images",
            unit="image",
            delay=1,
            mininterval=1,
        )

    def _check_disk(self) -> None:
        """Raises OSError if the decoded images won't fit on the disk."""
        needed, free = self._estimate_bytes(), shutil.disk_usage(self._root).free
        if needed > free:
            raise OSError(f"they need {_megabytes(needed)}, and the disk has only {_megabytes(free)} left")

    # Images

    def sizes(self) -> list[Size]:
        """The original sizes (height, width) of all images; (0, 0) for an unreadable one."""
        if self._kept is not None:
            return list(map(tuple, self._kept.sizes.tolist()))
        return list(threaded_map(self._read_size, self._all_values(range(len(self))), _num_threads()))

    def fetch(self, rows: torch.Tensor, stand_in: StandIn) -> tuple[Fetched, Unreadable]:
        """The images of `rows`, and those that are found to be unreadable now.

        Args:
            rows: int64 (B,).
            stand_in: chooses the row that is read in the place of an unreadable one, or None to leave it out.
        """
        found: Unreadable = {}
        if self._kept is None or not self._kept.has_pixels:
            return self._fetch_encoded(rows, stand_in, found), found
        chosen = rows
        if self.unreadable:
            chosen = [stand_in(row, found) if row in self.unreadable else row for row in rows.tolist()]
            chosen = torch.tensor([row for row in chosen if row is not None], dtype=torch.int64)
        try:
            images = self._kept.images(chosen) if self._kept.shape is None else self._kept.stack(chosen)
        except DamagedImagesError as error:
            logger.warning(f"The decoded images in {self._kept.folder} are damaged ({error}).")
            self._open(check_all=True)
            return self.fetch(rows, stand_in)
        return Fetched(chosen, list(map(tuple, self._kept.sizes[chosen].tolist())), images), found

    def _fetch_encoded(self, rows: torch.Tensor, stand_in: StandIn, found: Unreadable) -> Fetched:
        fetched = []
        for row, values in zip(rows.tolist(), self._values(rows.tolist()), strict=True):
            image = None if row in self.unreadable else self._read(values)
            while row is not None and (image is None or image.reason is not None):
                if image is not None:
                    found[row] = image.path, image.reason
                row = stand_in(row, found)
                image = None if row is None else self._read(*self._values([row]))
            if row is not None:
                fetched.append((row, image))
        return Fetched(
            torch.tensor([row for row, _ in fetched], dtype=torch.int64),
            [image.size for _, image in fetched],
            [image.pixels for _, image in fetched],
        )

    def _read(self, values: tuple[Any, ...], keep_pixels: bool = True) -> DecodedImage:
        """Decode and resize the images of a row."""
        try:
            images = self._decode(values)
        except UnreadableImageError as error:
            return DecodedImage(path=error.path, reason=str(error))
        return DecodedImage(tuple(images[0].shape[-2:]), self._transform.fit(*images) if keep_pixels else None)

    def _read_size(self, values: tuple[Any, ...]) -> Size:
        try:
            return read_size(self._source.locate(values[0]), self._source.max_image_pixels)
        except UnreadableImageError:
            return 0, 0

    def _values(self, rows: list[int]) -> list[tuple[Any, ...]]:
        columns = self._source.rows[rows]
        return list(zip(*(columns[name] for name in self._source.image_columns), strict=True))

    def _all_values(self, rows: list[int] | range) -> Iterator[tuple[Any, ...]]:
        slices = (list(rows[start : start + 256]) for start in range(0, len(rows), 256))
        return itertools.chain.from_iterable(map(self._values, slices))


def reasons(found: Unreadable) -> dict[str, str]:
    """The reasons by the path, or the row, of the image."""
    return {path or f"row {row}": reason for row, (path, reason) in sorted(found.items())}


def available_memory() -> int:
    """Bytes of free memory, within the limits of the machine and of the container (cgroup v2)."""
    available = psutil.virtual_memory().available
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and limit.read_text().strip() != "max":
        available = min(available, int(limit.read_text()) - int(used.read_text()))
    return available


def _num_threads() -> int:
    return max(1, min(8, os.cpu_count() or 1))


def _megabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"
