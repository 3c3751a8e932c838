"""Write scikit-learn's digits as scenes in the light of day, dusk, night and fog: images of 32x32 pixels.

    python examples/digit_scenes.py data/digit_scenes

A scene is a digit before the sky, of a colour by chance, on ground of another. In the split `train` each scene has one
light, in the column `label`; the column `digit` has its content. In `test` each has all four, in the same order, so
that a translation can be compared with the truth.
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np
from PIL import Image

from diffusers_ext.data import load_image_dataset


SIDE = 32
HORIZON = 22  # the first row of the ground
OBJECTS = ((200, 60, 50), (60, 110, 60), (70, 60, 150), (110, 70, 30))
GROUNDS = ((120, 160, 80), (200, 180, 130), (150, 150, 150))
LIGHTS = {
    # The colours of the sky at its top and at the horizon, what the scene is multiplied by, and the haze before it.
    "day": ((90, 160, 235), (200, 225, 245), (1.0, 1.0, 1.0), 0.0),
    "dusk": ((110, 70, 130), (250, 150, 70), (0.9, 0.55, 0.4), 0.0),
    "night": ((5, 8, 30), (25, 30, 70), (0.4, 0.42, 0.7), 0.0),
    "fog": ((205, 208, 212), (205, 208, 212), (0.8, 0.8, 0.85), 0.55),
}


def draw_scene(ink: np.ndarray, colours: tuple, light: str, stars: np.random.Generator) -> Image.Image:
    """A scene; `ink` (H, W) in [0, 1] is the digit, `colours` are those of the digit and of the ground."""
    top, bottom, factor, haze = LIGHTS[light]
    height = np.clip(np.arange(SIDE) / HORIZON, 0, 1)[:, None, None]
    sky = np.broadcast_to(np.array(top) * (1 - height) + np.array(bottom) * height, (SIDE, SIDE, 3)).copy()
    if light == "night":
        sky[stars.integers(0, HORIZON, 6), stars.integers(0, SIDE, 6)] = 220
    thing, ground = (np.array(colour) * factor for colour in colours)
    scene = np.where((np.arange(SIDE) >= HORIZON)[:, None, None], ground, sky)
    scene = scene * (1 - ink[..., None]) + thing * ink[..., None]
    scene = scene * (1 - haze) + np.array(bottom) * haze
    return Image.fromarray(scene.round().astype(np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output_dir", type=Path)
    output_dir = parser.parse_args().output_dir
    chance, stars = random.Random(0), np.random.default_rng(0)
    for split in ("train", "test"):
        dataset = load_image_dataset("digits", split=split, resolution=SIDE, channels=1)
        lines = []
        (output_dir / split).mkdir(parents=True, exist_ok=True)
        for batch in dataset.reference_batches(100):
            for pixels, label in zip(batch["pixel_values"][:, 0], batch["class_labels"], strict=True):
                colours = chance.choice(OBJECTS), chance.choice(GROUNDS)
                lights = [chance.choice(list(LIGHTS))] if split == "train" else LIGHTS
                for light in lights:
                    name = f"{len(lines)}.png"
                    draw_scene(pixels.numpy() / 255, colours, light, stars).save(output_dir / split / name)
                    lines.append({"file_name": name, "label": light, "digit": dataset.id2label[int(label)]})
        (output_dir / split / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()
