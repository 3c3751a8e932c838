"""How often DALL-E 2 draws the digit that it is asked for, and how often variations keep the digit of an image.

    python examples/mini_text_to_image/unclip.py --model outputs/mini/unclip --count 10

A support vector machine, fitted on the scenes of the training, recognises the digits.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from guide import NUM_FITTED, features, read_scenes
from PIL import Image
from sklearn.svm import SVC

from diffusers_ext import UnCLIPPixelPipeline
from diffusers_ext.data.digits import DIGIT_NAMES


COLUMNS = 8  # of the picture


def draw(pipe: UnCLIPPixelPipeline, seed: int, **inputs) -> np.ndarray:
    """Images (N, H, W, C) in [0, 1]."""
    return pipe(**inputs, generator=torch.Generator().manual_seed(seed), output_type="np").images


def picture_of(pipe: UnCLIPPixelPipeline, images: np.ndarray, scale: float, seed: int) -> Image.Image:
    """Rows of variations, an image first in each, and one of images between two."""
    rows = [
        [image, *draw(pipe, seed, image=image, num_images_per_prompt=COLUMNS - 1, guidance_scale=scale)]
        for image in images[:3]
    ]
    shape = (1, *pipe.image_shape)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).expand(COLUMNS, -1, -1, -1)
    between = pipe.interpolate(images[0], images[1], COLUMNS)
    rows.append(list(draw(pipe, seed, image_embeds=between, latents=latents, guidance_scale=scale)))
    grid = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    picture = Image.fromarray((grid * 255).round().astype(np.uint8))
    return picture.resize((4 * picture.width, 4 * picture.height), Image.Resampling.NEAREST)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("outputs/mini/unclip"), help="An UnCLIPPixelPipeline.")
    parser.add_argument("--data_dir", type=Path, default=Path("outputs/mini/scenes/captioned"), help="The scenes.")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 2.0], help="Guidance scales of the decoder.")
    parser.add_argument("--prior_scale", type=float, default=2.0, help="The guidance scale of the prior.")
    parser.add_argument("--count", type=int, default=10, help="Images of each digit, and of each tenth variations.")
    parser.add_argument("--seed", type=int, default=0, help="The seed of the images.")
    parser.add_argument("--output", type=Path, help="Where variations and an interpolation go, as a PNG.")
    options = parser.parse_args()

    judge = SVC(C=10)
    images, digits = read_scenes(options.data_dir / "train", NUM_FITTED)
    judge.fit(features(images), digits)
    images, digits = read_scenes(options.data_dir / "test")
    print(f"real scenes recognised: {np.mean(judge.predict(features(images)) == digits):.1%}")

    pipe = UnCLIPPixelPipeline.from_pretrained(options.model)
    pipe.set_progress_bar_config(disable=True)
    asked = [name for name in DIGIT_NAMES for _ in range(options.count)]
    varied, kept = list(images[: len(asked)]), digits[: len(asked)]
    for scale in options.scales:
        shares = {}
        if pipe.prior is not None:
            prompts = [f"a {name}" for name in asked]
            prior = {"prior_guidance_scale": options.prior_scale}
            drawn = draw(pipe, options.seed, prompt=prompts, guidance_scale=scale, **prior)
            shares["drawn as asked"] = np.mean(judge.predict(features(drawn)) == asked)
        variations = draw(pipe, options.seed, image=varied, guidance_scale=scale)
        shares["variations of the same digit"] = np.mean(judge.predict(features(variations)) == kept)
        print(f"scale {scale:g}: " + ", ".join(f"{share:.1%} {what}" for what, share in shares.items()), flush=True)
    if options.output is not None:
        picture_of(pipe, images, options.scales[-1], options.seed).save(options.output)


if __name__ == "__main__":
    main()
