"""How often a mini DALL-E draws the digit in the text, by scale of guidance and number of candidates.

    python examples/mini_text_to_image/judge_dalle.py --scales 1 2 4 --clip outputs/mini/clip

A support vector machine, fitted on the scenes of the training, recognises the digits. With `--clip` the last row is of
the best of several candidates, as a CLIP judges them.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from guide import NUM_FITTED, features, read_scenes
from PIL import Image
from sklearn.svm import SVC
from transformers import CLIPModel, CLIPProcessor

from diffusers_ext import TokensToImagePipeline
from diffusers_ext.data.digits import DIGIT_NAMES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("outputs/mini/dalle"), help="A TokensToImagePipeline.")
    parser.add_argument("--clip", type=Path, help="A CLIP that chooses among candidates.")
    parser.add_argument("--data_dir", type=Path, default=Path("outputs/mini/scenes/captioned"), help="The scenes.")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 2.0, 4.0], help="Scales of guidance.")
    parser.add_argument("--num_candidates", type=int, default=8, help="Candidates for each image, with --clip.")
    parser.add_argument("--count", type=int, default=20, help="Images of each digit.")
    parser.add_argument("--text", default="a {}", help="The text, with {} for the digit.")
    parser.add_argument("--seed", type=int, default=0, help="The seed of the images.")
    parser.add_argument("--output", type=Path, help="Where a grid of the last images goes, as a PNG.")
    options = parser.parse_args()

    judge = SVC(C=10)
    images, digits = read_scenes(options.data_dir / "train", NUM_FITTED)
    judge.fit(features(images), digits)
    images, digits = read_scenes(options.data_dir / "test")
    print(f"real scenes recognised: {np.mean(judge.predict(features(images)) == digits):.1%}")

    parts = {}
    if options.clip is not None:
        clip, processor = CLIPModel.from_pretrained(options.clip), CLIPProcessor.from_pretrained(options.clip)
        parts = {"clip": clip, "clip_processor": processor}
    pipe = TokensToImagePipeline.from_pretrained(options.model, **parts)
    pipe.set_progress_bar_config(disable=True)
    asked = [name for name in DIGIT_NAMES for _ in range(options.count)]
    ways = [(scale, 1) for scale in options.scales]
    ways += [(scale, options.num_candidates) for scale in options.scales] if parts else []
    for scale, candidates in ways:
        start = time.process_time()
        images = pipe(
            [options.text.format(name) for name in asked],
            guidance_scale=scale,
            num_candidates=candidates,
            generator=torch.Generator().manual_seed(options.seed),
            output_type="np",
        ).images
        right, seconds = np.mean(judge.predict(features(images)) == asked), time.process_time() - start
        print(f"scale {scale:g}, {candidates} candidates: {right:.1%} as asked, {seconds:.0f} CPU seconds", flush=True)
    if options.output is not None:
        shown = images.reshape(len(DIGIT_NAMES), options.count, *images.shape[1:])[:, :8]
        grid = np.concatenate([np.concatenate(list(row), axis=1) for row in shown])
        picture = Image.fromarray((grid * 255).round().astype(np.uint8))
        picture.resize((3 * picture.width, 3 * picture.height), Image.Resampling.NEAREST).save(options.output)


if __name__ == "__main__":
    main()
