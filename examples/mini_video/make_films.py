"""Captioned films for small video models: handwritten digits that move.

    python examples/mini_video/make_films.py --output_dir outputs/mini_video/films

"a seven moving to the right", "a two moving slowly up": it moves scikit-learn's digits over films of 8 frames of 16x16
pixels, and writes the folders `train` and `test`, whose handwriting differs: a GIF for each film, and metadata.jsonl
with the captions and the words of each film (digit, direction, speed), each of which can be the label.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from diffusers_ext.data.digits import DIGIT_NAMES, load_digits_dataset


SIDE, DIGIT_SIDE, NUM_FRAMES = 16, 10, 8
DIRECTIONS = {"to the left": (-1, 0), "to the right": (1, 0), "up": (0, -1), "down": (0, 1)}  # x and y, y downwards
SPEEDS = {"slowly": 0.4, "quickly": 0.8}  # in pixels per frame
NUM_FILMS = {"train": 3000, "test": 500}


@dataclass
class Scene:
    """The words of a film."""

    digit: str
    direction: str
    speed: str

    def captions(self) -> list[str]:
        """What the film can be called."""
        article = "an" if self.digit == "eight" else "a"
        return [
            f"{article} {self.digit} moving {self.direction}",
            f"{article} {self.digit} moving {self.speed} {self.direction}",
        ]


def draw_film(scene: Scene, digit: Image.Image, random: np.random.Generator) -> list[Image.Image]:
    """The frames of a film, gray on black. No two are equal, because writers of GIFs would make one of them."""
    digit = digit.resize((DIGIT_SIDE, DIGIT_SIDE), Image.Resampling.BICUBIC)
    canvas = Image.new("L", (SIDE, SIDE))
    canvas.paste(digit, (0, 0))
    step = SPEEDS[scene.speed] * np.array(DIRECTIONS[scene.direction])
    way, free = (NUM_FRAMES - 1) * step, SIDE - DIGIT_SIDE
    start = random.uniform(np.maximum(0, -way), free - np.maximum(0, way))
    places = [start + frame * step for frame in range(NUM_FRAMES)]
    shifts = [(1, 0, -x, 0, 1, -y) for x, y in places]
    return [
        canvas.transform(canvas.size, Image.Transform.AFFINE, shift, Image.Resampling.BILINEAR) for shift in shifts
    ]


def write_films(folder: Path, split: str, count: int, seed: int) -> None:
    """Random films of the digits of a split, described in metadata.jsonl."""
    folder.mkdir(parents=True)
    digits = load_digits_dataset()[split]
    names, images = [DIGIT_NAMES[label] for label in digits["label"]], list(digits["image"])
    random, lines = np.random.default_rng([seed, *split.encode()]), []
    for row in range(count):
        chosen = random.integers(len(images))
        scene = Scene(names[chosen], str(random.choice(list(DIRECTIONS))), str(random.choice(list(SPEEDS))))
        first, *others = draw_film(scene, images[chosen], random)
        first.save(folder / f"{row:05}.gif", save_all=True, append_images=others, duration=100, loop=0)
        lines.append(json.dumps({"file_name": f"{row:05}.gif", "text": scene.captions(), **asdict(scene)}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output_dir", type=Path, default=Path("outputs/mini_video/films"), help="A folder that does not exist yet."
    )
    parser.add_argument("--seed", type=int, default=0, help="The seed of the films.")
    parser.add_argument("--count", type=int, help="Films in each of the two sets, instead of 3000 and 500.")
    options = parser.parse_args()
    if options.output_dir.exists():
        parser.error(f"{options.output_dir} already exists: remove it, or choose another --output_dir")
    if options.count is not None and options.count < 1:
        parser.error("--count must be at least 1")
    for split, count in NUM_FILMS.items():
        write_films(options.output_dir / split, split, options.count or count, options.seed)


if __name__ == "__main__":
    main()
