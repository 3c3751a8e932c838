"""The classification accuracy score of a pipeline, beside that of real images."""

import torch

from diffusers_ext.data import ImageDataset
from diffusers_ext.metrics import match_class_ids
from diffusers_ext.metrics.classification_score import CLASSIFIER, classification_accuracy_score
from diffusers_ext.training.loop.context import Context


class ClassificationScore:
    """Trains a classifier on samples and another on real images, and tests both on images that neither has seen.

    Args:
        trained_on (`ImageDataset`): real images, of which at most as many are used as there are samples.
        tested_on (`ImageDataset`): real images of another split.
        split (`str`): the name of that split.
        seed (`int`): the seed of the choice of real images.
        batch_size (`int`): the real images that a process reads at once.

    Raises:
        ValueError: if images have no classes.
    """

    def __init__(self, trained_on: ImageDataset, tested_on: ImageDataset, *, split: str, seed: int, batch_size: int):
        for dataset in (trained_on, tested_on):
            if dataset.id2label is None:
                raise ValueError("--classification_split needs labels: name the column with --label_column.")
        self.trained_on, self.tested_on = trained_on, tested_on
        self.split, self.seed, self.batch_size = split, seed, batch_size
        self._real, self._test, self._baselines = None, None, {}

    def __call__(self, context: Context, samples: torch.Tensor, labels: list[int], id2label: dict[int, str]) -> dict:
        """The scores of a pipeline's samples and of real images.

        Args:
            context (`Context`): the processes that read the real images; each gets the same scores.
            samples (`torch.Tensor` of shape (N, C, H, W)): uint8, of all processes.
            labels (`list[int]`): the class that each was made for.
            id2label (`dict[int, str]`): the pipeline's classes, which are matched with those of the images by name.

        Returns:
            `dict`: `cas` for the classifier that was trained on samples, `cas_per_class`, and `cas_real` for the one
            that was trained on real images; `provenance` says how.
        """
        if self._test is None:
            self._test = self._read(context, self.tested_on)
            self._real = self._read(context, self.trained_on)
        own_ids = match_class_ids(id2label, self.tested_on.id2label)
        of_samples = classification_accuracy_score(
            samples, torch.tensor([own_ids[label] for label in labels]), *self._test
        )
        names = self.tested_on.id2label
        return {
            "cas": of_samples["accuracy"],
            "cas_per_class": {names[label]: value for label, value in of_samples["accuracy_per_class"].items()},
            "cas_real": self._baseline(len(samples)),
            "provenance": {
                "cas_classifier": CLASSIFIER,
                "cas_split": self.split,
                "cas_num_tested": len(self._test[0]),
                "cas_num_real": min(len(samples), len(self._real[0])),
                "cas_seed": self.seed,
            },
        }

    def _baseline(self, count: int) -> float:
        """The accuracy after training on at most `count` real images, chosen at random."""
        if count not in self._baselines:
            images, labels = self._real
            chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(self.seed))[:count]
            scores = classification_accuracy_score(images[chosen], labels[chosen], *self._test)
            self._baselines[count] = scores["accuracy"]
        return self._baselines[count]

    def _read(self, context: Context, dataset: ImageDataset) -> tuple[torch.Tensor, torch.Tensor]:
        batches = list(dataset.reference_batches(self.batch_size, **context.share))
        return tuple(
            context.gather_rows([batch[name] for batch in batches]) for name in ("pixel_values", "class_labels")
        )
