"""Mutated image files: each is a sentence or a right result, nothing is lost, and nothing is executed or written.

    python -m tests.fuzz.fuzz_images --count 100 --seed 0

writes image files of several formats, damages them, loads them as a data set, and prints the counts. It fails at the
first result that is none of these:

- A file whose metadata are damaged, beside intact pixels, has the pixels of the intact file.
- A file whose bytes are damaged anywhere is an image of some size, or it is named with the reason in one line.
- A file that is no image is named.
- The intact files between them are all there, in order, with their pixels.
"""

import argparse
import io
import logging
import random
import struct
import sys
import tempfile
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diffusers_ext.data import UnreadableImagesError, decode_image, load_image_dataset
from diffusers_ext.data.decoding import UnreadableImageError


FORMATS = {
    "png": {},
    "jpg": {"quality": 95},
    "webp": {"lossless": True},
    "gif": {},
    "bmp": {},
    "tif": {},
    "ppm": {},
    "tga": {},
    "ico": {},
}
SIZE = 16  # equal to the resolution, so that no pixel is resized
EXECUTIONS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.startfile")


def write_intact(number: int, extension: str) -> bytes:
    """A file of a random image with this number."""
    pixels = np.random.default_rng(number).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    file = io.BytesIO()
    name = Image.registered_extensions()[f".{extension}"]
    Image.fromarray(pixels).save(file, name, **FORMATS[extension])
    return file.getvalue()


# Mutations that leave the pixels intact, of (extension, bytes, random numbers); None where a format has no such place.


def add_chunk(extension: str, data: bytes, choose: random.Random) -> bytes | None:
    """Texts, profiles and EXIF of PNG files: too large, broken, or with a wrong checksum."""
    if extension != "png":
        return None
    large, junk = zlib.compress(bytes(2 << 20)), choose.randbytes(choose.randrange(40))
    kind, body = choose.choice(
        [
            (b"iCCP", b"icc\0\0" + large),
            (b"zTXt", b"key\0\0" + large),
            (b"iTXt", b"key\0\1\0\0\0" + large),
            (b"eXIf", junk),
            (b"iCCP", junk),
            (b"zTXt", junk),
            (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + junk),
            (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(junk)),
            (choose.choice([b"gAMA", b"cHRM", b"pHYs", b"sRGB", b"tIME", b"acTL", b"fcTL", b"zzZz"]), junk),
        ]
    )
    checksum = zlib.crc32(kind + body) if choose.random() < 0.7 else choose.randrange(2**32)
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)
    place = choose.choice([33, len(data) - 12])
    return data[:place] + chunk + data[place:]


def add_segment(extension: str, data: bytes, choose: random.Random) -> bytes | None:
    """EXIF, XMP, profiles and comments of JPEG files that are broken."""
    if extension != "jpg":
        return None
    marker, start = choose.choice(
        [
            (0xE1, b"Exif\0\0II*\0\x08\0\0\0"),
            (0xE1, b"Exif\0\0"),
            (0xE1, b"http://ns.adobe.com/xap/1.0/\0"),
            (0xE2, b"ICC_PROFILE\0\1\1"),
            (0xE2, b"MPF\0"),
            (0xED, b"Photoshop 3.0\0"),
            (0xFE, b""),
        ]
    )
    body = start + choose.randbytes(choose.randrange(60))
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body + data[2:]


def add_end(extension: str, data: bytes, choose: random.Random) -> bytes | None:
    """Bytes behind the image."""
    return data + choose.randbytes(choose.randrange(1, 100)) if extension in ("png", "jpg", "gif", "bmp") else None


# Mutations that damage anything.


