r"""One slice of some subjects in several folders of volumes, side by side.

    python examples/medical_figure.py contrasts.png T1=outputs/phantoms/test/t1 pGAN=outputs/made \
        T2=outputs/phantoms/test/t2

Each argument after the picture is a column: its title, and its folder of volumes, whose intensities are normalized.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.volumes import find_volumes, read_volume


ROWS = 4


def main(picture: str, *columns: str) -> None:
    """Draw a slice near the middle of the first subjects."""
    titles, folders = zip(*(column.split("=", 1) for column in columns), strict=True)
    cells = []
    for folder in folders:
        volumes = [read_volume(path)[0] for path in list(find_volumes(Path(folder)).values())[:ROWS]]
        cells.append(np.stack([np.rot90(volume[len(volume) * 3 // 7]) for volume in volumes]))
    images = torch.from_numpy(np.stack(cells, axis=1).copy()).flatten(0, 1)[:, None]
    sample_grid((images * 255).round().byte(), len(titles), list(titles)).save(picture)


if __name__ == "__main__":
    main(*sys.argv[1:])
