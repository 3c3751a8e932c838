"""How often the mini text-to-image models draw the digit in the prompt, and whether they follow edges.

    python examples/mini_text_to_image/judge.py outputs/mini/model outputs/mini/controlnet

A support vector machine, fitted on real digits, recognises the digits. The script prints one row for each folder. A
folder contains a pipeline, or embeddings, LoRA weights or a ControlNet, which are loaded into the pipeline in
`--model`. A ControlNet gets the edges of digits that were in no training, and `edge F1` measures how well the edges of
its images match them; in parentheses is the F1 of the model without control, for the same prompts and noise.
"""

import argparse
import json
import time
from collections import defaultdict
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from diffusers import ControlNetModel, DiffusionPipeline, StableDiffusionControlNetPipeline, StableDiffusionPipeline
from make_data import edges
from PIL import Image
from safetensors import safe_open

from diffusers_ext.data.digits import DIGIT_NAMES
from diffusers_ext.metrics.edge_agreement import edge_f1
from diffusers_ext.metrics.extractors.digits_extractor import DigitsExtractor
from diffusers_ext.pixels import to_pixel_values


PROMPT = "a handwritten {}"
NUM_STEPS, GUIDANCE_SCALE = 10, 2.0
EMBEDDINGS, LORA = "learned_embeds.safetensors", "pytorch_lora_weights.safetensors"


def load(folder: Path, model: str) -> tuple[DiffusionPipeline, str | None]:
    """The pipeline of stock diffusers for the files in a folder, and the new word if they are embeddings."""
    if (folder / "model_index.json").exists():
        return StableDiffusionPipeline.from_pretrained(folder), None
    if (folder / LORA).exists():
        pipeline = StableDiffusionPipeline.from_pretrained(model)
        pipeline.load_lora_weights(folder)
        return pipeline, None
    if (folder / EMBEDDINGS).exists():
        pipeline = StableDiffusionPipeline.from_pretrained(model)
        pipeline.load_textual_inversion(folder)
        with safe_open(folder / EMBEDDINGS, "pt") as file:
            (word,) = file.keys()
        return pipeline, word
    controlnet = ControlNetModel.from_pretrained(folder)
    return StableDiffusionControlNetPipeline.from_pretrained(model, controlnet=controlnet), None


def draw(pipeline: DiffusionPipeline, prompts: list[str], controls: list[Image.Image] | None, seed: int):
    """One image for each prompt, uint8 (N, 3, H, W)."""
    pipeline.set_progress_bar_config(disable=True)
    images, generator = [], torch.Generator().manual_seed(seed)
    for start in range(0, len(prompts), 100):
        part = slice(start, start + 100)
        control = {} if controls is None else {"image": controls[part]}
        images += pipeline(
            prompts[part],
            num_inference_steps=NUM_STEPS,
            guidance_scale=GUIDANCE_SCALE,
            generator=generator,
            **control,
        ).images
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def share_drawn(images: torch.Tensor, classes: list[int], judge: DigitsExtractor) -> dict[str, float]:
    """The fraction of images that are recognised as their class, by class."""
    drawn, asked = judge(images).logits.argmax(dim=1), torch.tensor(classes)
    return {DIGIT_NAMES[label]: (drawn[asked == label] == label).float().mean().item() for label in sorted({*classes})}


def judge_prompts(pipeline, word: str | None, held_out: int, count: int, seed: int, judge: DigitsExtractor) -> dict:
    """The row of a pipeline that gets only prompts."""
    names = {label: word if word is not None and label == held_out else name for label, name in enumerate(DIGIT_NAMES)}
    classes = [label for label in names for _ in range(count)]
    images = draw(pipeline, [PROMPT.format(names[label]) for label in classes], None, seed)
    return {"drawn": share_drawn(images, classes, judge)}


def judge_control(pipeline, model: str, controls_dir: Path, count: int, seed: int, judge: DigitsExtractor) -> dict:
    """The row of a ControlNet: `count` images of each digit in the folder of controls, with and without control."""
    files = defaultdict(list)
    for line in (controls_dir / "metadata.jsonl").read_text().splitlines():
        row = json.loads(line)
        files[row["file_name"].partition("_")[0]].append(controls_dir / row["edges_file_name"])
    names = [name for name in files for _ in range(count)]
    shown = [file for name in files for file in islice(cycle(files[name]), count)]
    controls = [Image.open(file).convert("RGB") for file in shown]
    prompts, classes = [PROMPT.format(name) for name in names], [DIGIT_NAMES.index(name) for name in names]
    given = torch.from_numpy(np.stack(controls)[..., 0] > 127)
    controlled = draw(pipeline, prompts, controls, seed)
    free = draw(StableDiffusionPipeline.from_pretrained(model), prompts, None, seed)
    found = {"with": controlled, "without": free}
    f1 = {name: edge_f1(edges(to_pixel_values(images))[:, 0] > 0, given) for name, images in found.items()}
    return {
        "drawn": share_drawn(controlled, classes, judge),
        "edge_f1": {name: values.mean().item() for name, values in f1.items()},
    }


def judge_folder(folder: Path, options: argparse.Namespace, judge: DigitsExtractor) -> dict:
    """The row of the model in a folder."""
    pipeline, word = load(folder, options.model)
    if isinstance(pipeline, StableDiffusionControlNetPipeline):
        return judge_control(pipeline, options.model, options.controls, options.count, options.seed, judge)
    held_out = DIGIT_NAMES.index(options.held_out)
    return judge_prompts(pipeline, word, held_out, options.count, options.seed, judge)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="Pipelines, or files that are loaded into --model.")
    parser.add_argument(
        "--model",
        default="outputs/mini/model",
        help="The pipeline that embeddings, LoRA weights and ControlNets belong to.",
    )
    parser.add_argument("--controls", type=Path, default=Path("outputs/mini/data/controls"), help="Edges of digits.")
    parser.add_argument(
        "--held_out", choices=DIGIT_NAMES, default="nine", help="The class that --model was trained without."
    )
    parser.add_argument("--count", type=int, default=100, help="Images of each class.")
    parser.add_argument("--seed", type=int, default=0, help="The seed of the noise.")
    options = parser.parse_args()

    judge, names = DigitsExtractor(), [name for name in DIGIT_NAMES if name != options.held_out]
    print(f"| model | {' | '.join(names)} | all of these | {options.held_out} | edge F1 (without) | CPU seconds |")
    print(f"|---|{'---:|' * (len(names) + 4)}")
    for folder in options.folders:
        start = time.process_time()
        row = judge_folder(folder, options, judge)
        shares = [row["drawn"][name] for name in names]
        cells = [f"{100 * share:.0f}" for share in shares] + [f"{100 * sum(shares) / len(shares):.1f}"]
        cells.append(f"{100 * row['drawn'][options.held_out]:.0f}" if options.held_out in row["drawn"] else "")
        f1 = row.get("edge_f1")
        cells.append(f"{f1['with']:.2f} ({f1['without']:.2f})" if f1 else "")
        print(f"| {folder.name} | {' | '.join(cells)} | {time.process_time() - start:.0f} |", flush=True)


if __name__ == "__main__":
    main()
