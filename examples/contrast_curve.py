"""The baseline of a synthesis of contrasts: the best function of single voxels, fitted to pairs of volumes.

    python examples/contrast_curve.py scans/train/t1 scans/train/t2 scans/test/t1 curve

For each of 256 intensities of the first contrast, it has the mean intensity of the second one where that occurs: no
function of a single intensity has a smaller squared error on the training volumes.
"""

import sys
from pathlib import Path

import numpy as np

from diffusers_ext.volumes import find_volumes, read_volume, write_volume


LEVELS = 256


def fit_curve(first: Path, second: Path) -> np.ndarray:
    """The mean of the second contrast at each level of the first, (256,)."""
    sums, counts = np.zeros(LEVELS), np.zeros(LEVELS)
    others = find_volumes(second)
    for subject, path in find_volumes(first).items():
        levels = (read_volume(path)[0] * (LEVELS - 1)).round().astype(int).ravel()
        sums += np.bincount(levels, read_volume(others[subject])[0].ravel(), LEVELS)
        counts += np.bincount(levels, minlength=LEVELS)
    known = counts > 0
    return np.interp(np.arange(LEVELS), np.flatnonzero(known), sums[known] / counts[known])


def main(first: str, second: str, tested: str, output: str) -> None:
    """Fit the curve, and write what it makes of the volumes in `tested`."""
    curve = fit_curve(Path(first), Path(second))
    for subject, path in find_volumes(Path(tested)).items():
        slices, file = read_volume(path)
        mapped = np.interp(slices * (LEVELS - 1), np.arange(LEVELS), curve)
        write_volume(Path(output) / f"{subject}.nii.gz", mapped, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
