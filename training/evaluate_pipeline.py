r"""Measure a pipeline against a data set: FID, KID, precision, recall, accuracy, likelihood and so on.

    accelerate launch training/evaluate_pipeline.py --pretrained_model_name_or_path outputs/digits \
        --dataset_name digits --feature_extractor digits

It measures the samples of a diffusion model, a cascade, a GAN or a variational autoencoder. Several samplers of a
diffusion model are compared in one run: `--schedulers ExactDDIMScheduler UniPCMultistepScheduler
--num_inference_steps 5 10 20`. `--likelihoods vlb ode` measures bits/dim. `--tasks colorization inpainting` measures a
[`PalettePipeline`], beside methods that need no training, and writes a table and a panel.
"""

from diffusers_ext.training.loop.command import one_sentence, set_up_logging

import inspect
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from diffusers import DiffusionPipeline

from diffusers_ext.atomic import write_text_atomically
from diffusers_ext.data import ImageDataset
from diffusers_ext.data.loading import check_resolution
from diffusers_ext.likelihoods import (
    LIKELIHOODS,
    dequantized_likelihood_row,
    exact_likelihood_row,
    likelihood_rows,
)
from diffusers_ext.training.evaluation.classification import ClassificationScore
from diffusers_ext.training.evaluation.pipeline_classes import find_pipeline_class
from diffusers_ext.training.evaluation.samplers import compare_samplers
from diffusers_ext.training.evaluation.samples import SampleEvaluator, SamplingConfig
from diffusers_ext.training.loop.accelerator import build_accelerator
from diffusers_ext.training.loop.configuration import option, parse_config
from diffusers_ext.training.loop.context import Context
from diffusers_ext.training.loop.sampling import Generation
from diffusers_ext.training.restoration.evaluation import RestorationEvaluator, write_report
from diffusers_ext.training.restoration.tasks import RestorationConfig, Tasks


# Of pipelines that know a likelihood of pixels, by their `likelihood`.
OWN_LIKELIHOODS = ("exact", "dequantized")


@dataclass
class EvaluateConfig(RestorationConfig, SamplingConfig):
    """The options of evaluate_pipeline.py."""

    pretrained_model_name_or_path: str = option(
        help="The pipeline: a local folder or a Hub name.", group="network", essential=True
    )
    seed: int = option(0, help="The seed of the samples.", group="evaluation")
    schedulers: list[str] | None = option(
        help="Scheduler classes of diffusers or diffusers_ext to compare, in place of the pipeline's own.",
        group="evaluation",
    )
    num_inference_steps: list[int] | None = option(
        help="Steps of the sampler, one or several numbers to compare; by default the pipeline's own number.",
        group="evaluation",
    )
    classification_split: str | None = option(
        help="Also measure the classification accuracy score of samples of classes: a classifier is trained on them, "
        "and tested on this split, which should differ from --dataset_split; beside one trained on real images.",
        group="evaluation",
    )
    resolution: list[int] | None = option(
        help="With --tasks: the size of the images, one number or height and width; by default as in training.",
        group="data",
    )
    likelihoods: list[str] | None = option(
        help="Also measure bits/dim: vlb (the variational bound), ode (by the probability-flow ODE), or both; exact "
        "of an AutoregressivePipeline, dequantized of a DensityPipeline.",
        group="evaluation",
    )
    num_likelihood_images: int | None = option(
        help="How many images --likelihoods uses; by default all.", group="evaluation"
    )
    num_vlb_steps: int | None = option(
        help="vlb: the number of steps of the chain; by default as in training.", group="evaluation"
    )
    cpu_threads: int | None = option(
        help="On CPUs: the threads of each process; by default OMP_NUM_THREADS, or else a share of the cores.",
        group="speed",
    )
    output_file: str | None = option(
        help="Write the rows to this JSON file. With --tasks the default is outputs/restoration.json, and a table "
        "(.md) and a panel (.png) are written beside it.",
        group="output",
        essential=True,
    )

    def __post_init__(self):
        super().__post_init__()
        self.require(self.pretrained_model_name_or_path is not None, "--pretrained_model_name_or_path is required")
        self.require(
            self.feature_extractor is not None or self.likelihoods or self.tasks,
            "--feature_extractor, --likelihoods or --tasks is required",
        )
        known = (*LIKELIHOODS, *OWN_LIKELIHOODS)
        unknown = ", ".join(sorted(set(self.likelihoods or ()) - set(known)))
        self.require(not unknown, f"--likelihoods must be among {', '.join(known)}, not {unknown}")
        self.require(
            self.resolution is None or (bool(self.tasks) and len(self.resolution) in (1, 2)),
            "--resolution takes one number, or height and width, and is for --tasks",
        )
        self.require(
            self.classification_split is None or (self.feature_extractor is not None and not self.tasks),
            "--classification_split needs --feature_extractor, and is not for --tasks",
        )
        self.require_at_least(1, "num_likelihood_images", "num_vlb_steps", "cpu_threads")
        self.require(not (self.likelihoods and self.tasks), "--likelihoods are not for the pipelines of --tasks")
        if self.tasks and self.output_file is None:
            self.output_file = "outputs/restoration.json"
        if self.output_file is not None:
            file = Path(self.output_file)
            # The table and the panel of --tasks get these endings.
            taken = file.suffix in (".md", ".png") if self.tasks else False
            self.require(not file.is_dir() and not taken, f"--output_file must be a JSON file, not {self.output_file}")


