"""Masks for the corruptions that hide a part of an image: free-form strokes, rectangles, and the outside of a crop.

A mask is a bool array (H, W), True where the image is hidden.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image, ImageDraw


SIDES = ("left", "right", "top", "bottom")

# The strokes of Yu et al. 2019 ("Free-Form Image Inpainting with Gated Convolution", algorithm 1), with the numbers of
# later implementations. A stroke has 4 to 11 vertices, and turns alternately left and right at each of them.
_STROKE_VERTICES = (4, 12)
_STROKE_ANGLES = (4 / 15 * math.pi, 8 / 15 * math.pi)
_BRUSH_WIDTHS = (12 / 256, 40 / 256)  # of the shorter side
_SEGMENT_LENGTH = 1 / 8  # of the diagonal, on average


def mask_generators(draw) -> list[np.random.Generator]:
    """A generator for each sample, seeded by `draw`, because masks need different numbers of random numbers."""
    # 24 bits at a time, which are exact in float32.
    words = torch.stack([draw.host.integers(2**24) for _ in range(4)], dim=1)
    return [np.random.default_rng(seed) for seed in words.tolist()]


def pixel_range(area: tuple[float, float], height: int, width: int) -> tuple[int, int]:
    """The smallest and the largest number of pixels that a mask with this fraction of the image may hide.

    If no integer is in this range, both are the next larger integer.

    Raises:
        ValueError: if no pixel of the image would stay visible.
    """
    fewest = math.ceil(area[0] * height * width)
    if fewest >= height * width:
        raise ValueError(f"images of {height}x{width} pixels are too small to hide {area[0]:.0%} of them")
    return fewest, max(fewest, math.floor(area[1] * height * width))


def stroke_mask(height: int, width: int, area: tuple[float, float], generator: np.random.Generator) -> np.ndarray:
    """Free-form brush strokes that cover a number of pixels which is drawn uniformly from the range of `area`."""
    fewest, most = pixel_range(area, height, width)
    target = int(generator.integers(fewest, most, endpoint=True))
    canvas = Image.new("L", (width, height))
    while True:
        for brush, start, end in _stroke(height, width, generator):
            before = canvas.copy()
            _draw_segment(canvas, brush, start, end)
            if canvas.histogram()[1] >= target:
                direction = (end[0] - start[0], end[1] - start[1])
                return _cut(np.asarray(before) > 0, np.asarray(canvas) > 0, target, direction)


def _stroke(height: int, width: int, generator: np.random.Generator) -> Iterator[tuple[int, tuple, tuple]]:
    """The segments of a stroke: the width of the brush, the start (x, y), and the end (x, y)."""
    brush = max(1, round(generator.uniform(*_BRUSH_WIDTHS) * min(height, width)))
    course, length = generator.uniform(0, 2 * math.pi), _SEGMENT_LENGTH * math.hypot(height, width)
    x, y = generator.uniform(0, width - 1), generator.uniform(0, height - 1)
    for vertex in range(generator.integers(*_STROKE_VERTICES)):
        angle = course + (-1) ** vertex * generator.uniform(*_STROKE_ANGLES)
        step = min(max(0, generator.normal(length, length / 2)), 2 * length)
        start = x, y
        x = min(max(0, x + step * math.cos(angle)), width - 1)
        y = min(max(0, y + step * math.sin(angle)), height - 1)
        yield brush, start, (x, y)


def _draw_segment(canvas: Image.Image, brush: int, start: tuple[float, float], end: tuple[float, float]) -> None:
    """A line with a round end."""
    pen = ImageDraw.Draw(canvas)
    (from_x, from_y), (x, y) = ((round(x), round(y)) for x, y in (start, end))
    pen.line((from_x, from_y, x, y), fill=1, width=brush)
    left, top = x - brush // 2, y - brush // 2
    pen.ellipse((left, top, left + brush - 1, top + brush - 1), fill=1)


def _cut(before: np.ndarray, after: np.ndarray, target: int, direction: tuple[float, float]) -> np.ndarray:
    """The mask at the moment when it has `target` pixels, while a brush moves from `before` to `after`.

    The brush moves in the direction (x, y).
    """
    rows, columns = np.nonzero(after & ~before)
    first = np.argsort(direction[0] * columns + direction[1] * rows, kind="stable")[: target - before.sum()]
    before[rows[first], columns[first]] = True
    return before


def rectangles_mask(
    height: int, width: int, area: tuple[float, float], max_rectangles: int, generator: np.random.Generator
) -> np.ndarray:
    """1 to `max_rectangles` rectangles that together cover a fraction in the range `area`; overlaps count once.

    Rectangles grow around their centres as long as they cover no more than a number of pixels that is drawn uniformly
    from the range. Because they grow by whole rows and columns, they may cover less than a narrow range requires; then
    other rectangles are drawn.

    Raises:
        ValueError: if a thousand draws cover too little.
    """
    fewest, most = pixel_range(area, height, width)
    size = np.array([height, width])
    for _ in range(1000):
        target = generator.integers(fewest, most, endpoint=True)
        count = generator.integers(1, min(max_rectangles, fewest), endpoint=True)
        centers, shapes = generator.uniform(0, size, (count, 2)), generator.uniform(0.25, 1, (count, 2)) * size
        # At scale 0 each rectangle is a pixel; at scale 8 even the smallest covers the image from any centre.
        smaller, larger = 0.0, 8.0
        for _ in range(16):
            middle = (smaller + larger) / 2
            if _rectangles(size, centers, middle * shapes).sum() <= target:
                smaller = middle
            else:
                larger = middle
        mask = _rectangles(size, centers, smaller * shapes)
        if mask.sum() >= fewest:
            return mask
    raise ValueError(f"no {max_rectangles} rectangles cover {fewest} to {most} of {height}x{width} pixels: widen area")


def _rectangles(size: np.ndarray, centers: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    starts = (centers - shapes / 2).round().clip(0, size - 1).astype(int)
    stops = np.maximum((centers + shapes / 2).round().astype(int), starts + 1)
    for (top, left), (bottom, right) in zip(starts.tolist(), stops.tolist(), strict=True):
        mask[top:bottom, left:right] = True
    return mask


def center_mask(height: int, width: int) -> np.ndarray:
    """Half of the height and of the width, in the middle: (height, width), True where the image is hidden."""
    mask = np.zeros((height, width), bool)
    mask[height // 4 : height // 4 + height // 2, width // 4 : width // 4 + width // 2] = True
    return mask


def side_mask(height: int, width: int, sides: set[str], area: float) -> np.ndarray:
    """The outside of a crop that has lost some sides, with a fraction `area` of the image.

    Opposite sides lose equally. If both axes lose sides, they lose the same proportion.

    Raises:
        ValueError: if an axis that loses a side has only one pixel.
    """
    rows, columns = sides & {"top", "bottom"}, sides & {"left", "right"}
    kept = (1 - area) ** (0.5 if rows and columns else 1)
    top, bottom = _kept_span(height, "top" in sides, "bottom" in sides, kept)
    left, right = _kept_span(width, "left" in sides, "right" in sides, kept)
    mask = np.ones((height, width), dtype=bool)
    mask[top:bottom, left:right] = False
    return mask


def _kept_span(length: int, before: bool, after: bool, kept: float) -> tuple[int, int]:
    if not before and not after:
        return 0, length
    if length < 2:
        raise ValueError("images that are one pixel high or wide cannot lose a side")
    size = min(max(1, round(kept * length)), length - 1)
    start = (length - size) // (1 + after) if before else 0
    return start, start + size
