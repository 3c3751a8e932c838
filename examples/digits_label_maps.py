"""Write scikit-learn's digits with label maps, for semantic synthesis: a folder of pairs of 32x32 pixels.

    python examples/digits_label_maps.py data/digit_maps

In a map, 0 is the background and k + 1 the ink of a digit k. The splits are those of `--dataset_name digits`.
"""

import argparse
import json
from pathlib import Path

from PIL import Image

from diffusers_ext.data import load_image_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output_dir", type=Path)
    output_dir = parser.parse_args().output_dir
    for split in ("train", "test"):
        dataset = load_image_dataset("digits", split=split, resolution=32, channels=1)
        pairs = [
            pair
            for batch in dataset.reference_batches(100)
            for pair in zip(batch["pixel_values"][:, 0], batch["class_labels"], strict=True)
        ]
        lines = []
        for folder in ("image", "map"):
            (output_dir / split / folder).mkdir(parents=True, exist_ok=True)
        for index, (image, label) in enumerate(pairs):
            label_map = (image > 127) * (label + 1)
            names = {"file_name": f"image/{index}.png", "conditioning_image_file_name": f"map/{index}.png"}
            Image.fromarray(image.numpy()).save(output_dir / split / names["file_name"])
            Image.fromarray(label_map.numpy().astype("uint8")).save(
                output_dir / split / names["conditioning_image_file_name"]
            )
            lines.append(json.dumps({**names, "label": dataset.id2label[int(label)]}))
        (output_dir / split / "metadata.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