def main(arguments: list[str] | None = None) -> None:
    """Measure a pipeline as the command line says, and print the rows."""
    config = parse_config(EvaluateConfig, sys.argv[1:] if arguments is None else arguments)
    with one_sentence(ValueError, OSError, RuntimeError, ImportError, status=2):
        accelerator = build_accelerator(cpu_threads=config.cpu_threads)
        set_up_logging(accelerator)
        with accelerator.local_main_process_first():
            pipeline_class = find_pipeline_class(config.pretrained_model_name_or_path, config.cache_dir)
            check_options(config, pipeline_class)
            pipeline = pipeline_class.from_pretrained(config.pretrained_model_name_or_path, cache_dir=config.cache_dir)
            channels, *size = pipeline.image_shape
            if config.resolution is not None:
                size = check_resolution(config.resolution)
            dataset = config.load_dataset(tuple(size), channels)
        pipeline.to(accelerator.device)
        pipeline.set_progress_bar_config(disable=True)
        generate = Generation(pipeline, Context(accelerator), config.seed, config.evaluation_batch_size)
        if config.tasks:
            return measure_restorations(config, dataset, generate)
        rows = measure_samples(config, dataset, generate)
    if accelerator.is_main_process:
        print(json.dumps(rows, indent=2))
        if config.output_file is not None:
            write_text_atomically(config.output_file, json.dumps(rows, indent=2) + "\n")


def check_options(config: EvaluateConfig, pipeline_class: type[DiffusionPipeline]) -> None:
    """Refuse options that are for another kind of pipeline.

    Raises:
        ValueError: in one sentence.
    """
    name, kind = config.pretrained_model_name_or_path, pipeline_class.__name__
    parameters = inspect.signature(pipeline_class.__init__).parameters
    if ("tasks" in parameters) != bool(config.tasks):
        raise ValueError(f"--tasks are for a PalettePipeline, which needs them, but the class of {name} is {kind}.")
    if pipeline_class.samples_from_noise is False and not config.tasks:
        raise ValueError(
            f"The class of {name} is {kind}, which makes no images from noise: there are no samples to measure."
        )
    own = getattr(pipeline_class, "likelihood", None)
    if config.likelihoods and not set(config.likelihoods) <= set(LIKELIHOODS if own is None else (own,)):
        suitable = " and ".join(LIKELIHOODS) if own is None else f"{own} alone"
        raise ValueError(f"--likelihoods of a {kind} may be {suitable}, and not {', '.join(config.likelihoods)}.")
    if "default_num_inference_steps" not in parameters:
        for name in ("schedulers", "num_inference_steps", *(("likelihoods",) if own is None else ())):
            if getattr(config, name):
                raise ValueError(f"--{name} is not for the class {kind}, whose images are measured as it makes them.")


