"""Measure a pipeline against a data set: FID, KID, precision, recall, accuracy, likelihood and so on.

    accelerate launch training/evaluate_pipeline.py --pretrained_model_name_or_path outputs/digits \
        --dataset_name digits --feature_extractor digits

Measured are samples of a diffusion model, a cascade, a GAN or a variational autoencoder. Several samplers of a
diffusion model are compared in one run: `--schedulers ExactDDIMScheduler UniPCMultistepScheduler
--num_inference_steps 5 10 20`. `--likelihoods vlb ode` measures bits/dim. With `--tasks colorization inpainting` a
[`PalettePipeline`] is measured, beside methods that need no training, and a table and a panel are written.
"""

import inspect
import itertools
import json
import math
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import diffusers
from accelerate import Accelerator, PartialState
from diffusers import ConfigMixin, DiffusionPipeline, SchedulerMixin
from tqdm.auto import tqdm

import diffusers_ext
from diffusers_ext.data import ImageDataset
from diffusers_ext.data.loading import check_resolution
from diffusers_ext.hub.atomic import write_text_atomically
from diffusers_ext.metrics import FeatureOutput, compute_metrics, load_feature_extractor
from diffusers_ext.metrics.compute import check_measurable
from diffusers_ext.metrics.likelihood import LIKELIHOODS, likelihood_rows
from diffusers_ext.pipelines import (
    AutoencoderPipeline,
    CascadePipeline,
    ClassConditionalPipeline,
    GANPipeline,
    PalettePipeline,
)
from diffusers_ext.training.loop.accelerator import build_accelerator
from diffusers_ext.training.loop.command import one_sentence, set_up_logging
from diffusers_ext.training.loop.configuration import Config, option, parse_config
from diffusers_ext.training.loop.sampling import Generation, gather_features, gather_rows
from diffusers_ext.training.restoration.evaluation import RestorationConfig, RestorationEvaluator, Tasks, write_report


