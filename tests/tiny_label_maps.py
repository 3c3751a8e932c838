"""A folder of small images with label maps, whose palettes say nothing."""

import json
from pathlib import Path

import numpy as np
from PIL import Image


def write_label_maps(folder: Path, count: int, num_labels: int, size: int = 16) -> Path:
    """The splits train and test of `count` gray images each, whose levels depend on the labels and on their index."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        lines = []
        for name in ("image", "map", "objects"):
            (folder / split / name).mkdir(parents=True)
        for index in range(count):
            labels = np.kron(random.integers(0, num_labels, (2, 2)), np.ones((size // 2, size // 2))).astype(np.uint8)
            label_map = Image.fromarray(labels, "P")
            label_map.putpalette([value for number in range(256) for value in (255 - number, number, 3)])
            levels = labels * (200 // num_labels) + random.integers(0, 50)
            names = {"file_name": f"image/{index}.png", "conditioning_image_file_name": f"map/{index}.png"}
            names["instance_map_file_name"] = f"objects/{index}.png"
            # Two objects of the same label, whose numbers need 16 bits, meet in the middle.
            objects = labels.astype(np.uint16) * 1000 + (np.arange(size) >= size // 2)
            Image.fromarray(objects.astype(np.uint16)).save(folder / split / names["instance_map_file_name"])
            Image.fromarray(levels.astype(np.uint8)).save(folder / split / names["file_name"])
            label_map.save(folder / split / names["conditioning_image_file_name"])
            lines.append(json.dumps(names))
        (folder / split / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder
