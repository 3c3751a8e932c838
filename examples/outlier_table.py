"""How well scores of pipelines tell images of other sets from those of the set they were trained on: a table.

    python examples/outlier_table.py --pipelines Gaussian=outputs/mnist_gaussian EBM=outputs/mnist_energy \
        --usual mnist=~/mnist --outliers fashion_mnist=~/fashion_mnist kmnist=~/kmnist

Each entry is the area under the ROC curve: 1 where each strange image has a worse score than each usual one, 0.5 for
chance, and below that where strange images seem more likely than usual ones. The score is the energy of an
EnergyPipeline, bits per dimension of an AutoregressivePipeline (of all its classes together, each as probable as the
others), minus the log-likelihood of a DensityPipeline, and the reconstruction error of an AutoencoderPipeline.
"""

import argparse
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from diffusers import DiffusionPipeline

from diffusers_ext.data import load_image_dataset
from diffusers_ext.metrics import auroc
from diffusers_ext.training.evaluation.pipeline_classes import find_pipeline_class


def bits_per_dim(pipe: DiffusionPipeline, images: torch.Tensor) -> torch.Tensor:
    """Bits per dimension (N,) of images whose classes are not known."""
    if pipe.num_classes is None:
        return pipe.bits_per_dim(images)
    nats = images[0].numel() * math.log(2)  # of a bit per dimension
    of_classes = torch.stack([pipe.bits_per_dim(images, label) for label in range(pipe.num_classes)])
    return (math.log(len(of_classes)) - torch.logsumexp(-nats * of_classes, dim=0)) / nats


SCORES = {
    "EnergyPipeline": ("energy", lambda pipe: pipe.energy),
    "AutoregressivePipeline": ("bits per dimension", lambda pipe: partial(bits_per_dim, pipe)),
    "DensityPipeline": ("minus log-likelihood", lambda pipe: lambda images: -pipe.log_likelihood(images)),
    "AutoencoderPipeline": ("reconstruction error", lambda pipe: pipe.outlier_score),
}


def load(folder: str) -> tuple[str, Callable[[torch.Tensor], torch.Tensor], DiffusionPipeline]:
    """The name of the score of a pipeline, the score, and the pipeline."""
    pipe = find_pipeline_class(folder, cache_dir=None).from_pretrained(folder)
    name, score = SCORES[type(pipe).__name__]
    return name, score(pipe), pipe


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipelines", nargs="+", required=True, help="NAME=FOLDER, a row for each")
    parser.add_argument("--usual", required=True, help="NAME=FOLDER of the images they were trained on")
    parser.add_argument("--outliers", nargs="+", required=True, help="NAME=FOLDER, a column for each")
    parser.add_argument("--split", default="test", help="the split of all sets (default: test)")
    parser.add_argument("--num_images", type=int, default=1000, help="of each set (default: 1000)")
    args = parser.parse_args(arguments)
    usual, *others = [entry.split("=", 1) for entry in (args.usual, *args.outliers)]
    print(f"| trained on {usual[0]} | score | mean | {' | '.join(name for name, _ in others)} |")
    print("|" + "---|" * (3 + len(others)))
    for name, folder in (entry.split("=", 1) for entry in args.pipelines):
        kind, score, pipe = load(folder)
        channels, *size = pipe.image_shape

        def scores(source: str, score=score, channels=channels, size=size) -> torch.Tensor:
            path = str(Path(source).expanduser())
            images = load_image_dataset(path, split=args.split, resolution=tuple(size), channels=channels)
            batches = images.reference_batches(100, limit=args.num_images)
            with torch.no_grad():
                return torch.cat([score(batch["pixel_values"]) for batch in batches])

        own = scores(usual[1])
        areas = [auroc(own, scores(source)) for _, source in others]
        print(f"| {name} | {kind} | {own.mean():.3f} | {' | '.join(f'{area:.3f}' for area in areas)} |", flush=True)


if __name__ == "__main__":
    main()
