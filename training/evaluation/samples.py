"""Measuring samples of a pipeline as a set, against the images of a data set."""

import math
from dataclasses import dataclass

import torch

from diffusers_ext.data import ImageDataset
from diffusers_ext.metrics import FeatureOutput, compute_metrics
from diffusers_ext.training.evaluation.classification import ClassificationScore
from diffusers_ext.training.evaluation.measurable import load_measuring_extractor
from diffusers_ext.training.loop.configuration import Config, option
from diffusers_ext.training.loop.context import Context
from diffusers_ext.training.loop.sampling import Generation


@dataclass
class SamplingConfig(Config):
    """How the samples of a diffusion model are made."""

    option_group = "evaluation"

    num_inference_steps: int = option(10, help="Steps of the sampler.")
    guidance_scales: list[float] = option([1.0, 2.0], help="The guidance scales to measure, where labels were hidden.")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "num_inference_steps")
        self.require(
            all(map(math.isfinite, self.guidance_scales)),
            f"--guidance_scales must be finite numbers, not {self.guidance_scales}",
        )


class SampleEvaluator:
    """Measures the samples of class-conditional and unconditional pipelines against a data set.

    Args:
        dataset (`ImageDataset`): the real images.
        split (`str`): the name of their split, reported beside the measures.
        device (`torch.device`): where the feature extractor runs.
        feature_extractor (`str`, *optional*): see [`load_feature_extractor`]; without it nothing is measured.
        metrics (`list[str]`, *optional*): names, see [`compute_metrics`]; by default all that are possible.
        num_samples (`int`): how many samples are measured.
        batch_size (`int`): the real images that a process reads at once.
        classification (`ClassificationScore`, *optional*): also measures samples of classes by training on them.

    Raises:
        ValueError, OSError: if the feature extractor does not exist, or can't be used for so few or such images.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        *,
        split: str,
        device: torch.device,
        feature_extractor: str | None,
        metrics: list[str] | None,
        num_samples: int,
        batch_size: int,
        classification: ClassificationScore | None = None,
    ):
        self.dataset, self.split, self.metrics, self.classification = dataset, split, metrics, classification
        self.num_samples, self.batch_size = num_samples, batch_size
        self.extractor = load_measuring_extractor(
            feature_extractor,
            metrics,
            shape=(dataset.channels, *dataset.resolution),
            num_real=dataset.num_examples,
            num_generated=num_samples,
            device=device,
        )
        self._real = None

    def __call__(self, generate: Generation, num_inference_steps: int, guidance_scales: list[float]) -> list[dict]:
        """Measure a diffusion pipeline, with equally many samples of each of its classes.

        Args:
            generate (`Generation`): samples the pipeline.
            num_inference_steps (`int`): the steps of its sampler.
            guidance_scales (`list[float]`): the scales to measure, if the pipeline can be guided.

        Returns:
            `list[dict]`: a row per guidance scale, or one row where there is no guidance: the values, and how they
            were computed. Empty without a feature extractor.
        """
        if self.extractor is None:
            return []
        pipeline = generate.pipeline.config
        labels = balanced_labels(pipeline.id2label, self.num_samples)
        guided = (pipeline.null_class_label is not None or generate.pipeline.guider is not None) and labels is not None
        provenance = {"scheduler": type(generate.pipeline.scheduler).__name__}
        return [
            {
                "guidance_scale": scale,
                **self.measure(
                    generate, labels, provenance, guidance_scale=scale, num_inference_steps=num_inference_steps
                ),
            }
            for scale in (guidance_scales if guided else [None])
        ]

    def measure(
        self,
        generate: Generation,
        class_labels: list[int] | None = None,
        provenance: dict | None = None,
        per_image: dict[str, list] | None = None,
        **arguments,
    ) -> dict:
        """Measure samples of any pipeline.

        Args:
            generate (`Generation`): samples the pipeline.
            class_labels (`list[int]`, *optional*): a label for each sample.
            provenance (`dict`, *optional*): how the samples are made, reported beside the values known here.
            per_image (`dict[str, list]`, *optional*): other arguments of the pipeline's call, a value for each sample.
            arguments: further arguments of the pipeline's call, reported too.

        Returns:
            `dict`: see [`compute_metrics`].
        """
        context, scale = generate.context, arguments.get("guidance_scale")
        real = self._real_features(context)
        samples = context.progress(
            generate.batches(self.num_samples, class_labels, per_image, **arguments),
            "Sampling" if scale is None else f"Sampling at guidance scale {scale}",
        )
        trained_on = None if class_labels is None else self.classification
        if trained_on is not None:
            samples = list(samples)
        row = compute_metrics(
            real,
            context.gather_features(self.extractor, samples),
            self.metrics,
            extractor=self.extractor,
            requested_labels=class_labels,
            id2label=generate.pipeline.config.get("id2label"),
            provenance={
                **arguments,
                **(provenance or {}),
                "sampling_seed": generate.seed,
                "split": self.split,
            },
        )
        if trained_on is None:
            return row
        scores = trained_on(context, context.gather_rows(samples), class_labels, generate.pipeline.config.id2label)
        provenance = {**row.pop("provenance"), **scores.pop("provenance")}
        return {**row, **scores, "provenance": provenance}

    def measure_as_published(self, generate: Generation) -> dict:
        """Measure a pipeline that has one way to make images, with equally many of each class."""
        return self.measure(generate, balanced_labels(generate.pipeline.config.get("id2label"), self.num_samples))

    def _real_features(self, context: Context) -> FeatureOutput:
        if self._real is None:
            own = self.dataset.reference_batches(self.batch_size, **context.share)
            self._real = context.gather_features(self.extractor, (batch["pixel_values"] for batch in own))
        return self._real


def balanced_labels(id2label: dict[int, str] | None, count: int) -> list[int] | None:
    """`count` labels that go through the classes in turn; `None` where there are no classes."""
    return None if id2label is None else [list(id2label)[i % len(id2label)] for i in range(count)]
