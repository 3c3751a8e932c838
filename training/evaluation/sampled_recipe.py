"""What recipes of models that draw images have in common: the classes, the grid, and the measures of samples."""

from __future__ import annotations

from collections.abc import Iterable

from diffusers import DiffusionPipeline

from diffusers_ext.training.evaluation.grids import class_grid
from diffusers_ext.training.evaluation.samples import SampleEvaluator
from diffusers_ext.training.loop.recipe import Recipe


class SampledRecipe(Recipe):
    """A recipe whose pipeline draws images in one way, of classes with `--class_conditional`.

    Raises:
        ValueError: if the images have no classes, but `--class_conditional` is given.
    """

    def __init__(self, config, context):
        super().__init__(config, context)
        if config.class_conditional and self.dataset.id2label is None:
            raise ValueError("--class_conditional needs labels: name the column with --label_column.")
        self.id2label = self.dataset.id2label if config.class_conditional else None
        self.evaluator = SampleEvaluator(
            self.dataset, split=config.dataset_split, device=context.device, **config.measured()
        )

    @property
    def num_classes(self) -> int | None:
        """The number of classes of the networks; `None` without `--class_conditional`."""
        return None if self.id2label is None else len(self.id2label)

    @property
    def kind(self) -> str:
        """What kind of images the model draws, for the card."""
        return "unconditional" if self.id2label is None else "class-conditional"

    def sample_grid(self, generate):
        """A column per class (the first ten), or a square of samples without."""
        return class_grid(generate, self.id2label)

    def evaluate(self, generate):
        """The measures of samples; nothing without `--feature_extractor`."""
        return [] if self.evaluator.extractor is None else [self.evaluator.measure_as_published(generate)]


class ScoringRecipe(SampledRecipe):
    """A recipe whose pipeline also scores given images, by a likelihood or an energy."""

    def __init__(self, config, context):
        super().__init__(config, context)
        self.validation_images = config.load_validation_dataset(self.dataset, same_classes=config.class_conditional)

    def before_training(self) -> None:
        super().before_training()
        self.validation_images.prepare()

    def score(self, pipeline: DiffusionPipeline, batches: Iterable[dict]) -> dict:
        """The scores of images as a row of measures with its `provenance`; every process has its share of batches."""
        raise NotImplementedError

    def evaluate(self, generate):
        """The scores of the validation images, and the measures of samples."""
        config = self.config
        batches = self.validation_images.reference_batches(config.evaluation_batch_size, **self.context.share)
        row = self.score(generate.pipeline, batches)
        split = config.validation_split or config.dataset_split
        return [{**row, "provenance": {**row["provenance"], "split": split}}, *super().evaluate(generate)]
