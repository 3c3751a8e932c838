"""Draw heads in two contrasts, T1-like and T2-like, as NIfTI volumes: phantoms for the synthesis of contrasts.

    python examples/medical_phantoms.py outputs/phantoms

Ellipsoids as in the phantom of Shepp and Logan, with folded borders: skin, bone, fluid, gray and white matter,
ventricles, and in most subjects lesions. The shapes and the intensity of each tissue differ from subject to subject;
both contrasts have noise and a shading of their own. Lesions and gray matter look alike in T1, and bone and fluid too,
so that an intensity curve can't tell the T2 contrast from T1. `train` and `test` get the folders `t1` and `t2` each.
Needs nibabel: pip install "diffusers_ext[medical]".
"""

import argparse
from pathlib import Path

import nibabel
import numpy as np


# Mean intensities of air, skin, bone, fluid, gray matter, white matter and lesions
T1 = np.array([0.0, 0.85, 0.18, 0.2, 0.5, 0.75, 0.47])
T2 = np.array([0.0, 0.6, 0.1, 0.95, 0.55, 0.38, 0.8])
AIR, SKIN, BONE, FLUID, GRAY, WHITE, LESION = range(7)


def draw_labels(random: np.random.Generator, size: int, depth: int) -> np.ndarray:
    """The tissue of each voxel, (size, size, depth)."""
    axes = [np.linspace(-1, 1, size), np.linspace(-1, 1, size), np.linspace(-0.75, 0.75, depth)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    turn = random.normal(0, 0.08)
    x, y = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    x, y = x / random.uniform(0.68, 0.78), y / random.uniform(0.83, 0.93)
    radius, angle = np.sqrt(x**2 + y**2 + z**2), np.arctan2(y, x)
    folds = sum(
        random.normal(0, 0.012) * np.sin(count * angle + 4 * z + random.uniform(0, 6)) for count in range(7, 26, 2)
    )
    labels = np.full(x.shape, AIR)
    labels[radius < 1] = SKIN
    labels[radius < 0.93] = BONE
    labels[radius < 0.84] = FLUID
    labels[radius < 0.79 + folds] = GRAY
    labels[radius < 0.64 + 2.2 * folds] = WHITE
    spread, length = random.uniform(0.1, 0.2), random.uniform(0.25, 0.38)
    for side in (-1, 1):  # deep gray matter, and the ventricles
        labels[((x - side * 0.3) / 0.14) ** 2 + ((y + 0.05) / 0.24) ** 2 + (z / 0.5) ** 2 < 1] = GRAY
        bent = x - side * (spread + 0.12 * y**2)
        labels[(bent / (0.45 * spread)) ** 2 + ((y - 0.05) / length) ** 2 + (z / 0.45) ** 2 < 1] = FLUID
    for _ in range(random.integers(0, 5)):
        centre = random.uniform(-0.45, 0.45, 3)
        size_ = random.uniform(0.06, 0.2) * random.uniform(0.7, 1.3, 3)
        inside = sum(((axis - at) / side) ** 2 for axis, at, side in zip((x, y, z), centre, size_, strict=True)) < 1
        labels[inside & np.isin(labels, (WHITE, GRAY))] = LESION
    return labels


def render(random: np.random.Generator, labels: np.ndarray, means: np.ndarray) -> np.ndarray:
    """The magnitude image of a scanner, float32: tissues that vary, a smooth shading, and Rician noise."""
    intensities = means * random.normal(1, 0.04, len(means))
    image = intensities[labels]
    image = (image + sum(np.roll(image, shift, axis) for axis in (0, 1) for shift in (-1, 1))) / 5  # partial volumes
    grid = np.meshgrid(*(np.linspace(-1, 1, side) for side in labels.shape), indexing="ij")
    shading = 1 + sum(random.normal(0, 0.04) * axis for axis in grid)
    noise = random.normal(0, 0.015, (2, *labels.shape))
    return (1000 * np.hypot(image * shading + noise[0], noise[1])).astype(np.float32)


def main(arguments: list[str] | None = None) -> None:
    """Draw as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--num_train", type=int, default=24, help="subjects for training")
    parser.add_argument("--num_test", type=int, default=6, help="subjects for testing")
    parser.add_argument("--size", type=int, default=64, help="the side of a slice in voxels")
    parser.add_argument("--depth", type=int, default=16, help="slices of a subject")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    random = np.random.default_rng(options.seed)
    for split, count in (("train", options.num_train), ("test", options.num_test)):
        for contrast in ("t1", "t2"):
            (options.output_dir / split / contrast).mkdir(parents=True)
        for subject in range(count):
            labels = draw_labels(random, options.size, options.depth)
            for contrast, means in (("t1", T1), ("t2", T2)):
                volume = nibabel.Nifti1Image(render(random, labels, means), np.diag([3.0, 3.0, 6.0, 1.0]))
                nibabel.save(volume, options.output_dir / split / contrast / f"subject_{subject:02d}.nii.gz")


if __name__ == "__main__":
    main()
