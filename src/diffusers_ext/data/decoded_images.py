"""Decoded images in a file that is mapped into memory: decoded once, and shared by all processes and later runs.

A folder holds the decoded images of one data set, in the size in which training reads them:

- `index.safetensors` has the identity and the size of each image, its place in the other file, the reasons why images
  are unreadable, and the checksums of the blocks of the other file.
- `pixels.bin` has the pixels (uint8, C x H x W) of one image after the other. It is empty if the images were only
  verified.

Both are written beside the folder, which is then renamed. Processes that need the same images wait for the one that
decodes them. When some images of a data set have changed, the others are copied from the folder that is out of date.

Mapped pages are read when they are used, and the page cache of the system holds them once for all processes. HF
`datasets` could store the same in Arrow files, but reading 64 random images of 64x64 pixels from them takes 4 to 10
times as long.
"""

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from diffusers_ext.atomic import remove, written_beside
from diffusers_ext.data.buckets import Size


logger = logging.getLogger(__name__)

INDEX, PIXELS = "index.safetensors", "pixels.bin"

_BLOCK = 1 << 20  # bytes per checksum: small, because a batch of random images is checked in as many blocks


@dataclass(frozen=True)
class DecodedImage:
    """An image, or why there is none.

    Attributes:
        size: the original (height, width); (0, 0) for an unreadable image.
        pixels: uint8 (C, h, w), as training reads them; None if they are not kept.
        path: where an unreadable image is, if that is known.
        reason: why it is unreadable; None for a readable image.
    """

    size: Size = (0, 0)
    pixels: torch.Tensor | None = None
    path: str | None = None
    reason: str | None = None


class DamagedImagesError(Exception):
    """The decoded images of a folder are not as they were written."""


