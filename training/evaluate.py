"""Measure a pipeline against a data set: FID, KID, precision, recall, accuracy and so on.

    accelerate launch training/evaluate.py --pretrained_model_name_or_path outputs/digits \
        --dataset_name digits --feature_extractor digits
"""

import json
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from accelerate import Accelerator, PartialState
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

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "num_inference_steps")
        self.require(
            all(map(math.isfinite, self.guidance_scales)),
            f"--guidance_scales must be finite numbers, not {self.guidance_scales}",
        )


class Evaluator:
    """Measures the samples of class-conditional and unconditional pipelines against a data set.

    Args:
        config (`EvaluationConfig` and `SamplingConfig`): what is measured, and how samples are made.
        dataset (`ImageDataset`): the real images.

    Raises:
        ValueError, OSError: if there is no such feature extractor.
    """

    def __init__(self, config, dataset: ImageDataset):
        self.config, self.dataset = config, dataset
        self.extractor = None
        if config.feature_extractor is not None:
            self.extractor = load_feature_extractor(config.feature_extractor, device=PartialState().device)
        self._real = None

    def __call__(self, generate: Generation) -> list[dict]:
        """Measure a pipeline, with as many samples of each of its classes.

        Returns:
            `list[dict]`: a row per guidance scale, or one where there is no guidance: the values, and how they were
            come by. Empty without a feature extractor.
        """
        if self.extractor is None:
            return []
        count, pipeline = self.config.num_evaluation_samples, generate.pipeline.config
        labels = None
        if pipeline.id2label is not None:
            labels = [list(pipeline.id2label)[i % len(pipeline.id2label)] for i in range(count)]
        guided = pipeline.null_class_label is not None and labels is not None
        scales = self.config.guidance_scales if guided else [None]
        return [self._row(generate, count, labels, scale) for scale in scales]

    def _row(self, generate: Generation, count: int, labels: list[int] | None, scale: float | None) -> dict:
        arguments = {"guidance_scale": scale, "num_inference_steps": self.config.num_inference_steps}
        real = self._real_features(generate.accelerator)
        progress = tqdm(
            generate.batches(count, labels, **arguments),
            "Sampling" if scale is None else f"Sampling at guidance scale {scale}",
            disable=not generate.accelerator.is_local_main_process,
        )
        values = compute_metrics(
            real,
            self._features(progress, generate.accelerator),
            self.config.metrics,
            extractor=self.extractor,
            requested_labels=labels,
            id2label=generate.pipeline.config.id2label,
            provenance={
                **arguments,
                "scheduler": type(generate.pipeline.scheduler).__name__,
                "sampling_seed": generate.seed,
                "split": self.config.dataset_split,
            },
        )
        return {"guidance_scale": scale, **values}

    def _real_features(self, accelerator: Accelerator) -> FeatureOutput:
        if self._real is None:
            own = self.dataset.reference_batches(
                self.config.evaluation_batch_size,
                process_index=accelerator.process_index,
                num_processes=accelerator.num_processes,
            )
            self._real = self._features((batch["pixel_values"] for batch in own), accelerator)
        return self._real

    def _features(self, batches: Iterable[torch.Tensor], accelerator: Accelerator) -> FeatureOutput:
        """The features of all processes' images, on each of them."""
        outputs = [self.extractor(images.to(accelerator.device)) for images in batches]
        features = gather_rows([output.features for output in outputs], accelerator)
        logits = None
        if outputs[0].logits is not None:
            logits = gather_rows([output.logits for output in outputs], accelerator)
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
    with one_sentence(ValueError, OSError, RuntimeError, ImportError, status=2):
        accelerator = build_accelerator()
        set_up_logging(accelerator)
        with accelerator.local_main_process_first():
            pipeline = ClassConditionalPipeline.from_pretrained(
                config.pretrained_model_name_or_path, cache_dir=config.cache_dir
            )
            unet = pipeline.unet.config
            size = unet.sample_size if isinstance(unet.sample_size, (list, tuple)) else [unet.sample_size] * 2
            dataset = config.load_dataset(tuple(size), unet.in_channels)
        pipeline.to(accelerator.device)
        pipeline.set_progress_bar_config(disable=True)
        generate = Generation(pipeline, accelerator, config.seed, config.evaluation_batch_size)
        rows = Evaluator(config, dataset)(generate)
    if accelerator.is_main_process:
        print(json.dumps(rows, indent=2))
        if config.output_file is not None:
            write_text_atomically(config.output_file, json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
