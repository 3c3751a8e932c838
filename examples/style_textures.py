"""Draw textures in random colours, as styles to learn from: mosaics, strokes, waves, dots, swirls and flecks.

    python examples/style_textures.py outputs/textures --count 300

The folder gets `train` and, with a tenth as many, `test`. All is drawn from `--seed`, so no picture is anybody's.
"""

import argparse
import colorsys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


def palette(random: np.random.Generator) -> np.ndarray:
    """Five colours around one to three hues, from dark to light: (5, 3) bytes."""
    hues = random.random(random.integers(1, 4))
    values = np.sort(random.uniform(0.15, 1.0, 5))
    colors = [
        colorsys.hsv_to_rgb((random.choice(hues) + random.normal(0, 0.03)) % 1, random.uniform(0.3, 1), value)
        for value in values
    ]
    return (np.array(colors) * 255).astype(np.uint8)


def mosaic(random: np.random.Generator, size: int) -> np.ndarray:
    """Cells around random points, with dark joints; the number of the colour of each pixel."""
    points = random.random((random.integers(30, 250), 2)) * size
    y, x = np.mgrid[:size, :size]
    distances = np.hypot(x[..., None] - points[:, 0], y[..., None] - points[:, 1])
    nearest, second = np.partition(distances, 1, axis=2)[..., :2].transpose(2, 0, 1)
    cells = random.integers(1, 5, len(points))[distances.argmin(axis=2)]
    return np.where(second - nearest < random.uniform(0, 2.5), 0, cells)


def waves(random: np.random.Generator, size: int) -> np.ndarray:
    """Bent stripes."""
    y, x = np.mgrid[:size, :size] / size
    angle, bend, count = random.uniform(0, np.pi), random.uniform(0, 0.15), random.uniform(6, 30)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return (((across + bend * np.sin(2 * np.pi * random.uniform(1, 4) * along)) * count) % 5).astype(int)


def swirls(random: np.random.Generator, size: int) -> np.ndarray:
    """Rings around random centres."""
    y, x = np.mgrid[:size, :size]
    centres = random.random((random.integers(3, 12), 2)) * size
    distances = np.hypot(x[..., None] - centres[:, 0], y[..., None] - centres[:, 1]).min(axis=2)
    return (distances / random.uniform(2, 6) % 5).astype(int)


def dots(random: np.random.Generator, size: int) -> np.ndarray:
    """Discs on a shifted grid."""
    step, radius = random.uniform(7, 20), random.uniform(0.25, 0.5)
    y, x = np.mgrid[:size, :size] / step
    x = x + 0.5 * (np.floor(y) % 2)
    numbers = random.integers(1, 5, (64, 64))[np.floor(y).astype(int) % 64, np.floor(x).astype(int) % 64]
    return np.where(np.hypot(x % 1 - 0.5, y % 1 - 0.5) < radius, numbers, 0)


def flecks(random: np.random.Generator, size: int) -> np.ndarray:
    """Levels of smooth noise."""
    noise = Image.fromarray((random.random((size, size)) * 255).astype(np.uint8))
    smooth = np.array(noise.filter(ImageFilter.GaussianBlur(random.uniform(1, 5))), dtype=float)
    return np.searchsorted(np.quantile(smooth, [0.2, 0.4, 0.6, 0.8]), smooth)


def strokes(random: np.random.Generator, size: int) -> np.ndarray:
    """Strokes of a brush that follow a field of directions."""
    picture = Image.new("L", (size, size), 0)
    draw = ImageDraw.Draw(picture)
    turn, width = random.uniform(0.5, 3, 2), random.integers(2, 7)
    for _ in range(1500):
        x, y = random.random(2) * size
        angle = 2 * np.pi * (np.sin(turn[0] * x / size * 3) + np.cos(turn[1] * y / size * 3)) / 2
        dx, dy = random.uniform(4, 14) * np.array([np.cos(angle), np.sin(angle)])
        draw.line((x, y, x + dx, y + dy), fill=int(random.integers(5)), width=int(width))
    return np.array(picture)


KINDS = (mosaic, waves, swirls, dots, flecks, strokes)


def texture(random: np.random.Generator, size: int) -> Image.Image:
    """One texture of a random kind."""
    numbers = KINDS[random.integers(len(KINDS))](random, size)
    pixels = palette(random)[numbers] + random.normal(0, random.uniform(0, 12), (size, size, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def main(arguments: list[str] | None = None) -> None:
    """Draw as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--count", type=int, default=300, help="how many textures are for training")
    parser.add_argument("--size", type=int, default=128, help="their side in pixels")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.count < 10 or options.size < 16:
        parser.error("--count must be at least 10 and --size at least 16")
    random = np.random.default_rng(options.seed)
    for split, count in (("train", options.count), ("test", options.count // 10)):
        folder = options.output_dir / split
        folder.mkdir(parents=True)
        for index in range(count):
            texture(random, options.size).save(folder / f"{index:04d}.png")


if __name__ == "__main__":
    main()
