"""Pictures side by side, films of them, and the films that pipelines make."""

import importlib.util
import math
import os
import tempfile
from dataclasses import dataclass

import numpy as np
import torch
from diffusers.utils import BaseOutput, export_to_video
from PIL import Image
from torch.nn import functional as F

from .checks import check_positive
from .images import check_one_size, fit_channels, list_images, read_image, to_pictures


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


FilmInput = list[Image.Image] | np.ndarray | torch.Tensor


def read_films(name: str, films: FilmInput | list[FilmInput], channels: int) -> torch.Tensor:
    """
    The films in an argument that is one film or several.

    Args:
        name (`str`): the argument's name, for errors.
        films: a film is a list of pictures, an array `(F, H, W, C)` or a tensor `(F, C, H, W)` in `[0, 1]`; several
            are a list of them, or an array or a tensor of five dimensions.
        channels (`int`): of the result.

    Returns:
        `torch.Tensor` of shape `(N, C, F, H, W)`: float32 in `[0, 1]`.

    Raises:
        ValueError: for what is no film, and for films of different sizes.
    """
    is_batch = isinstance(films, (np.ndarray, torch.Tensor)) and films.ndim == 5
    is_list = isinstance(films, (list, tuple)) and len(films) > 0 and all(map(_is_film, films))
    films = list(films) if is_batch or is_list else [films]
    if not all(map(_is_film, films)):
        raise ValueError(
            f"`{name}` must be a film or a list of films: lists of pictures, arrays (F, H, W, C) or tensors "
            "(F, C, H, W)."
        )
    read = []
    for film in films:
        frames = [fit_channels(name, read_image(name, frame), channels) for frame in list_images(name, film)]
        check_one_size(frames)
        read.append(torch.stack(frames, dim=1))
    if len({film.shape for film in read}) > 1:
        raise ValueError(f"The films in `{name}` must have one size and one number of frames.")
    return torch.stack(read)


def _is_film(film) -> bool:
    if isinstance(film, (np.ndarray, torch.Tensor)):
        return film.ndim == 4
    return isinstance(film, (list, tuple)) and len(film) > 0 and not any(map(_is_film, film))


def enlarge_films(films: torch.Tensor, num_frames: int, size: tuple[int, int]) -> torch.Tensor:
    """Small films `(N, C, f, h, w)` as large ones `(N, C, num_frames, *size)`: repeated frames, bilinear in space."""
    frames = films.repeat_interleave(num_frames // films.shape[2], dim=2).transpose(1, 2)
    large = F.interpolate(frames.flatten(0, 1), tuple(size), mode="bilinear")
    return large.unflatten(0, frames.shape[:2]).transpose(1, 2)


@dataclass
class FilmPipelineOutput(BaseOutput):
    """
    The films of a call.

    Attributes:
        frames (`list[list[PIL.Image.Image]]`, `np.ndarray` or `torch.Tensor`): the frames of each film: pictures, or
            an array `(N, F, H, W, C)` or a tensor `(N, F, C, H, W)` in `[0, 1]`.
    """

    frames: list[list[Image.Image]] | np.ndarray | torch.Tensor


def to_films(films: torch.Tensor, output_type: str) -> list[list[Image.Image]] | np.ndarray | torch.Tensor:
    """
    What a pipeline returns.

    Args:
        films (`torch.Tensor` of shape `(N, C, F, H, W)`): in `[0, 1]`.
        output_type (`str`): `"pil"`, `"np"` or `"pt"`; see [`FilmPipelineOutput`].
    """
    frames = films.transpose(1, 2)
    if output_type == "pt":
        return frames
    arrays = frames.permute(0, 1, 3, 4, 2).cpu().numpy()
    return [to_pictures(film) for film in arrays] if output_type == "pil" else arrays
