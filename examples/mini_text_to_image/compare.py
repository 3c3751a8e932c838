"""How well text-to-image pipelines draw the scenes of make_scenes.py: a Markdown row for each.

    python examples/mini_text_to_image/compare.py outputs/mini/pixels --guidance_scale 3

A folder has a pipeline that is called with `prompt`. Two folders joined by a plus, base+super_resolver, are a cascade,
whose images are made as small as the real ones again. Support vector machines, fitted on scenes of the training,
recognise the digit, the colour and the position. Each is asked about the images whose caption names it. The scenes of
`unseen` have digits in colours that the training never combined. The FID is that of the machines' scores, between
images for the captions of the test split and its own images.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from sklearn.svm import SVC

import diffusers_ext
from diffusers_ext.metrics import fid


WORDS = ("digit", "colour", "position")
NUM_FITTED = 4000  # scenes of the training, which the machines are fitted on
AT_ONCE = 50


class Judge:
    """Recognises the words of scenes in images, float (N, H, W, 3) in [0, 1]."""

    def __init__(self, images: np.ndarray, rows: list[dict]):
        self.machines = {}
        for word in WORDS:
            known = [index for index, row in enumerate(rows) if row[word] != "several"]
            features = self.features(images[known], word)
            self.machines[word] = SVC(C=10).fit(features, [rows[index][word] for index in known])

    @staticmethod
    def features(images: np.ndarray, word: str) -> np.ndarray:
        """The colour of the brightest pixels, or the brightness of all."""
        if word == "colour":
            weights = images.max(axis=-1, keepdims=True) ** 4
            return (images * weights).sum(axis=(1, 2)) / weights.sum(axis=(1, 2)).clip(1e-6)
        return images.max(axis=-1).reshape(len(images), -1)

    def accuracies(self, images: np.ndarray, rows: list[dict]) -> dict[str, float]:
        """How often each word is recognised, where the caption names it."""
        values = {}
        for word, machine in self.machines.items():
            named = [index for index, row in enumerate(rows) if row[word] in row["text"][0]]
            found = machine.predict(self.features(images[named], word))
            values[word] = float(np.mean(found == [rows[index][word] for index in named]))
        return values

    def scores(self, images: np.ndarray) -> torch.Tensor:
        """The scores of all classes, (N, 21)."""
        scores = [m.decision_function(self.features(images, word)) for word, m in self.machines.items()]
        return torch.from_numpy(np.concatenate(scores, axis=1))


def read_scenes(folder: Path, count: int) -> tuple[np.ndarray, list[dict]]:
    """The first images of a folder, (N, H, W, 3) in [0, 1], and their rows of metadata."""
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()[:count]]
    return np.stack([np.array(Image.open(folder / row["file_name"])) for row in rows]) / 255, rows


def load(folder: str) -> DiffusionPipeline:
    """The pipeline in a folder."""
    name = DiffusionPipeline.load_config(folder)["_class_name"]
    name = name[-1] if isinstance(name, list) else name
    pipeline = getattr(diffusers_ext, name, DiffusionPipeline).from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipelines: list[DiffusionPipeline], prompts: list[str], side: int, options: dict, seed: int) -> np.ndarray:
    """An image for each prompt, (N, side, side, 3) in [0, 1]."""
    generator, parts = torch.Generator().manual_seed(seed), []
    for start in range(0, len(prompts), AT_ONCE):
        part, images = prompts[start : start + AT_ONCE], None
        for pipeline in pipelines:
            small = {} if images is None else {"low_res_image": images}
            images = pipeline(part, generator=generator, output_type="pt", **small, **options).images
        parts.append(torch.nn.functional.interpolate(images.cpu(), (side, side), mode="area"))
    return torch.cat(parts).permute(0, 2, 3, 1).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipelines", nargs="+", help="Folders of pipelines, or base+super_resolver.")
    parser.add_argument("--data_dir", type=Path, default=Path("outputs/mini/scenes"), help="The scenes.")
    parser.add_argument("--guidance_scale", type=float, help="The guidance scale, for pipelines that take one.")
    parser.add_argument("--num_inference_steps", type=int, help="The steps, for pipelines that take them.")
    parser.add_argument("--count", type=int, default=500, help="At most so many scenes of each set.")
    parser.add_argument("--seed", type=int, default=0, help="The seed of the images.")
    parser.add_argument("--output", type=Path, help="Where the first 40 images go, as a PNG.")
    options = parser.parse_args()

    judge = Judge(*read_scenes(options.data_dir / "captioned" / "train", NUM_FITTED))
    sets = {
        "test": read_scenes(options.data_dir / "captioned" / "test", options.count),
        "unseen": read_scenes(options.data_dir / "unseen", options.count),
    }
    titles = ["", *(f"{word}, {name}" for name in sets for word in WORDS), "FID", "s / image"]
    print("| " + " | ".join(titles) + " |\n|---" + "|---:" * (len(titles) - 1) + "|")
    real = [f"{value:.1%}" for images, rows in sets.values() for value in judge.accuracies(images, rows).values()]
    print("| " + " | ".join(["real images", *real, "", ""]) + " |", flush=True)
    names = ("guidance_scale", "num_inference_steps")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    for folders in options.pipelines:
        pipelines = [load(folder) for folder in folders.split("+")]
        start, drawn = time.process_time(), {}
        for name, (images, rows) in sets.items():
            drawn[name] = draw(pipelines, [row["text"][0] for row in rows], images.shape[1], given, options.seed)
        seconds = (time.process_time() - start) / sum(len(images) for images in drawn.values())
        cells = [f"{v:.1%}" for name in sets for v in judge.accuracies(drawn[name], sets[name][1]).values()]
        distance = fid(judge.scores(sets["test"][0]), judge.scores(drawn["test"]))
        print("| " + " | ".join([folders, *cells, f"{distance:.2f}", f"{seconds:.3f}"]) + " |", flush=True)
    if options.output is not None:
        grid = np.concatenate(
            [np.concatenate(list(row), axis=1) for row in drawn["test"][:40].reshape(4, 10, *drawn["test"].shape[1:])]
        )
        picture = Image.fromarray((grid * 255).round().astype(np.uint8))
        picture.resize((4 * picture.width, 4 * picture.height), Image.Resampling.NEAREST).save(options.output)


if __name__ == "__main__":
    main()
