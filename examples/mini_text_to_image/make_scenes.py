"""Captioned scenes for small models of images and text: coloured digits in a place, a size and a number.

    python examples/mini_text_to_image/make_scenes.py --output_dir outputs/mini/scenes

"a small red seven at the top left", "two green threes": it draws scikit-learn's digits on images of 16x16 pixels, and
writes two folders. `captioned` has the splits `train` and `test`, whose handwriting differs. So that networks learn
more than the 1266 digits of the training, these are turned, slanted, scaled and shifted a little; `test` keeps the
handwriting as it is. `unseen` has digits in colours that no image of `captioned` combines, by which composition is
measured. The words of each scene are columns of their own (digit, colour, size, position, count), each of which can be
the label: `--label_column colour`.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from diffusers_ext.data.digits import DIGIT_NAMES, load_digits_dataset


COLOURS = {
    "red": (255, 48, 48),
    "green": (48, 224, 48),
    "blue": (80, 96, 255),
    "yellow": (240, 224, 32),
    "magenta": (240, 64, 240),
    "cyan": (32, 224, 224),
}
SIZES = {"small": 1 / 2, "large": 3 / 4}  # of the side of the image
POSITIONS = {  # of the free space that is above and to the left of the digit
    "top left": (0, 0),
    "top right": (0, 1),
    "bottom left": (1, 0),
    "bottom right": (1, 1),
    "middle": (1 / 2, 1 / 2),
}
COUNTS = {"one": 1, "two": 2, "three": 3}
NUM_IMAGES = {"train": 16000, "test": 1000}
NUM_UNSEEN = 500
SHARE_OF_ONE = 0.8  # of all scenes; the others have two or three digits, as probable as each other
# How much the handwriting of the training is varied, at most: an angle in radians, and shares of the digit's side.
MAX_ANGLE, MAX_SLANT, MAX_SCALING, MAX_SHIFT = 0.2, 0.15, 0.12, 0.06


@dataclass
class Scene:
    """The words of a scene. Several digits are small, and in different corners, so that they have no one position."""

    digit: str
    colour: str
    size: str
    position: str
    count: str

    def captions(self) -> list[str]:
        """What the scene can be called, from everything to the digit alone."""
        digit, colour, size, position = self.digit, self.colour, self.size, self.position
        if self.count != "one":
            digits = f"{digit}es" if digit == "six" else f"{digit}s"
            return [f"{self.count} {colour} {digits}", f"{self.count} {digits}"]
        place = "in the middle" if position == "middle" else f"at the {position}"
        return [
            f"a {size} {colour} {digit} {place}",
            f"a {colour} {digit} {place}",
            f"a {size} {colour} {digit}",
            f"a {colour} {digit}",
            f"an {digit}" if digit == "eight" else f"a {digit}",
        ]

    def corners(self, random: np.random.Generator) -> list[tuple[float, float]]:
        """Where the digits are."""
        if self.count == "one":
            return [POSITIONS[self.position]]
        chosen = random.choice(4, COUNTS[self.count], replace=False)
        return [list(POSITIONS.values())[corner] for corner in chosen]


def is_unseen(digit: str, colour: str) -> bool:
    """Whether this digit in this colour is kept for `unseen`: one colour of each digit."""
    return DIGIT_NAMES.index(digit) % len(COLOURS) == list(COLOURS).index(colour)


def draw_words(random: np.random.Generator, unseen: bool) -> Scene:
    """The words of a random scene."""
    pairs = [(d, c) for d in DIGIT_NAMES for c in COLOURS if is_unseen(d, c) == unseen]
    digit, colour = pairs[random.integers(len(pairs))]
    if random.random() < SHARE_OF_ONE:
        size, position = (str(random.choice(list(words))) for words in (SIZES, POSITIONS))
        return Scene(digit, colour, size, position, "one")
    return Scene(digit, colour, "small", "several", str(random.choice(["two", "three"])))


def vary(digit: Image.Image, random: np.random.Generator) -> Image.Image:
    """A digit that is turned, slanted, scaled and shifted a little."""
    angle, slant = random.uniform(-MAX_ANGLE, MAX_ANGLE), random.uniform(-MAX_SLANT, MAX_SLANT)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    # The matrix and the origin say which place of the given digit each place of the new one shows.
    matrix = turn @ np.array([[1, slant], [0, 1]]) * random.uniform(1 - MAX_SCALING, 1 + MAX_SCALING, size=2)
    centre = np.array(digit.size) / 2
    origin = centre - matrix @ centre + random.uniform(-MAX_SHIFT, MAX_SHIFT, size=2) * digit.size
    inverse = np.column_stack([matrix, origin]).flatten().tolist()
    return digit.transform(digit.size, Image.Transform.AFFINE, inverse, Image.Resampling.BICUBIC)


def draw_image(
    scene: Scene, handwriting: list[Image.Image], side: int, varied: bool, random: np.random.Generator
) -> Image.Image:
    """An image of a scene, (side, side) in RGB on black; each of its digits is written by another hand."""
    canvas = np.zeros((side, side), dtype=np.uint8)
    length = round(SIZES[scene.size] * side)
    for down, right in scene.corners(random):
        digit = handwriting[random.integers(len(handwriting))].resize((length, length), Image.Resampling.BICUBIC)
        top, left = round(down * (side - length)), round(right * (side - length))
        canvas[top : top + length, left : left + length] = vary(digit, random) if varied else digit
    return Image.fromarray((canvas[..., None] * (np.array(COLOURS[scene.colour]) / 255)).round().astype(np.uint8))


def write_scenes(folder: Path, split: str, count: int, unseen: bool, side: int, seed: int) -> None:
    """Images of random scenes with their captions and words, described in metadata.jsonl."""
    folder.mkdir(parents=True)
    digits = load_digits_dataset()[split]
    labels, images = np.array(digits["label"]), list(digits["image"])
    by_name = {name: [images[row] for row in np.flatnonzero(labels == i)] for i, name in enumerate(DIGIT_NAMES)}
    random, lines = np.random.default_rng([seed, *split.encode(), unseen]), []
    for row in range(count):
        scene = draw_words(random, unseen)
        image = draw_image(scene, by_name[scene.digit], side, varied=split == "train", random=random)
        image.save(folder / f"{row:05}.png")
        lines.append(json.dumps({"file_name": f"{row:05}.png", "text": scene.captions(), **asdict(scene)}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def make_scenes(output_dir: Path, side: int, seed: int, num_images: dict[str, int], num_unseen: int) -> None:
    """Write both folders."""
    for split, count in num_images.items():
        write_scenes(output_dir / "captioned" / split, split, count, unseen=False, side=side, seed=seed)
    write_scenes(output_dir / "unseen", "test", num_unseen, unseen=True, side=side, seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output_dir", type=Path, default=Path("outputs/mini/scenes"), help="A folder that does not exist yet."
    )
    parser.add_argument("--side", type=int, default=16, help="Height and width of the images in pixels, at least 16.")
    parser.add_argument("--seed", type=int, default=0, help="The seed of the scenes.")
    parser.add_argument("--count", type=int, help="Images in each of the three sets, instead of 16000, 1000 and 500.")
    options = parser.parse_args()
    if options.output_dir.exists():
        parser.error(f"{options.output_dir} already exists: remove it, or choose another --output_dir")
    if options.side < 16 or (options.count is not None and options.count < 1):
        parser.error("--side must be at least 16, and --count at least 1")
    counts = NUM_IMAGES if options.count is None else dict.fromkeys(NUM_IMAGES, options.count)
    make_scenes(options.output_dir, options.side, options.seed, counts, options.count or NUM_UNSEEN)


if __name__ == "__main__":
    main()
