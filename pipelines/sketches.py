"""Sketches that users pass and get: points as stroke-3, SVG texts and pictures."""

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw


MARGIN = 0.1  # of the side of a picture, on each side
LINE_WIDTH = 0.02  # of the side of a picture
OVERSAMPLING = 4  # pictures are drawn larger by this factor, and then made smaller, for smooth lines


def read_sketches(name: str, sketches: Any) -> list[torch.Tensor]:
    """
    One sketch or several, each as points `(n, 3)` in float32 on the CPU.

    Args:
        name (`str`): the argument's name, for errors.
        sketches: an array, a tensor or nested lists `(n, 3)`: `(dx, dy, lifted)`, where `lifted` is 1 if the pen is
            lifted after the point, else 0; or a list of them.

    Raises:
        ValueError: for anything else, and for sketches without points.
    """
    one = isinstance(sketches, (np.ndarray, torch.Tensor)) or _is_point_list(sketches)
    return [_read_sketch(name, sketch) for sketch in ([sketches] if one else _as_list(name, sketches))]


def _is_point_list(sketches: Any) -> bool:
    """Whether nested lists are one sketch: lists of three numbers."""
    return isinstance(sketches, (list, tuple)) and len(sketches) > 0 and _is_point(sketches[0])


def _is_point(value: Any) -> bool:
    is_list = isinstance(value, (list, tuple, np.ndarray, torch.Tensor)) and getattr(value, "ndim", 1) == 1
    return is_list and len(value) == 3 and all(np.ndim(part) == 0 for part in value)


def _as_list(name: str, sketches: Any) -> list:
    if not isinstance(sketches, (list, tuple)) or len(sketches) == 0:
        raise ValueError(f"`{name}` must be a sketch (n, 3) or a list of them, but is {type(sketches).__name__}.")
    return list(sketches)


def _read_sketch(name: str, sketch: Any) -> torch.Tensor:
    try:
        points = torch.as_tensor(sketch).detach().to("cpu", torch.float32)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"`{name}` must have numbers (dx, dy, lifted), but {error}.") from error
    if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
        raise ValueError(f"`{name}` must be points (n, 3) with n > 0, but has the shape {tuple(points.shape)}.")
    if not points.isfinite().all() or not torch.isin(points[:, 2], torch.tensor([0.0, 1.0])).all():
        raise ValueError(f"`{name}` must be (dx, dy, lifted) with finite offsets, where `lifted` is 0 or 1.")
    return points


def to_polylines(sketch: torch.Tensor) -> list[np.ndarray]:
    """The lines of a sketch `(n, 3)`, each `(k, 2)` in float64, in the coordinates of its start."""
    points = sketch.double().numpy()
    places = points[:, :2].cumsum(axis=0)
    ends = np.flatnonzero(points[:, 2]) + 1
    return [line for line in np.split(places, ends) if len(line)]


def fit_polylines(lines: list[np.ndarray], size: int) -> list[np.ndarray]:
    """Lines that fill a square of `size`, up to a margin, in the middle."""
    if not lines:
        return []
    places = np.concatenate(lines)
    low, high = places.min(axis=0), places.max(axis=0)
    extent = (high - low).max()
    scale = (1 - 2 * MARGIN) * size / extent if extent > 0 else 1.0
    return [(line - (low + high) / 2) * scale + size / 2 for line in lines]


def to_svg(sketch: torch.Tensor, size: int) -> str:
    """A sketch `(n, 3)` as the text of an SVG file of `size` pixels, black lines on white."""
    paths = []
    for line in fit_polylines(to_polylines(sketch), size):
        places = [f"{x:.2f},{y:.2f}" for x, y in line]
        places = places if len(places) > 1 else places * 2  # a line to itself is drawn as a dot
        paths.append(f"M{places[0]} L" + " ".join(places[1:]))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{size}" viewBox="0 0 {size} {size}">'
        f'<rect width="{size}" height="{size}" fill="white"/>'
        f'<path d="{" ".join(paths)}" fill="none" stroke="black" stroke-width="{LINE_WIDTH * size:.2f}" '
        'stroke-linecap="round" stroke-linejoin="round"/></svg>\n'
    )


def to_picture(sketch: torch.Tensor, size: int) -> Image.Image:
    """A sketch `(n, 3)` as a gray picture of `size` pixels, black lines on white."""
    large = size * OVERSAMPLING
    width = max(1, round(LINE_WIDTH * large), OVERSAMPLING)  # at least a pixel of the small picture
    picture = Image.new("L", (large, large), 255)
    draw = ImageDraw.Draw(picture)
    for line in fit_polylines(to_polylines(sketch), large):
        draw.line([tuple(place) for place in line.tolist()], fill=0, width=width, joint="curve")
        for x, y in (line[0], line[-1]):
            draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=0)
    return picture.resize((size, size), Image.Resampling.BOX)
