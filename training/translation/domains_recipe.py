"""What all recipes of image translation share: the images of both domains, and the measures of a translation."""

from __future__ import annotations

import torch

from diffusers_ext.data.unpaired import UnpairedImageDataset
from diffusers_ext.training.loop.recipe import Recipe
from diffusers_ext.training.translation.domains import TranslationDataConfig
from diffusers_ext.training.translation.evaluation import TranslationEvaluator
from diffusers_ext.training.translation.inputs import MadeInputs


class DomainsRecipe(Recipe):
    """A recipe whose pipeline translates images of domain A to domain B."""

    num_outputs = 1  # how many translations of an image are measured and shown

    def domains(self, batch, draw) -> tuple[torch.Tensor, torch.Tensor]:
        """The images of domain A and of domain B in a batch."""
        second = batch["pixel_values"]
        first = batch["conditioning_pixel_values"] if self.make_inputs is None else self.make_inputs(second, draw)
        return (second, first) if self.is_swapped else (first, second)

    def __init__(self, config: TranslationDataConfig, context):
        super().__init__(config, context)
        self.is_swapped = config.direction == "BtoA"
        self.make_inputs = None
        if config.inputs is not None:
            self.make_inputs = MadeInputs(
                config.inputs, config.input_options, config.seed, config.channels, config.size
            )
        self.evaluator = TranslationEvaluator(
            config.load_validation_dataset(self.dataset),
            context,
            make_inputs=self.make_inputs,
            is_swapped=self.is_swapped,
            num_outputs=self.num_outputs,
            split=config.validation_split or config.dataset_split,
            **config.measured(),
        )

    def count_examples(self) -> str:
        if not isinstance(self.dataset, UnpairedImageDataset):
            return super().count_examples()
        return f"{self.dataset.source.num_examples} and {self.dataset.target.num_examples}"

    def before_training(self) -> None:
        super().before_training()
        self.evaluator.dataset.prepare()

    def sample_grid(self, generate):
        """Inputs, outputs and truth; without pairs both directions, there and back."""
        return self.evaluator.panel(generate)

    def evaluate(self, generate):
        """A row per direction; nothing without `--metrics` or `--feature_extractor`."""
        return self.evaluator(generate)
