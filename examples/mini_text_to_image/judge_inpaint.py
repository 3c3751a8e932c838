"""How well models fill a half of a scene: a Markdown row for the model of inpaint.yaml, and one for its base.

    python examples/mini_text_to_image/judge_inpaint.py

The upper, lower, left or right half of each scene of the test split is hidden, by turns. The base model does not see
the rest: known pixels are only put into the image that each step predicts. Support vector machines, fitted on scenes
of the training, recognise the words of the caption in the whole image.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from compare import NUM_FITTED, WORDS, Judge, read_scenes
from PIL import Image

from diffusers_ext import TextToImagePixelPipeline
from diffusers_ext.training.train_text_inpainting import widened


def halves(count: int, side: int) -> np.ndarray:
    """1 in the half that is hidden, (count, side, side, 1)."""
    places = np.arange(side) < side // 2
    upper, left = (np.broadcast_to(part, (side, side)) for part in (places[:, None], places))
    kinds = np.stack([upper, ~upper, left, ~left])
    return kinds[np.arange(count) % 4, ..., None].astype(np.float32)


def load_base(folder: Path) -> TextToImagePixelPipeline:
    """A base model as an inpainting model that has not learned to look at the known pixels."""
    base = TextToImagePixelPipeline.from_pretrained(folder)
    channels = base.config.image_channels
    base.unet = widened(base.unet, 2 * channels + 1)
    base.register_to_config(shows_known_pixels=True)
    return base


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("outputs/mini/inpaint"), help="An inpainting model.")
    parser.add_argument("--base", type=Path, default=Path("outputs/mini/pixels"), help="The model it was tuned from.")
    parser.add_argument("--data_dir", type=Path, default=Path("outputs/mini/scenes/captioned"), help="The scenes.")
    parser.add_argument("--guidance_scale", type=float, default=3.0, help="The guidance scale.")
    parser.add_argument("--num_inference_steps", type=int, default=10, help="The steps of an image.")
    parser.add_argument("--count", type=int, default=200, help="Scenes.")
    parser.add_argument("--seed", type=int, default=0, help="The seed of the images.")
    parser.add_argument("--output", type=Path, help="Where scenes, holes and fillings go, as a PNG.")
    options = parser.parse_args()

    judge = Judge(*read_scenes(options.data_dir / "train", NUM_FITTED))
    scenes, rows = read_scenes(options.data_dir / "test", options.count)
    holes = halves(len(scenes), scenes.shape[1])
    titles = ["", *WORDS, "PSNR in the hole", "error outside", "s / image"]
    print("| " + " | ".join(titles) + " |\n|---" + "|---:" * (len(titles) - 1) + "|")
    real = [f"{value:.1%}" for value in judge.accuracies(scenes, rows).values()]
    print("| " + " | ".join(["real images", *real, "", "", ""]) + " |")
    shown = [scenes, np.where(holes > 0, 0.4, scenes)]
    systems = {
        "the base, by replacement": load_base(options.base),
        "tuned to inpaint": TextToImagePixelPipeline.from_pretrained(options.model),
    }
    for name, pipe in systems.items():
        pipe.set_progress_bar_config(disable=True)
        start = time.process_time()
        images = pipe(
            [row["text"][0] for row in rows],
            image=list(torch.from_numpy(scenes).permute(0, 3, 1, 2).float()),
            mask_image=list(torch.from_numpy(holes).permute(0, 3, 1, 2)),
            guidance_scale=options.guidance_scale,
            num_inference_steps=options.num_inference_steps,
            generator=torch.Generator().manual_seed(options.seed),
            output_type="np",
        ).images
        seconds = (time.process_time() - start) / len(images)
        squares, channels = (images - scenes) ** 2, scenes.shape[3]
        psnr = -10 * np.log10((holes * squares).sum() / (holes.sum() * channels))
        outside = np.abs((1 - holes) * (images - scenes)).max()
        words = [f"{value:.1%}" for value in judge.accuracies(images, rows).values()]
        cells = [name, *words, f"{psnr:.1f} dB", f"{outside:.4f}", f"{seconds:.3f}"]
        print("| " + " | ".join(cells) + " |", flush=True)
        shown.append(images)
    if options.output is not None:
        grid = np.concatenate([np.concatenate(list(images[:12]), axis=1) for images in shown])
        picture = Image.fromarray((grid * 255).round().astype(np.uint8))
        picture.resize((4 * picture.width, 4 * picture.height), Image.Resampling.NEAREST).save(options.output)


if __name__ == "__main__":
    main()
