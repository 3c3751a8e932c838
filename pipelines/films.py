"""Pictures side by side, and films of them."""

import importlib.util
import math
import os
import tempfile

import numpy as np
from diffusers.utils import export_to_video
from PIL import Image

from .checks import check_positive


SLOWEST_GIF = 0.002  # frames per second


def arrange_pictures(pictures: list[Image.Image], columns: int) -> Image.Image:
    """One picture of all, row by row; what is left of the last row is black."""
    width, height = pictures[0].size
    rows = math.ceil(len(pictures) / columns)
    arranged = Image.new(pictures[0].mode, (columns * width, rows * height))
    for i, picture in enumerate(pictures):
        arranged.paste(picture, (i % columns * width, i // columns * height))
    return arranged


def check_film(path: str | os.PathLike, fps: float):
    """
    Refuses a film that [`write_film`] cannot write.

    Raises:
        ValueError: for another ending than .gif and .mp4, or frames per second that the format does not have.
        ImportError: for an .mp4 without the packages that write it.
    """
    check_positive("fps", fps)
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in (".gif", ".mp4"):
        raise ValueError(f"A film is written to a file that ends in .gif or .mp4, but {os.fspath(path)} does not.")
    if suffix == ".gif" and not SLOWEST_GIF <= fps <= 50:
        raise ValueError(f"`fps` of a GIF must be from {SLOWEST_GIF} to 50, but is {fps}.")
    lacking = [name for name in ("imageio", "imageio_ffmpeg") if importlib.util.find_spec(name) is None]
    if suffix == ".mp4" and lacking:
        raise ImportError(
            f"An .mp4 needs {' and '.join(lacking)}: run `pip install imageio imageio-ffmpeg`, or write a .gif."
        )


def make_even(frame: Image.Image) -> Image.Image:
    """A frame with even sides, which the codec needs: the last row or column is repeated, and nothing is resampled."""
    width, height = frame.size
    if width % 2 == 0 and height % 2 == 0:
        return frame
    return Image.fromarray(np.pad(np.asarray(frame), ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))


def write_film(frames: list[Image.Image], path: str | os.PathLike, fps: float):
    """
    Writes a film, which appears under its name when it is complete.

    Args:
        frames (`list[PIL.Image.Image]`): the pictures.
        path (`str` or `os.PathLike`): a file that ends in `.gif`, which repeats forever, or in `.mp4`.
        fps (`float`): frames per second.
    """
    suffix = os.path.splitext(path)[1].lower()
    folder = tempfile.mkdtemp(dir=os.path.dirname(os.path.abspath(path)))
    unfinished = os.path.join(folder, "film" + suffix)
    try:
        if suffix == ".gif":
            # A GIF counts in hundredths of a second.
            duration = round(100 / fps) * 10
            frames[0].save(unfinished, save_all=True, append_images=frames[1:], duration=duration, loop=0)
        else:
            export_to_video(
                [make_even(frame.convert("RGB")) for frame in frames], unfinished, fps=fps, macro_block_size=2
            )
        os.replace(unfinished, path)
    finally:
        if os.path.exists(unfinished):
            os.remove(unfinished)
        os.rmdir(folder)
