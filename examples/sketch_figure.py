"""Draws what a SketchPipeline can do with the validation sketches of its data, in one picture.

    python examples/sketch_figure.py --pipeline outputs/kanji_sketches --data short_kanji.npz --output sketches.png

A row each: sketches of the data, their reconstructions, samples from noise, the arc between the first and the last of
the sketches, and completions of the first strokes of one of them.
"""

import argparse

import numpy as np
import torch
from PIL import Image, ImageDraw

from diffusers_ext import SketchPipeline
from diffusers_ext.data import load_sketches
from diffusers_ext.pipelines.sketches import to_picture


COLUMNS, SIZE, GAP, LEFT = 8, 72, 8, 120
BEGUN = 3  # strokes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", required=True, help="the folder of the pipeline")
    parser.add_argument("--data", required=True, help="the sketches it was trained on")
    parser.add_argument("--split", default="valid", help="the split of the sketches that are shown")
    parser.add_argument("--temperature", type=float, default=0.25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", required=True, help="the file of the picture")
    options = parser.parse_args()

    pipe = SketchPipeline.from_pretrained(options.pipeline)
    pipe.set_progress_bar_config(disable=True)
    found = load_sketches(dataset_name=options.data, split=options.split)
    sketches = list(found.points.split(found.lengths.tolist()))[options.seed * COLUMNS :][:COLUMNS]
    strokes_end = sketches[0][:, 2].nonzero()[:BEGUN].max() + 1

    def arguments(same: bool = False) -> dict:
        """Of a call: a generator for each column, or the same numbers for all."""
        seeds = [options.seed if same else options.seed + column for column in range(COLUMNS)]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return {"temperature": options.temperature, "generator": generators, "image_size": SIZE}

    rows = {
        "data": [to_picture(sketch, SIZE) for sketch in sketches],
        "reconstructed": pipe.reconstruct(sketches, **arguments()).images,
        "from noise": pipe(batch_size=COLUMNS, **arguments()).images,
        "interpolated": pipe.interpolate(sketches[0], sketches[-1], num_steps=COLUMNS, **arguments(same=True)).images,
        f"{BEGUN} strokes given": pipe(sketch=sketches[0][:strokes_end], batch_size=COLUMNS, **arguments()).images,
    }

    width, height = LEFT + COLUMNS * (SIZE + GAP), len(rows) * (SIZE + GAP)
    figure = Image.new("L", (width, height), 255)
    draw = ImageDraw.Draw(figure)
    for row, (title, pictures) in enumerate(rows.items()):
        draw.text((8, row * (SIZE + GAP) + SIZE // 2), title, 0)
        for column, picture in enumerate(pictures):
            figure.paste(picture, (LEFT + column * (SIZE + GAP), row * (SIZE + GAP) + GAP // 2))
    figure.save(options.output, optimize=True)
    print(f"{options.output}: {figure.size[0]}x{figure.size[1]}, {np.mean(np.array(figure) < 128):.1%} ink")


if __name__ == "__main__":
    main()
