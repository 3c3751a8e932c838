"""How often CLIP guidance makes an unconditional model draw the digit in the text.

    python examples/mini_text_to_image/guide.py --clip outputs/mini/noisy_clip --scales 0 1 3

A support vector machine, fitted on the scenes of the training, recognises the digits. The script prints one row for
each scale, and writes images of the last one, a row for each digit.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.svm import SVC
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

from diffusers_ext import ClassConditionalPipeline, CLIPGuidance, NoisyCLIPModel
from diffusers_ext.data.digits import DIGIT_NAMES


NUM_FITTED = 4000  # scenes of the training, which the judge is fitted on


def read_scenes(folder: Path, count: int | None = None) -> tuple[np.ndarray, list[str]]:
    """The first images, or all, (N, H, W, 3) in [0, 1], and the digit in each."""
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()[:count]]
    images = np.stack([np.array(Image.open(folder / row["file_name"])) for row in rows])
    return images / 255, [row["digit"] for row in rows]


def features(images: np.ndarray) -> np.ndarray:
    """The brightness of each pixel: colour is not the matter."""
    return images.max(axis=-1).reshape(len(images), -1)


def load_guidance(folder: Path, scheduler, texts: list[str]) -> CLIPGuidance:
    """A guider to one text for each image, by a CLIP for noisy or for clean images."""
    tokens = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    guider = CLIPGuidance()
    if json.loads((folder / "config.json").read_text()).get("_class_name") == "NoisyCLIPModel":
        guider.guide_to_texts(NoisyCLIPModel.from_pretrained(folder), scheduler, tokens)
    else:
        clip, processor = CLIPModel.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
        guider.guide_to_texts(clip, scheduler, tokens, processor)
    return guider


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("outputs/mini/unconditional"), help="A pipeline.")
    parser.add_argument("--clip", type=Path, default=Path("outputs/mini/noisy_clip"), help="The CLIP that guides it.")
    parser.add_argument("--data_dir", type=Path, default=Path("outputs/mini/scenes/captioned"), help="The scenes.")
    parser.add_argument("--scales", type=float, nargs="+", default=[0.0, 1.0, 3.0], help="Scales of guidance.")
    parser.add_argument("--count", type=int, default=10, help="Images of each digit.")
    parser.add_argument("--num_inference_steps", type=int, default=20, help="The steps of each image.")
    parser.add_argument("--seed", type=int, default=0, help="The seed of the images.")
    parser.add_argument("--output", type=Path, help="Where a grid of the last images goes, as a PNG.")
    options = parser.parse_args()

    judge = SVC(C=10)
    images, digits = read_scenes(options.data_dir / "train", NUM_FITTED)
    judge.fit(features(images), digits)
    images, digits = read_scenes(options.data_dir / "test")
    print(f"real scenes recognised: {np.mean(judge.predict(features(images)) == digits):.1%}")

    pipe = ClassConditionalPipeline.from_pretrained(options.model)
    pipe.set_progress_bar_config(disable=True)
    asked = [name for name in DIGIT_NAMES for _ in range(options.count)]
    pipe.guider = load_guidance(options.clip, pipe.scheduler, [f"a {name}" for name in asked])
    for scale in options.scales:
        images = pipe(
            batch_size=len(asked),
            num_inference_steps=options.num_inference_steps,
            guidance_scale=scale,
            generator=torch.Generator().manual_seed(options.seed),
            output_type="np",
        ).images
        print(f"scale {scale:g}: {np.mean(judge.predict(features(images)) == asked):.1%} drawn as asked", flush=True)
    if options.output is not None:
        grid = np.concatenate([np.concatenate(list(row), axis=1) for row in np.split(images, len(DIGIT_NAMES))])
        picture = Image.fromarray((grid * 255).round().astype(np.uint8))
        picture.resize((4 * picture.width, 4 * picture.height), Image.Resampling.NEAREST).save(options.output)


if __name__ == "__main__":
    main()
