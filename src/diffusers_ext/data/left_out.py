"""Names the files of a folder that look like pictures and are not used, so that no image is lost silently."""

import mimetypes
import os
from collections import defaultdict
from collections.abc import Sequence

from PIL import Image

from diffusers_ext.data.decoding import image_extensions


# The packages that read images of a type.
_READERS = {"image/heic": "diffusers_ext[heif]", "image/heif": "diffusers_ext[heif]"}
_SHOWN = 3


def describe_unread_pictures(folder: str, files: Sequence[str]) -> str:
    """Says which files look like pictures and can't be read here; an empty text if there are none.

    These are files with the extension of an image format that has no reader here, and files without an extension that
    says what they are, if they are not text.

    Args:
        folder: where the files are.
        files: their paths, relative to the folder.
    """
    kinds = defaultdict(list)
    for file in files:
        if _looks_unread(folder, file):
            kinds[os.path.splitext(file)[1].lower()].append(file)
    return ", ".join(_describe(extension, found) for extension, found in sorted(kinds.items()))


def _describe(extension: str, files: list[str]) -> str:
    kind = f"{extension} file" if extension else "file without extension"
    reader = _READERS.get(mimetypes.guess_type(f"a{extension}")[0])
    hint = f"; to read them, pip install {reader}" if reader else ""
    return f"{len(files)} {kind.replace('file', 'files' if len(files) > 1 else 'file')} ({name_some(files)}{hint})"


def name_some(files: Sequence[str]) -> str:
    """The first files, and how many more there are."""
    more = len(files) - _SHOWN
    return ", ".join(files[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _looks_unread(folder: str, file: str) -> bool:
    extension = os.path.splitext(file)[1].lower()
    if extension in image_extensions():
        return False
    kind, _ = mimetypes.guess_type(file)
    if kind is None and extension not in Image.registered_extensions():
        return _is_binary(os.path.join(folder, file))
    return extension in Image.registered_extensions() or kind.startswith("image/")


def _is_binary(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return b"\0" in file.read(1024)
    except OSError:
        return False
