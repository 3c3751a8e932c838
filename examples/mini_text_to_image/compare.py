"""How well text-to-image pipelines draw the scenes of make_scenes.py: a Markdown row for each.

    python examples/mini_text_to_image/compare.py outputs/mini/pixels outputs/mini/unclip --guidance_scale 3 2

A folder has a pipeline that is called with `prompt`. Two folders joined by a plus, base+super_resolver, are a cascade,
whose images are made as small as the real ones again. A folder with a CLIP after an at sign, pipeline@clip, is a
pipeline of image tokens, of which the CLIP chooses the best of 8 candidates, or an unconditional one, which the CLIP
guides. Support vector machines, fitted on scenes of the training, recognise the digit, the colour and the position.
Each is asked about the images whose caption names it. The scenes of `unseen` have digits in colours that the training
never combined. The FID is that of the machines' scores, between images for the captions of the test split and its own
images.
"""

import argparse
import inspect
import json
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from guide import load_guidance
from PIL import Image
from sklearn.svm import SVC
from transformers import CLIPModel, CLIPProcessor

import diffusers_ext
from diffusers_ext.metrics import fid


WORDS = ("digit", "colour", "position")
NUM_FITTED = 4000  # scenes of the training, which the machines are fitted on
AT_ONCE = 50
NUM_CANDIDATES = 8


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


class System:
    """Pipelines of which each enlarges the images of the one before, and perhaps a CLIP."""

    def __init__(self, name: str, options: dict):
        folders, _, clip = name.partition("@")
        self.pipelines, self.options = [load(folder) for folder in folders.split("+")], options
        self.guiding_clip = None
        if clip and isinstance(self.pipelines[0], diffusers_ext.TokensToImagePipeline):
            parts = {"clip": CLIPModel.from_pretrained(clip), "clip_processor": CLIPProcessor.from_pretrained(clip)}
            self.pipelines = [load(folders, **parts)]
            self.options = {"num_candidates": NUM_CANDIDATES, **options}
        elif clip:
            self.guiding_clip = Path(clip)

    def draw(self, prompts: list[str], side: int, seed: int) -> np.ndarray:
        """An image for each prompt, (N, side, side, 3) in [0, 1]."""
        generator, parts = torch.Generator().manual_seed(seed), []
        for start in range(0, len(prompts), AT_ONCE):
            images = self.draw_part(prompts[start : start + AT_ONCE], generator)
            parts.append(torch.nn.functional.interpolate(images.cpu(), (side, side), mode="area"))
        return torch.cat(parts).permute(0, 2, 3, 1).numpy()

    def draw_part(self, prompts: list[str], generator: torch.Generator) -> torch.Tensor:
        """An image for each prompt, (N, 3, H, W) in [0, 1]."""
        base, *super_resolvers = self.pipelines
        if self.guiding_clip is None:
            asked = {"prompt": prompts}
        else:
            asked = {"batch_size": len(prompts)}
            base.guider = load_guidance(self.guiding_clip, base.scheduler, prompts)
        images = self.call(base, generator, asked)
        for pipeline in super_resolvers:
            images = self.call(pipeline, generator, {"prompt": prompts, "low_res_image": images})
        return images

    def call(self, pipeline: DiffusionPipeline, generator: torch.Generator, asked: dict) -> torch.Tensor:
        """Its images, with those of the options that the pipeline has."""
        known = inspect.signature(pipeline.__call__).parameters
        options = {name: value for name, value in self.options.items() if name in known}
        return pipeline(**asked, **options, generator=generator, output_type="pt").images


def load(folder: str, **parts) -> DiffusionPipeline:
    """The pipeline in a folder, by its own class."""
    name = DiffusionPipeline.load_config(folder)["_class_name"]
    name = name[-1] if isinstance(name, list) else name
    pipeline = getattr(diffusers_ext, name, DiffusionPipeline).from_pretrained(folder, **parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipelines", nargs="+", help="Folders of pipelines, base+super_resolver, or pipeline@clip.")
    parser.add_argument("--data_dir", type=Path, default=Path("outputs/mini/scenes"), help="The scenes.")
    parser.add_argument("--guidance_scale", type=float, nargs="+", help="The guidance scale of all, or of each.")
    parser.add_argument("--prior_guidance_scale", type=float, help="The scale of the prior, for pipelines with one.")
    parser.add_argument("--num_inference_steps", type=int, help="The steps, for pipelines that take them.")
    parser.add_argument("--count", type=int, default=500, help="At most so many scenes of each set.")
    parser.add_argument("--seed", type=int, default=0, help="The seed of the images.")
    parser.add_argument("--output", type=Path, help="Where the first 40 images go, as a PNG.")
    options = parser.parse_args()
    scales, number = options.guidance_scale or [None], len(options.pipelines)
    scales = scales * number if len(scales) == 1 else scales
    if len(scales) != number:
        parser.error(f"--guidance_scale must be one number, or one for each of the {number} pipelines")

    judge = Judge(*read_scenes(options.data_dir / "captioned" / "train", NUM_FITTED))
    sets = {
        "test": read_scenes(options.data_dir / "captioned" / "test", options.count),
        "unseen": read_scenes(options.data_dir / "unseen", options.count),
    }
    titles = ["", *(f"{word}, {name}" for name in sets for word in WORDS), "FID", "s / image"]
    print("| " + " | ".join(titles) + " |\n|---" + "|---:" * (len(titles) - 1) + "|")
    real = [f"{value:.1%}" for images, rows in sets.values() for value in judge.accuracies(images, rows).values()]
    print("| " + " | ".join(["real images", *real, "", ""]) + " |", flush=True)
    names = ("prior_guidance_scale", "num_inference_steps")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    for name, scale in zip(options.pipelines, scales, strict=True):
        system = System(name, given if scale is None else {"guidance_scale": scale, **given})
        start = time.process_time()
        drawn = {
            kind: system.draw([row["text"][0] for row in rows], images.shape[1], options.seed)
            for kind, (images, rows) in sets.items()
        }
        seconds = (time.process_time() - start) / sum(len(images) for images in drawn.values())
        cells = [f"{v:.1%}" for kind in sets for v in judge.accuracies(drawn[kind], sets[kind][1]).values()]
        distance = fid(judge.scores(sets["test"][0]), judge.scores(drawn["test"]))
        print("| " + " | ".join([name, *cells, f"{distance:.2f}", f"{seconds:.3f}"]) + " |", flush=True)
    if options.output is not None:
        grid = np.concatenate(
            [np.concatenate(list(row), axis=1) for row in drawn["test"][:40].reshape(4, 10, *drawn["test"].shape[1:])]
        )
        picture = Image.fromarray((grid * 255).round().astype(np.uint8))
        picture.resize((4 * picture.width, 4 * picture.height), Image.Resampling.NEAREST).save(options.output)


if __name__ == "__main__":
    main()