class DecodedImages:
    """The decoded images of a data set, from a folder that [`open_decoded_images`] wrote.

    Attributes:
        identities: uint8 (N, 16), a digest of each encoded image.
        sizes: int64 (N, 2), the original (height, width) of each image.
        unreadable: why images are unreadable: (path or None, reason) by row.

    Raises:
        DamagedImagesError: if the folder does not have the files, or has them incompletely.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            with safe_open(folder / INDEX, framework="pt") as file:
                index = {name: file.get_tensor(name) for name in file.keys()}
                self.unreadable = _parse_reasons((file.metadata() or {})["unreadable"])
                is_whole = (file.metadata() or {})["checksum"] == str(_checksum_of_index(index))
            self.identities, self.sizes = index["identities"], index["sizes"]
            self._shapes, self._starts, self._checksums = index["shapes"], index["starts"], index["checksums"]
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise DamagedImagesError(str(error)) from error
        if not is_whole:
            raise DamagedImagesError(f"{INDEX} is not as it was written")
        self._pixels = self._map_pixels()
        self._unchecked = torch.ones(len(self._checksums), dtype=torch.bool)
        self._stacked, self._places = self._stack()

    @property
    def has_pixels(self) -> bool:
        """Whether the pixels are kept, too."""
        return self._pixels is not None

    @property
    def num_bytes(self) -> int:
        """The size of the pixels on the disk."""
        return 0 if self._pixels is None else len(self._pixels)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """(C, H, W), if all readable images have the same shape; otherwise None."""
        return None if self._stacked is None else tuple(self._stacked.shape[1:])

    def stack(self, rows: torch.Tensor) -> torch.Tensor:
        """A copy of the images `rows`, (B, C, H, W), which all have the same `shape`."""
        self._check(rows)
        places = rows if self._places is None else self._places[rows]
        return self._stacked.index_select(0, places)  # many times faster than indexing

    def images(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """The images `rows`, each (C, h, w): views of mapped memory, to be read only."""
        self._check(rows)
        shapes, starts = self._shapes[rows].tolist(), self._starts[rows].tolist()
        return [
            self._pixels[start : start + channels * height * width].view(channels, height, width)
            for start, (channels, height, width) in zip(starts, shapes, strict=True)
        ]

    def image(self, row: int) -> DecodedImage:
        """A readable image."""
        pixels = self.images(torch.tensor([row]))[0] if self.has_pixels else None
        return DecodedImage(tuple(self.sizes[row].tolist()), pixels)

    def readable_rows(self) -> dict[bytes, int]:
        """The rows of the readable images, by identity."""
        rows = {identity.tobytes(): row for row, identity in enumerate(self.identities.numpy())}
        return {identity: row for identity, row in rows.items() if row not in self.unreadable}

    def check_all(self) -> None:
        """Compare all pixels with their checksums.

        Raises:
            DamagedImagesError: if they differ.
        """
        self._check_blocks(torch.arange(len(self._checksums)))

    def _map_pixels(self) -> torch.Tensor | None:
        path, num_bytes = self.folder / PIXELS, int(self._shapes.prod(dim=1).sum())
        if not num_bytes:
            return None
        if not path.is_file() or path.stat().st_size != num_bytes:
            raise DamagedImagesError(f"{PIXELS} does not have {num_bytes} bytes")
        return torch.from_file(str(path), shared=False, size=num_bytes, dtype=torch.uint8)

    def _stack(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """All readable images as one tensor, if they have one shape, and the places of the rows in it."""
        readable = self._shapes[:, 0] > 0
        shapes = self._shapes[readable].unique(dim=0)
        if self._pixels is None or len(shapes) != 1:
            return None, None
        shape = shapes[0].tolist()
        return self._pixels.view(-1, *shape), None if readable.all() else readable.cumsum(0) - 1

    def _check(self, rows: torch.Tensor) -> None:
        """Compare the blocks that hold the images `rows` with their checksums, each when it is first read."""
        if not self._unchecked.any():
            return
        starts = self._starts[rows]
        last = (starts + self._shapes[rows].prod(dim=1) - 1) // _BLOCK
        blocks = [range(*pair) for pair in zip((starts // _BLOCK).tolist(), (last + 1).tolist(), strict=True)]
        blocks = torch.tensor(sorted({block for span in blocks for block in span}), dtype=torch.int64)
        self._check_blocks(blocks[self._unchecked[blocks]])

    def _check_blocks(self, blocks: torch.Tensor) -> None:
        for block in blocks.tolist():
            if _checksum(self._pixels[block * _BLOCK : (block + 1) * _BLOCK]) != self._checksums[block]:
                raise DamagedImagesError(f"{PIXELS} is not as it was written")
        self._unchecked[blocks] = False


def open_decoded_images(
    root: Path,
    treatment: str,
    identities: np.ndarray,
    decode: Callable[[list[int]], Iterable[DecodedImage]],
    check_all: bool = False,
) -> DecodedImages:
    """The decoded images of a data set, which are decoded now if they are not there, or not whole.

    Args:
        root: the folder of all decoded images.
        treatment: the first part of the folder's name, which stands for all that is done to the images.
        identities: uint8 (N, 16), digests of the encoded images, in order.
        decode: decodes the images of these rows, in order.
        check_all: check all pixels of an existing folder now, and not when they are first read.

    Raises:
        OSError: if nothing can be written there.
    """
    folder = root / f"{treatment}-{hashlib.blake2b(identities, digest_size=8).hexdigest()}"
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        images = _open(folder, check_all)
        if images is None:
            remove(folder)
            with written_beside(folder) as unfinished:
                _write(unfinished, identities, _reuse(_out_of_date(root, treatment), identities, decode))
            images = DecodedImages(folder)
    return images


def _open(folder: Path, check_all: bool) -> DecodedImages | None:
    """The images of a folder; None if it does not exist, or is damaged."""
    if not folder.is_dir():
        return None
    try:
        images = DecodedImages(folder)
        if check_all:
            images.check_all()
    except DamagedImagesError as error:
        logger.warning(f"The decoded images in {folder} are damaged ({error}): decoding them again.")
        return None
    return images


def _out_of_date(root: Path, treatment: str) -> DecodedImages | None:
    """The latest images with this treatment, which are of other rows."""
    folders = [path for path in root.glob(f"{treatment}-*") if path.is_dir()]
    return _open(max(folders, key=os.path.getmtime), check_all=True) if folders else None


def _reuse(
    earlier: DecodedImages | None, identities: np.ndarray, decode: Callable[[list[int]], Iterable[DecodedImage]]
) -> Iterator[DecodedImage]:
    """All images in order: copied from `earlier` where the identity is the same, and otherwise decoded."""
    found = {} if earlier is None else earlier.readable_rows()
    places = [found.get(identity.tobytes()) for identity in identities]
    fresh = iter(decode([row for row, place in enumerate(places) if place is None]))
    for place in places:
        yield next(fresh) if place is None else earlier.image(place)


def _write(folder: Path, identities: np.ndarray, images: Iterable[DecodedImage]) -> None:
    sizes, shapes, unreadable = [], [], []
    with open(folder / PIXELS, "wb") as file:
        for row, image in enumerate(images):
            sizes.append(image.size)
            shapes.append((0, 0, 0) if image.pixels is None else tuple(image.pixels.shape))
            if image.pixels is not None:
                file.write(image.pixels.numpy().data)
            if image.reason is not None:
                unreadable.append((row, image.path, image.reason))
    shapes = torch.tensor(shapes)
    lengths = shapes.prod(dim=1)
    index = {
        "identities": torch.from_numpy(identities.copy()),
        "sizes": torch.tensor(sizes),
        "shapes": shapes,
        "starts": lengths.cumsum(0) - lengths,
        "checksums": torch.tensor(list(_checksums(folder / PIXELS)), dtype=torch.int64),
    }
    reasons = json.dumps(unreadable)
    save_file(index, folder / INDEX, {"unreadable": reasons, "checksum": str(_checksum_of_index(index))})


def _parse_reasons(text: str) -> dict[int, tuple[str | None, str]]:
    return {row: (path, reason) for row, path, reason in json.loads(text)}


def _checksums(path: Path) -> Iterator[int]:
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            yield zlib.crc32(block)


def _checksum(tensor: torch.Tensor) -> int:
    return zlib.crc32(tensor.numpy().data)


def _checksum_of_index(index: dict[str, torch.Tensor]) -> int:
    return zlib.crc32(b"".join(index[name].numpy().tobytes() for name in sorted(index)))
