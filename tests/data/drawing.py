"""Small images drawn for tests; all are different, so that pixels identify them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image


def draw(number: int, height: int = 8, width: int = 8) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8))


def write_images(folder: Path, *names: str) -> Path:
    """Writes image files with these names below `folder`, numbered in this order."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(number).save(path, "PNG")
    return folder


def photo(height: int, width: int, channels: int = 3) -> torch.Tensor:
    """Smooth shapes and hard edges, as in a photograph."""
    y, x = torch.meshgrid(torch.linspace(0, 6, height), torch.linspace(0, 9, width), indexing="ij")
    waves = torch.stack([(torch.sin(x * (c + 1)) + torch.cos(y + c)) * 60 + 128 for c in range(channels)])
    return torch.where((x * 3 + y).int() % 7 == 0, 255 - waves, waves).clamp(0, 255).to(torch.uint8)
