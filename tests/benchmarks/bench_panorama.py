"""Panoramas: does one see where the photograph ends?

    python -m tests.benchmarks.bench_panorama --model outputs/palette_panorama --train_data_dir ~/photos --split test \
        --feature_extractor features \
        --call_options '{"strength": 0.5, "num_inference_steps": 4, "blend_width": 32}' --panel panoramas.png

Of photographs brought to twice the width of the model's images the middle is made three times as wide, by the model
and by the fill alone that its partial starts begin with. Then windows centred on both ends of what was known are held
against those of the photographs themselves:

- step: how much values in [0, 1] change, on average, from the last known column to the first new one
- detail: how much they change between new columns, in parts of what they do between known ones: less than 1 is blur
- lines: the share of ends at which more changes than between any other two columns that are eight or fewer from it
- distance, FID: of the windows, by the given feature network
"""

import argparse
import json

import torch

from diffusers_ext.data import load_image_dataset
from diffusers_ext.metrics import extract_features, fid, load_feature_extractor, perceptual_distance
from diffusers_ext.pipelines import PalettePipeline
from diffusers_ext.pipelines.fills import fill_padding
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.loop.outputs import save_image


NEAR, BATCH_SIZE = 8, 20


def load_photographs(arguments, size: int) -> torch.Tensor:
    """Photographs `(N, C, size, 2 * size)` in `[0, 1]`."""
    dataset = load_image_dataset(
        train_data_dir=arguments.train_data_dir,
        split=arguments.split,
        resolution=2 * size,
        center_crop=True,
    )
    batches = dataset.reference_batches(BATCH_SIZE)
    images = torch.cat([batch["pixel_values"] for batch in batches])[arguments.first :][: arguments.count]
    return images[:, :, size // 2 : -size // 2] / 255


def widen(pipeline: PalettePipeline, images: torch.Tensor, options: dict) -> torch.Tensor:
    wide = []
    for indices in torch.arange(len(images)).split(BATCH_SIZE):
        generators = [torch.Generator().manual_seed(i) for i in indices.tolist()]
        width = 3 * images.shape[3]
        wide.append(
            pipeline.panorama(images[indices], width, generator=generators, output_type="pt", **options).images.cpu()
        )
    return torch.cat(wide)


def measure(wide: torch.Tensor, photographs: torch.Tensor, size: int, extractor) -> dict[str, float]:
    """`wide` are `(N, C, size, 3 * size)` with the middles of `photographs` for theirs, `(N, C, size, 2 * size)`."""
    change = wide.diff(dim=3).abs().mean(dim=(1, 2))
    ends = torch.tensor([size - 1, 2 * size - 1])
    near = change[:, ends[:, None] + torch.tensor([i for i in range(-NEAR, NEAR + 1) if i])]
    new = torch.cat([change[:, : size - 1], change[:, 2 * size :]], dim=1)
    row = {
        "step": change[:, ends].mean(),
        "detail": new.mean() / change[:, size : 2 * size - 1].mean(),
        "lines": (change[:, ends] > near.amax(dim=2)).float().mean(),
    }
    if extractor is not None:
        half = size // 2
        made = features(extractor, torch.cat([wide[..., half : half + size], wide[..., -half - size : -half]]))
        real = features(extractor, torch.cat(photographs.split(size, dim=3)))
        row |= {"distance": perceptual_distance(made, real).mean(), "FID": fid(made, real)}
    return {name: float(value) for name, value in row.items()}


def features(extractor, images: torch.Tensor) -> torch.Tensor:
    return extract_features(extractor, images.mul(255).round().to(torch.uint8), batch_size=100).features


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="The folder or name of a PalettePipeline for uncropping.")
    parser.add_argument("--train_data_dir", required=True)
    parser.add_argument("--split", default="train")
    parser.add_argument("--first", type=int, default=0, help="How many photographs are left out first.")
    parser.add_argument("--count", type=int, help="How many are taken; by default all others.")
    parser.add_argument("--call_options", nargs="+", default=["{}"], help="Of panorama(), as JSON: a row for each.")
    parser.add_argument("--feature_extractor")
    parser.add_argument("--panel", help="Where to save the first 18 panoramas of the last row.")
    arguments = parser.parse_args()
    pipeline = PalettePipeline.from_pretrained(arguments.model).to("cuda" if torch.cuda.is_available() else "cpu")
    pipeline.set_progress_bar_config(disable=True)
    size = pipeline.unet.config.sample_size
    size = size if isinstance(size, int) else size[1]
    photographs = load_photographs(arguments, size)
    known = photographs[..., size // 2 : -size // 2]
    extractor = arguments.feature_extractor and load_feature_extractor(arguments.feature_extractor)
    change = photographs.diff(dim=3).abs().mean()
    print(f"{len(photographs)} photographs, in which values change by {change:.3f} from column to column")
    for options in [None, *arguments.call_options]:
        if options is None:
            is_mirrored = pipeline.config.conditioning_fill == "mirror"
            wide, _ = fill_padding(known, (size, 0, size, 0), is_mirrored)
        else:
            wide = widen(pipeline, known, json.loads(options))
        values = measure(wide, photographs, size, extractor)
        cells = [options or "the fill alone"] + [f"{name} {value:.3g}" for name, value in values.items()]
        print(f"| {' | '.join(cells)} |", flush=True)
    if arguments.panel:
        save_image(sample_grid(wide[:18].mul(255).round().to(torch.uint8), 3), arguments.panel)


if __name__ == "__main__":
    main()
