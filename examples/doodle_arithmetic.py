"""Arithmetic between classes in the latents of an AutoencoderPipeline, as a picture.

    python examples/doodle_arithmetic.py --pipeline outputs/doodles_vae --data doodles --output doodles.png

Each row starts with an image of one class and its reconstruction; then the difference between the mean latents of
another class and of its own is added more and more.
"""

import argparse

import torch
from PIL import Image, ImageDraw

from diffusers_ext import AutoencoderPipeline
from diffusers_ext.data import load_image_dataset


STRENGTHS = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]
SIZE, GAP, LEFT, TOP = 56, 6, 130, 24
EXAMPLES = 2  # images of each pair of classes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", required=True, help="the folder of the pipeline")
    parser.add_argument("--data", required=True, help="the images it was trained on, with classes")
    parser.add_argument("--split", default="test", help="the split of the images that are shown")
    parser.add_argument("--output", required=True, help="the file of the picture")
    options = parser.parse_args()

    pipe = AutoencoderPipeline.from_pretrained(options.pipeline)
    channels, height, width = pipe.image_shape
    dataset = load_image_dataset(options.data, resolution=(height, width), channels=channels, split=options.split)
    (batch,) = dataset.reference_batches(dataset.num_examples)
    images, labels, names = batch["pixel_values"] / 255, batch["class_labels"], dataset.id2label
    by_class = [images[labels == label] for label in names]

    rows = []
    for own, other in [(label, (label + 1) % len(names)) for label in names]:
        shown = by_class[own][:EXAMPLES]
        edited = pipe.arithmetic(
            list(shown), plus=list(by_class[other]), minus=list(by_class[own]), strengths=STRENGTHS, output_type="pil"
        ).images
        title = f"{names[own]} to {names[other]}"
        for index, image in enumerate(shown):
            rows.append((title, image, edited[index * len(STRENGTHS) :][: len(STRENGTHS)]))

    figure = Image.new("L", (LEFT + (1 + len(STRENGTHS)) * (SIZE + GAP), TOP + len(rows) * (SIZE + GAP)), 255)
    draw = ImageDraw.Draw(figure)
    for column, heading in enumerate(["image", *map(str, STRENGTHS)]):
        draw.text((LEFT + column * (SIZE + GAP) + SIZE // 2, TOP // 2), heading, 0, anchor="mm")
    for row, (title, image, pictures) in enumerate(rows):
        top = TOP + row * (SIZE + GAP)
        draw.text((8, top + SIZE // 2), title, 0, anchor="lm")
        original = Image.fromarray(image[0].mul(255).round().to(torch.uint8).numpy())
        for column, picture in enumerate([original, *pictures]):
            figure.paste(picture.convert("L").resize((SIZE, SIZE)), (LEFT + column * (SIZE + GAP), top))
    figure.save(options.output, optimize=True)


if __name__ == "__main__":
    main()
