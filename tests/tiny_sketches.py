"""Small sketches that a tiny network learns in seconds: stairs."""

from pathlib import Path

import numpy as np


def write_stairs(folder: Path) -> None:
    """Two classes, stairs of few steps and of many, as .npz files with the splits train (24 each) and valid (9)."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for name, least in (("high", 6), ("low", 2)):
        arrays = {}
        for split, count in (("train", 24), ("valid", 9)):
            sketches = [_stairs(generator, least + row % 3) for row in range(count)]
            arrays[f"{split}_lengths"] = np.array([len(sketch) for sketch in sketches])
            arrays[f"{split}_strokes"] = np.concatenate(sketches).astype(np.int16)
        np.savez(folder / f"{name}.npz", **arrays)


def _stairs(generator: np.random.Generator, steps: int) -> np.ndarray:
    """Points (dx, dy, lifted) of about the same steps, with a second, straight stroke."""
    offsets = [[10, 0, 0] if step % 2 else [0, 10, 0] for step in range(steps)]
    points = np.array([*offsets, [0, 10, 1], [5, 5, 0], [40, 0, 0], [40, 0, 1]])
    points[:, :2] += generator.integers(-1, 2, (len(points), 2))
    return points
