"""Measure a pipeline against a data set: FID, KID, precision, recall, accuracy and so on.

    accelerate launch training/evaluate.py --pretrained_model_name_or_path outputs/digits \
        --dataset_name digits --feature_extractor digits
"""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from diffusers_ext.data import ImageDataset
from diffusers_ext.hub.atomic import write_text_atomically
from diffusers_ext.metrics import FeatureOutput, compute_metrics, load_feature_extractor
from diffusers_ext.pipelines import ClassConditionalPipeline
from diffusers_ext.training.command import one_sentence, set_up_logging
from diffusers_ext.training.configuration import Config, DataConfig, EvaluationConfig, option, parse_config
from diffusers_ext.training.generation import Generation, gather_rows
from diffusers_ext.training.processes import build_accelerator


@dataclass
class SamplingConfig(Config):
    """How the samples of a diffusion model are made."""

    num_inference_steps: int = option(10, help="Steps of the sampler.")
    guidance_scales: list[float] = option([1.0, 2.0], help="The guidance scales to measure, where labels were hidden.")


def evaluate(generate: Generation, dataset: ImageDataset, config, guided: bool) -> list[dict]:
    """Measure the samples of a class-conditional or unconditional pipeline.

    Args:
        generate (`Generation`): the pipeline, the processes and the seed.
        dataset (`ImageDataset`): the real images. Labelled ones ask for as many samples of each class.
        config (`EvaluationConfig` and `SamplingConfig`): what is measured, and how samples are made.
        guided (`bool`): whether to go through `config.guidance_scales`.

    Returns:
        `list[dict]`: a row per guidance scale: the values, and how they were come by.
    """
    if config.feature_extractor is None:
        return []
    accelerator, count = generate.accelerator, config.num_evaluation_samples
    extractor = load_feature_extractor(config.feature_extractor, device=accelerator.device)
    own = dataset.reference_batches(
        config.evaluation_batch_size,
        process_index=accelerator.process_index,
        num_processes=accelerator.num_processes,
    )
    real = _features((batch["pixel_values"] for batch in own), dataset.num_examples, extractor, accelerator)
    labels = None
    if dataset.id2label is not None:
        labels = [list(dataset.id2label)[i % len(dataset.id2label)] for i in range(count)]

    rows = []
    for scale in config.guidance_scales if guided else [None]:
        arguments = {"guidance_scale": scale, "num_inference_steps": config.num_inference_steps}
        batches = generate.batches(count, labels, **arguments)
        progress = tqdm(batches, f"Sampling at guidance scale {scale}", disable=not accelerator.is_local_main_process)
        generated = _features(progress, count, extractor, accelerator)
        values = compute_metrics(
            real,
            generated,
            config.metrics,
            extractor=extractor,
            requested_labels=labels,
            id2label=dataset.id2label,
            provenance={
                **arguments,
                "scheduler": type(generate.pipeline.scheduler).__name__,
                "sampling_seed": generate.seed,
                "split": config.dataset_split,
            },
        )
        rows.append({"guidance_scale": scale, **values})
    return rows


def _features(batches: Iterable[torch.Tensor], count: int, extractor, accelerator: Accelerator) -> FeatureOutput:
    """The features of all processes' images, on each of them."""
    outputs = [extractor(images) for images in batches]
    features = gather_rows([output.features for output in outputs], count, accelerator)
    logits = None
    if outputs[0].logits is not None:
        logits = gather_rows([output.logits for output in outputs], count, accelerator)
    return FeatureOutput(features=features, logits=logits)


@dataclass
class EvaluateConfig(SamplingConfig, EvaluationConfig, DataConfig):
    """The options of evaluate.py."""

    pretrained_model_name_or_path: str = option(help="The pipeline: a local folder or a Hub name.")
    seed: int = option(0, help="The seed of the samples.")
    output_file: str | None = option(help="Write the rows to this JSON file.")

    def __post_init__(self):
        super().__post_init__()
        self.require(self.pretrained_model_name_or_path is not None, "--pretrained_model_name_or_path is required")
        self.require(self.feature_extractor is not None, "--feature_extractor is required")


def main(arguments: list[str] | None = None) -> None:
    """Measure a pipeline as the command line says, and print the rows."""
    config = parse_config(EvaluateConfig, sys.argv[1:] if arguments is None else arguments)
    with one_sentence(ValueError, OSError, RuntimeError, status=2):
        accelerator = build_accelerator()
        set_up_logging(accelerator)
        with accelerator.local_main_process_first():
            pipeline = ClassConditionalPipeline.from_pretrained(config.pretrained_model_name_or_path)
            unet = pipeline.unet.config
            size = unet.sample_size if isinstance(unet.sample_size, (list, tuple)) else [unet.sample_size] * 2
            dataset = config.load_dataset(tuple(size), unet.in_channels)
    pipeline.to(accelerator.device)
    pipeline.set_progress_bar_config(disable=True)
    generate = Generation(pipeline, accelerator, config.seed, config.evaluation_batch_size)
    rows = evaluate(generate, dataset, config, guided=pipeline.config.null_class_label is not None)
    if accelerator.is_main_process:
        print(json.dumps(rows, indent=2))
        if config.output_file is not None:
            write_text_atomically(config.output_file, json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
