"""Write scikit-learn's digits in colours beside gray ones, for multimodal translation: pairs of 32x32 pixels.

    python examples/coloured_digits.py data/coloured_digits

Each digit has one of six colours, at random, which its gray picture does not tell: so a gray digit has six right
translations. Labels, such as "red three", are for a feature network (examples/train_feature_network.py).
"""

import argparse
import json
import random
from pathlib import Path

from PIL import Image, ImageOps

from diffusers_ext.data import load_image_dataset


FOLDERS = {"file_name": "image", "conditioning_image_file_name": "gray"}
COLOURS = ("red", "yellow", "lime", "cyan", "blue", "magenta")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output_dir", type=Path)
    output_dir = parser.parse_args().output_dir
    chance = random.Random(0)
    for split in ("train", "test"):
        dataset = load_image_dataset("digits", split=split, resolution=32, channels=1)
        lines = []
        for folder in FOLDERS.values():
            (output_dir / split / folder).mkdir(parents=True, exist_ok=True)
        for batch in dataset.reference_batches(100):
            for pixels, label in zip(batch["pixel_values"][:, 0], batch["class_labels"], strict=True):
                gray, colour = Image.fromarray(pixels.numpy()), chance.choice(COLOURS)
                names = {key: f"{folder}/{len(lines)}.png" for key, folder in FOLDERS.items()}
                ImageOps.colorize(gray, "black", colour).save(output_dir / split / names["file_name"])
                gray.save(output_dir / split / names["conditioning_image_file_name"])
                lines.append({**names, "label": f"{colour} {dataset.id2label[int(label)]}"})
        (output_dir / split / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()