def flip(extension: str, data: bytes, choose: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(choose.randrange(1, 8)):
        damaged[choose.randrange(len(damaged))] ^= 1 << choose.randrange(8)
    return bytes(damaged)


def flip_head(extension: str, data: bytes, choose: random.Random) -> bytes:
    return flip(extension, data[:64], choose) + data[64:]


def cut(extension: str, data: bytes, choose: random.Random) -> bytes:
    return data[: choose.randrange(len(data))]


def drop(extension: str, data: bytes, choose: random.Random) -> bytes:
    start = choose.randrange(len(data))
    return data[:start] + data[start + choose.randrange(1, 50) :]


def huge(extension: str, data: bytes, choose: random.Random) -> bytes:
    """Every number in the head may be the width or the height."""
    place = choose.randrange(4, 30)
    return data[:place] + b"\x7f\xff\xff\xff" + data[place + 4 :]


# Files that are no images.


def other_file(extension: str, data: bytes, choose: random.Random) -> bytes:
    return choose.choice(
        [
            b"",
            b"<html>not found</html>",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(ls) (w) file\n",
            b"version https://git-lfs.github.com/spec/v1\n",
            choose.randbytes(200),
        ]
    )


HARMLESS = (add_chunk, add_segment, add_end)
HARMFUL = (flip, flip_head, cut, drop, huge, other_file)


def mutate(number: int, choose: random.Random) -> tuple[str, bytes, bool, Callable]:
    """The extension and the bytes of a mutated file, whether its pixels are intact, and the mutation."""
    while True:
        mutation = choose.choice(HARMLESS if number % 2 else HARMFUL)
        extension = choose.choice(list(FORMATS))
        data = mutation(extension, write_intact(number, extension), choose)
        if data is not None:
            return extension, data, mutation in HARMLESS, mutation


class Watch:
    """Notes programs that are started and files that are opened for writing; can't be removed again, only idle.

    Args:
        cache (`str`): the folder in which files may be written.
    """

    def __init__(self, cache: str):
        self.active, self.seen, self.cache = False, [], cache
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple) -> None:
        if not self.active:
            return
        is_writing = event == "open" and set(str(arguments[1])) & set("wax+")
        if event in EXECUTIONS or (is_writing and not str(arguments[0]).startswith(self.cache)):
            self.seen.append((event, str(arguments)[:200]))

    @contextmanager
    def watching(self) -> Iterator[None]:
        self.active = True
        try:
            yield
        finally:
            self.active = False


def fuzz(count: int, seed: int) -> Counter:
    """Loads `count` mutated files between intact ones.

    Returns:
        How often each mutation had each result.

    Raises:
        AssertionError: if a result is not as described above.
    """
    choose, counts = random.Random(seed), Counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory() as cache,
        warnings.catch_warnings(),
    ):
        watch = Watch(cache)
        warnings.simplefilter("ignore")  # Pillow warns of what it repairs
        expected, mutations = {}, {}
        for number in range(count):
            intact = Path(folder, f"{number:05}-intact.png")
            intact.write_bytes(write_intact(number, "png"))
            expected[str(intact)] = decode_image(str(intact), 3)
            extension, data, has_pixels, mutation = mutate(number, choose)
            path = Path(folder, f"{number:05}-mutated.{extension}")
            path.write_bytes(data)
            mutations[str(path)] = mutation.__name__
            if has_pixels:
                expected[str(path)] = decode_image(write_intact(number, extension), 3)
        before = {path: path.read_bytes() for path in Path(folder).iterdir()}
        with watch.watching():
            check(folder, cache, expected, mutations, counts)
        assert not watch.seen, f"something was executed or written: {watch.seen}"
        assert before == {path: path.read_bytes() for path in Path(folder).iterdir()}, "files were changed"
    return counts


def check(
    folder: str, cache: str, expected: dict[str, torch.Tensor], mutations: dict[str, str], counts: Counter
) -> None:
    decoded, reasons = {}, {}
    for path in sorted([*expected.keys(), *mutations.keys() - expected.keys()]):
        try:
            decoded[path] = decode_image(path, 3)
        except UnreadableImageError as error:
            reasons[path] = str(error)
            assert reasons[path].strip() and "\n" not in reasons[path], f"{path}: {reasons[path]!r}"
        if path in expected:
            right = path in decoded and torch.equal(decoded[path], expected[path])
            assert right, f"{path}: intact pixels are {reasons.get(path, 'changed')} after {mutations.get(path)}"
        if path in mutations:
            result = "intact" if path in expected else "refused" if path in reasons else "an image"
            counts[mutations[path], result] += 1

    options = {"train_data_dir": folder, "resolution": SIZE, "cache_images": True, "cache_dir": cache}
    if reasons:
        try:
            load_image_dataset(**options).prepare()
            raise AssertionError("unreadable files are accepted")
        except UnreadableImagesError as error:
            assert error.files == list(reasons), "not all unreadable files are named"
            assert all(reason in str(error) for reason in reasons.values())
    dataset = load_image_dataset(**options, skip_unreadable_images=True)
    dataset.prepare()
    assert (dataset.num_examples, dataset.num_skipped) == (len(decoded), len(reasons)), "images are lost"
    loaded = torch.cat([batch["pixel_values"] for batch in dataset.reference_batches(64)])
    for pixels, (path, image) in zip(loaded, decoded.items(), strict=True):
        assert image.shape != pixels.shape or torch.equal(pixels, image), f"{path} is not in its place"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.getLogger("diffusers_ext").setLevel(logging.ERROR)  # or every file that is refused is named
    counts = fuzz(arguments.count, arguments.seed)
    for (mutation, result), number in sorted(counts.items()):
        print(f"{mutation:12} {result:9} {number:5}")
    print(f"{counts.total()} mutated files, no failure")


if __name__ == "__main__":
    main()