# Pipelines whose images are measured as they make them: without options for the sampler.
FIXED_PIPELINES = (GANPipeline, AutoencoderPipeline, CascadePipeline)


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
        ValueError, OSError: if there is no such feature extractor, or it is of no use for such and so many images.
    """

    def __init__(self, config, dataset: ImageDataset):
        self.config, self.dataset = config, dataset
        self.extractor = None
        if config.feature_extractor is not None:
            self.extractor = load_feature_extractor(config.feature_extractor, device=PartialState().device)
            shape, count = (dataset.channels, *dataset.resolution), config.num_evaluation_samples
            check_measurable(self.extractor, shape, config.metrics, dataset.num_examples, count)
        self._real = None

    def __call__(self, generate: Generation, num_inference_steps: int | None = None) -> list[dict]:
        """Measure a pipeline, with as many samples of each of its classes.

        Args:
            generate (`Generation`): samples the pipeline.
            num_inference_steps (`int`, *optional*): the steps of its sampler, instead of the config's.

        Returns:
            `list[dict]`: a row per guidance scale, or one where there is no guidance: the values, and how they were
            come by. Empty without a feature extractor.
        """
        if self.extractor is None:
            return []
        count, pipeline = self.config.num_evaluation_samples, generate.pipeline.config
        labels = balanced_labels(pipeline.id2label, count)
        guided = (pipeline.null_class_label is not None or generate.pipeline.guider is not None) and labels is not None
        scales = self.config.guidance_scales if guided else [None]
        steps = num_inference_steps or self.config.num_inference_steps
        return [self._row(generate, count, labels, scale, steps) for scale in scales]

    def _row(
        self, generate: Generation, count: int, labels: list[int] | None, scale: float | None, steps: int
    ) -> dict:
        arguments = {"guidance_scale": scale, "num_inference_steps": steps}
        provenance = {"scheduler": type(generate.pipeline.scheduler).__name__}
        return {"guidance_scale": scale, **self.measure(generate, count, labels, provenance, **arguments)}

    def measure(
        self,
        generate: Generation,
        count: int,
        class_labels: list[int] | None = None,
        provenance: dict | None = None,
        **arguments,
    ) -> dict:
        """Measure samples of any pipeline.

        Args:
            generate (`Generation`): samples the pipeline.
            count (`int`): how many samples.
            class_labels (`list[int]`, *optional*): a label for each of them.
            provenance (`dict`, *optional*): how the samples are made, reported beside what is known here.
            arguments: further arguments of the pipeline's call, reported too.

        Returns:
            `dict`: see [`compute_metrics`].
        """
        real = self._real_features(generate.accelerator)
        scale = arguments.get("guidance_scale")
        progress = tqdm(
            generate.batches(count, class_labels, **arguments),
            "Sampling" if scale is None else f"Sampling at guidance scale {scale}",
            disable=not generate.accelerator.is_local_main_process,
        )
        return compute_metrics(
            real,
            gather_features(self.extractor, progress, generate.accelerator),
            self.config.metrics,
            extractor=self.extractor,
            requested_labels=class_labels,
            id2label=generate.pipeline.config.get("id2label"),
            provenance={
                **arguments,
                **(provenance or {}),
                "sampling_seed": generate.seed,
                "split": self.config.dataset_split,
            },
        )

    def _real_features(self, accelerator: Accelerator) -> FeatureOutput:
        if self._real is None:
            own = self.dataset.reference_batches(
                self.config.evaluation_batch_size,
                process_index=accelerator.process_index,
                num_processes=accelerator.num_processes,
            )
            batches = (batch["pixel_values"] for batch in own)
            self._real = gather_features(self.extractor, batches, accelerator)
        return self._real


def balanced_labels(id2label: dict[int, str] | None, count: int) -> list[int] | None:
    """`count` labels, each class in turn; `None` where there are no classes."""
    return None if id2label is None else [list(id2label)[i % len(id2label)] for i in range(count)]


@dataclass
class EvaluateConfig(RestorationConfig, SamplingConfig):
    """The options of evaluate_pipeline.py."""

    pretrained_model_name_or_path: str = option(help="The pipeline: a local folder or a Hub name.")
    seed: int = option(0, help="The seed of the samples.")
    schedulers: list[str] | None = option(
        help="Scheduler classes of diffusers or diffusers_ext to compare, in place of the pipeline's own."
    )
    num_inference_steps: list[int] | None = option(
        help="Steps of the sampler, one or several numbers to compare; by default the pipeline's own number."
    )
    resolution: list[int] | None = option(
        help="With --tasks: the size of the images, one number or height and width; by default that of the training."
    )
    likelihoods: list[str] | None = option(
        help="Also measure bits/dim: vlb (the variational bound), ode (by the probability-flow ODE), or both."
    )
    num_likelihood_images: int | None = option(help="How many images of the split; by default all.")
    num_vlb_steps: int | None = option(help="vlb: the steps of the chain; by default those of the training.")
    output_file: str | None = option(
        help="Write the rows to this JSON file. With --tasks it is outputs/restoration.json if nothing else is said, "
        "and a table (.md) and a panel (.png) lie beside it."
    )

    def __post_init__(self):
        super().__post_init__()
        self.require(self.pretrained_model_name_or_path is not None, "--pretrained_model_name_or_path is required")
        self.require(
            self.feature_extractor is not None or self.likelihoods or self.tasks,
            "--feature_extractor, --likelihoods or --tasks is required",
        )
        unknown = ", ".join(sorted(set(self.likelihoods or ()) - set(LIKELIHOODS)))
        self.require(not unknown, f"--likelihoods must be among {', '.join(LIKELIHOODS)}, not {unknown}")
        self.require(
            self.resolution is None or (bool(self.tasks) and len(self.resolution) in (1, 2)),
            "--resolution takes one number, or height and width, and is for --tasks",
        )
        self.require_at_least(1, "num_likelihood_images", "num_vlb_steps")
        self.require(not (self.likelihoods and self.tasks), "--likelihoods are not for the pipelines of --tasks")
        if self.tasks and self.output_file is None:
            self.output_file = "outputs/restoration.json"
        if self.output_file is not None:
            file = Path(self.output_file)
            taken = file.suffix in (".md", ".png") if self.tasks else False  # by what lies beside it
            self.require(not file.is_dir() and not taken, f"--output_file must be a JSON file, not {self.output_file}")


def sample_rows(
    config: EvaluateConfig, evaluator: Evaluator | RestorationEvaluator, generate: Generation
) -> list[dict]:
    """The measures of the samples, for each sampler and number of steps."""
    pipeline = generate.pipeline
    own_scheduler, rows = pipeline.scheduler, []
    schedulers = [build_scheduler(name, own_scheduler.config) for name in config.schedulers or ()] or [own_scheduler]
    numbers = config.num_inference_steps or [pipeline.config.default_num_inference_steps]
    for scheduler, steps in itertools.product(schedulers, numbers):
        scheduler.set_timesteps(steps)  # what a scheduler refuses, it refuses before the first sample
    for scheduler, steps in itertools.product(schedulers, numbers):
        pipeline.scheduler = scheduler
        rows += evaluator(generate, steps)
    pipeline.scheduler = own_scheduler
    return rows


def build_scheduler(name: str, config: dict) -> SchedulerMixin:
    """The scheduler class `name` of diffusers or diffusers_ext, for the process of another scheduler's config.

    Raises:
        ValueError: if there is no such class, or it is for something else.
        ImportError: if it needs a package that is not installed.
    """
    scheduler_class = getattr(diffusers_ext, name, None) or getattr(diffusers, name, None)
    if hasattr(scheduler_class, "_backends"):  # diffusers' stand-in for what can't be imported
        return scheduler_class.from_config(config)  # says what is missing
    is_scheduler = isinstance(scheduler_class, type) and issubclass(scheduler_class, SchedulerMixin)
    if not is_scheduler or not issubclass(scheduler_class, ConfigMixin):
        raise ValueError(f"--schedulers: neither diffusers nor diffusers_ext has a scheduler {name}.")
    parameters = list(inspect.signature(scheduler_class.__init__).parameters.values())[1:]
    if any(parameter.default is inspect.Parameter.empty for parameter in parameters):
        raise ValueError(f"--schedulers: {name} does not sample pixels.")
    return scheduler_class.from_config(config)


def measured_likelihoods(config: EvaluateConfig, dataset: ImageDataset, generate: Generation) -> list[dict]:
    """The bits/dim of the real images."""
    accelerator = generate.accelerator
    share = {"process_index": accelerator.process_index, "num_processes": accelerator.num_processes}
    batches = dataset.reference_batches(config.evaluation_batch_size, limit=config.num_likelihood_images, **share)
    rows = likelihood_rows(
        generate.pipeline,
        tqdm(batches, "Likelihood", disable=not accelerator.is_local_main_process),
        config.likelihoods,
        seed=config.seed,
        num_vlb_steps=config.num_vlb_steps,
        gather=partial(gather_rows, accelerator=accelerator),
        **share,
    )
    return [{**row, "provenance": {**row["provenance"], "split": config.dataset_split}} for row in rows]


def load_pipeline(config: EvaluateConfig) -> DiffusionPipeline:
    """The pipeline to measure, of the class that its folder names; those of diffusers are class-conditional here.

    Raises:
        ValueError: if it is none that can be measured, or the options are for another.
    """
    name, options = config.pretrained_model_name_or_path, {"cache_dir": config.cache_dir}
    class_name = DiffusionPipeline.load_config(name, **options)["_class_name"]
    class_name = class_name[-1] if isinstance(class_name, list) else class_name
    if (class_name == "PalettePipeline") != bool(config.tasks):
        raise ValueError(f"--tasks are for a PalettePipeline, which needs them, and that of {name} is {class_name}.")
    own = {cls.__name__: cls for cls in (PalettePipeline, ClassConditionalPipeline, *FIXED_PIPELINES)}
    if class_name not in own and hasattr(diffusers_ext, class_name):
        raise ValueError(f"The pipeline of {name} is {class_name}, and those measured here are {', '.join(own)}.")
    return own.get(class_name, ClassConditionalPipeline).from_pretrained(name, **options)


def image_shape(pipeline: DiffusionPipeline) -> tuple[int, tuple[int, int]]:
    """The channels, and (height, width), of the images that a pipeline makes."""
    if isinstance(pipeline, GANPipeline):
        network = pipeline.generator.config
        return network.out_channels, check_resolution(network.sample_size)
    if isinstance(pipeline, AutoencoderPipeline):
        network = pipeline.autoencoder.config
        return network.in_channels, check_resolution(network.sample_size)
    if isinstance(pipeline, CascadePipeline):
        return pipeline.unet.config.in_channels, pipeline.sample_size
    channels = pipeline.config.get("image_channels") or pipeline.unet.config.in_channels
    return channels, check_resolution(pipeline.unet.config.sample_size)


def measured_as_published(config: EvaluateConfig, evaluator: Evaluator, generate: Generation) -> dict:
    """The measures of the samples of a pipeline that has one way to make them, with as many of each class.

    Raises:
        ValueError: for options of diffusion models.
    """
    name = type(generate.pipeline).__name__
    for option_name in ("schedulers", "num_inference_steps", "likelihoods"):
        if getattr(config, option_name):
            raise ValueError(f"--{option_name} is not for a {name}, whose images are measured as it makes them.")
    count = config.num_evaluation_samples
    return evaluator.measure(generate, count, balanced_labels(generate.pipeline.config.get("id2label"), count))


def main(arguments: list[str] | None = None) -> None:
    """Measure a pipeline as the command line says, and print the rows."""
    config = parse_config(EvaluateConfig, sys.argv[1:] if arguments is None else arguments)
    with one_sentence(ValueError, OSError, RuntimeError, ImportError, status=2):
        accelerator = build_accelerator()
        set_up_logging(accelerator)
        with accelerator.local_main_process_first():
            pipeline = load_pipeline(config)
            channels, size = image_shape(pipeline)
            if config.resolution is not None:
                size = check_resolution(config.resolution)
            dataset = config.load_dataset(size, channels)
        pipeline.to(accelerator.device)
        pipeline.set_progress_bar_config(disable=True)
        generate = Generation(pipeline, accelerator, config.seed, config.evaluation_batch_size)
        if config.tasks:
            return _evaluate_restoration(config, dataset, generate)
        if isinstance(pipeline, FIXED_PIPELINES):
            return _report(config, accelerator, [measured_as_published(config, Evaluator(config, dataset), generate)])
        # The likelihoods first: a process that has none is refused before anything else is measured.
        rows = measured_likelihoods(config, dataset, generate) if config.likelihoods else []
        rows += sample_rows(config, Evaluator(config, dataset), generate) if config.feature_extractor else []
    _report(config, accelerator, rows)


def _report(config: EvaluateConfig, accelerator: Accelerator, rows: list[dict]) -> None:
    if accelerator.is_main_process:
        print(json.dumps(rows, indent=2))
        if config.output_file is not None:
            write_text_atomically(config.output_file, json.dumps(rows, indent=2) + "\n")


def _evaluate_restoration(config: EvaluateConfig, dataset: ImageDataset, generate: Generation) -> None:
    """Measure a [`PalettePipeline`] and what needs no training, and write a table and a panel."""
    tasks = Tasks(config, dataset.resolution, dataset.channels)
    evaluator = RestorationEvaluator(config, tasks, dataset, config.dataset_split)
    panel = evaluator.panel(generate)  # first, as it is here that a pipeline refuses tasks which it does not know
    rows = evaluator.baselines(generate.accelerator) + sample_rows(config, evaluator, generate)
    if generate.accelerator.is_main_process:
        rows.sort(key=lambda row: tasks.names.index(row["task"]))
        print(write_report(config.output_file, rows, panel))


if __name__ == "__main__":
    main()
