"""The images of the mini text-to-image model: captioned handwritten digits (scikit-learn's), without one class.

    python examples/mini_text_to_image/make_data.py --output_dir outputs/mini/data

It enlarges the digits to 32x32 pixels and writes three folders: `captioned`, nine classes with captions, to train on;
`subject`, five images of the held-out class; and `controls`, edges of digits that are in no training.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from PIL import Image

from diffusers_ext.data.conditions import load_condition
from diffusers_ext.data.digits import DIGIT_NAMES, load_digits_dataset


SIZE = 32
# The captions of an image: one of them is drawn at each visit. The last one does not name the digit.
TEMPLATES = ("{}", "a {}", "a handwritten {}", "the digit {}", "a handwritten digit")
NUM_SUBJECT_IMAGES = 5
NUM_CONTROLS = 10  # of each class


def enlarge(image: Image.Image) -> Image.Image:
    return image.resize((SIZE, SIZE), Image.Resampling.BICUBIC).convert("RGB")


def edges(images: torch.Tensor) -> torch.Tensor:
    """Images (N, 3, H, W) in [-1, 1] -> their edges in the same form, as in training/train_controlnet.py."""
    return load_condition("canny", {"sigma": 2.0})(images)


def edges_of(image: Image.Image) -> Image.Image:
    """The edges of an image, white on black."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
    return Image.fromarray(((edges(pixels)[0] + 1) * 127.5).byte().permute(1, 2, 0).numpy())


def write_folder(folder: Path, split: Dataset, rows: list[int], with_edges: bool) -> None:
    """The images of these rows with their captions and, if asked for, their edges, described in metadata.jsonl."""
    folder.mkdir(parents=True)
    lines = []
    for row in rows:
        name = DIGIT_NAMES[split[row]["label"]]
        image = enlarge(split[row]["image"])
        image.save(folder / f"{name}_{row}.png")
        line = {"file_name": f"{name}_{row}.png", "text": [template.format(name) for template in TEMPLATES]}
        if with_edges:
            edges_of(image).save(folder / f"{name}_{row}_edges.png")
            line |= {"edges_file_name": f"{name}_{row}_edges.png"}
        lines.append(json.dumps(line))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def make_data(output_dir: Path, held_out: str) -> None:
    """Write the folders."""
    digits, left_out = load_digits_dataset(), DIGIT_NAMES.index(held_out)
    train, test = digits["train"], digits["test"]
    labels = np.array(train["label"])
    known = np.flatnonzero(labels != left_out).tolist()
    write_folder(output_dir / "captioned", train, known, with_edges=False)
    subject = output_dir / "subject"
    subject.mkdir()
    for row in np.flatnonzero(labels == left_out)[:NUM_SUBJECT_IMAGES].tolist():
        enlarge(train[row]["image"]).save(subject / f"{row}.png")
    test_labels = np.array(test["label"])
    unseen = [np.flatnonzero(test_labels == label)[:NUM_CONTROLS] for label in range(10) if label != left_out]
    write_folder(output_dir / "controls", test, np.concatenate(unseen).tolist(), with_edges=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output_dir", type=Path, default=Path("outputs/mini/data"), help="A folder that does not exist yet."
    )
    parser.add_argument("--held_out", choices=DIGIT_NAMES, default="nine", help="The class that is left out.")
    options = parser.parse_args()
    if options.output_dir.exists():
        parser.error(f"{options.output_dir} already exists: remove it, or choose another --output_dir")
    make_data(options.output_dir, options.held_out)


if __name__ == "__main__":
    main()