def measure_samples(config: EvaluateConfig, dataset: ImageDataset, generate: Generation) -> list[dict]:
    """The rows of a pipeline that makes images from noise: likelihoods, and samples of each sampler."""
    # The likelihoods come first: a process that has none is refused before anything else is measured.
    rows = measure_likelihoods(config, dataset, generate) if config.likelihoods else []
    evaluator = SampleEvaluator(
        dataset,
        split=config.dataset_split,
        device=generate.context.device,
        classification=classification_score(config, dataset, generate.pipeline),
        **config.measured(),
    )
    if evaluator.extractor is None:
        return rows
    if "default_num_inference_steps" not in generate.pipeline.config:
        return [*rows, evaluator.measure_as_published(generate)]
    return rows + compare_samplers(
        lambda generate, steps: evaluator(generate, steps, config.guidance_scales),
        generate,
        config.schedulers or (),
        config.num_inference_steps or (),
    )


def classification_score(
    config: EvaluateConfig, dataset: ImageDataset, pipeline: DiffusionPipeline
) -> ClassificationScore | None:
    """What measures samples by training a classifier on them; `None` without `--classification_split`."""
    split = config.classification_split
    if split is None:
        return None
    if pipeline.config.get("id2label") is None:
        raise ValueError("--classification_split is for pipelines with classes, and this one has none.")
    tested_on = replace(config, dataset_split=split).load_dataset(dataset.resolution, dataset.channels)
    return ClassificationScore(
        dataset, tested_on, split=split, seed=config.seed, batch_size=config.evaluation_batch_size
    )


def measure_likelihoods(config: EvaluateConfig, dataset: ImageDataset, generate: Generation) -> list[dict]:
    """The bits/dim of the real images."""
    context = generate.context
    batches = dataset.reference_batches(
        config.evaluation_batch_size, limit=config.num_likelihood_images, **context.share
    )
    batches = context.progress(batches, "Likelihood")
    if "exact" in config.likelihoods:
        rows = [exact_likelihood_row(generate.pipeline, batches, gather=context.gather_rows)]
    elif "dequantized" in config.likelihoods:
        rows = [
            dequantized_likelihood_row(
                generate.pipeline, batches, seed=config.seed, gather=context.gather_rows, **context.share
            )
        ]
    else:
        rows = likelihood_rows(
            generate.pipeline,
            batches,
            config.likelihoods,
            seed=config.seed,
            num_vlb_steps=config.num_vlb_steps,
            gather=context.gather_rows,
            **context.share,
        )
    return [{**row, "provenance": {**row["provenance"], "split": config.dataset_split}} for row in rows]


def measure_restorations(config: EvaluateConfig, dataset: ImageDataset, generate: Generation) -> None:
    """Measure a [`PalettePipeline`] and methods that need no training, and write a table and a panel."""
    tasks = Tasks(config.tasks, config.task_options, dataset.resolution, dataset.channels)
    evaluator = RestorationEvaluator(
        tasks, dataset, generate.context, split=config.dataset_split, seed=config.seed, **config.restored()
    )
    evaluator.try_call_options(generate.pipeline)
    panel = evaluator.panel(generate)  # first, because here the pipeline refuses tasks that it does not know
    rows = evaluator.baselines() + compare_samplers(
        lambda generate, steps: evaluator(generate, steps, config.guidance_scales),
        generate,
        config.schedulers or (),
        config.num_inference_steps or (),
    )
    if generate.context.is_main_process:
        rows.sort(key=lambda row: tasks.names.index(row["task"]))
        print(write_report(config.output_file, rows, panel))


if __name__ == "__main__":
    main()
