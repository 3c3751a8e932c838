"""Measure whether scenes that are translated to another light keep their digit, and draw some.

    python examples/digit_scenes_table.py data/digit_scenes outputs/digit_scenes_stargan --lights outputs/lights \
        --digits outputs/digits --picture digit_scenes.png

The scenes are those of examples/digit_scenes.py, whose split `test` has each scene in all lights. The judges are two
networks of examples/train_feature_network.py, one that learned the lights and one that learned the digits
(`--label_column digit`). A row gives, for a light, how many of the translated scenes of all other lights are of this
light and show their digit, for both judges, and the PSNR to the same scene in that light. "as they are" has the
scenes without a translation, and "truth" those of that light.
"""

import argparse
from collections.abc import Callable

import torch

from diffusers_ext import AttributeTranslationPipeline
from diffusers_ext.data import load_image_dataset
from diffusers_ext.metrics import load_feature_extractor
from diffusers_ext.training.evaluation.grids import sample_grid


ROWS = 6  # of the picture


def load_scenes(folder: str, column: str, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """The held-out images, uint8 (N, C, H, W), the numbers in a column of labels, (N,), and their names."""
    dataset = load_image_dataset(train_data_dir=folder, split="test", label_column=column, resolution=size)
    batches = list(dataset.reference_batches(100))
    images, labels = (torch.cat([batch[name] for batch in batches]) for name in ("pixel_values", "class_labels"))
    return images, labels, list(dataset.id2label.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", help="the folder of scenes")
    parser.add_argument("pipeline", help="the folder of an AttributeTranslationPipeline")
    parser.add_argument("--lights", required=True, help="a classifier of lights")
    parser.add_argument("--digits", required=True, help="a classifier of digits")
    parser.add_argument("--picture", help="the picture to write")
    parser.add_argument("--num_scenes", type=int, default=100, help="how many scenes are measured")
    options = parser.parse_args()
    pipe = AttributeTranslationPipeline.from_pretrained(options.pipeline)
    images, lights, names = load_scenes(options.scenes, "label", pipe.image_shape[1:])
    _, digits, digit_names = load_scenes(options.scenes, "digit", pipe.image_shape[1:])
    images, lights, digits = (values[: len(names) * options.num_scenes] for values in (images, lights, digits))
    scenes = torch.arange(len(images)) // len(names)  # all lights of a scene stand side by side

    def judge(folder: str, images: torch.Tensor, wanted: torch.Tensor, wanted_names: list[str]) -> float:
        extractor = load_feature_extractor(folder)
        found = torch.cat([extractor(part).logits for part in images.split(100)]).argmax(dim=1).tolist()
        named = zip(found, wanted.tolist(), strict=True)
        return sum(extractor.id2label[one] == wanted_names[other] for one, other in named) / len(images)

    def measure(title: str, light: int, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        rows = lights != light
        truth = images[lights == light][scenes[rows]]
        made = truth if title == "truth" else change(images[rows])
        error = (made.double() - truth.double()).square().flatten(1).mean(dim=1)
        psnr = (10 * (255**2 / error).log10()).mean().item()
        reached = judge(options.lights, made, torch.full((len(made),), light), names)
        kept = judge(options.digits, made, digits[rows], digit_names)
        print(f"| {names[light]} | {title} | {reached:.1%} | {kept:.1%} | {psnr:.1f} |", flush=True)

    def translate(images: torch.Tensor, light: int) -> torch.Tensor:
        made = pipe(images, target=names[light], output_type="pt", batch_size=100).images
        return made.mul(255).round().to(torch.uint8)

    print("| to | | of this light | of their digit | PSNR |\n|---|---|---|---|---|")
    for light in range(len(names)):
        measure("translated", light, lambda images, light=light: translate(images, light))
        measure("as they are", light, lambda images: images)
        measure("truth", light, lambda images: images)
    if options.picture is not None:
        shown = torch.arange(ROWS) * (len(names) + 1)  # another scene and another light in each row
        columns = [images[shown], *(translate(images[shown], light) for light in range(len(names)))]
        cells = torch.stack(columns, dim=1).flatten(0, 1)
        sample_grid(cells, len(columns), ["scene", *(f"to {name}" for name in names)]).save(options.picture)


if __name__ == "__main__":
    main()
