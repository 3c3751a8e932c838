"""Shared by the tests of the text-to-image recipes: options of tiny runs, and pipelines as users load them."""

from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline

from tests.training.runs import train_in_processes
from tests.training.text_to_image_models import SIZE


OPTIONS = {
    "resolution": [SIZE],
    "max_train_steps": 2,
    "train_batch_size": 2,
    "learning_rate": 1e-2,
    "num_validation_images": 1,
    "num_inference_steps": 2,
}


def load(folder, family: str) -> DiffusionPipeline:
    """The pipeline in a folder, loaded as a user of diffusers alone loads it."""
    absent = {"text_encoder_3": None, "tokenizer_3": None} if family == "sd3" else {}
    pipeline = DiffusionPipeline.from_pretrained(folder, **absent)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def image(pipeline, prompt: str) -> np.ndarray:
    options = {"num_inference_steps": 2, "height": SIZE, "width": SIZE, "output_type": "np"}
    return pipeline(prompt, generator=torch.Generator().manual_seed(0), **options).images


def run_on_one_and_two_processes(job: str, options: dict, folder: Path) -> tuple[Path, Path]:
    """Run `diffusers_ext.training.<job>` on one and on two processes, with batches of four images: both folders."""
    for processes in (1, 2):
        train_in_processes(job, {**options, "train_batch_size": 4}, folder / str(processes), processes)
    return folder / "1", folder / "2"
