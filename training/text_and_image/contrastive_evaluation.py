"""Measures of networks that embed images and texts: zero-shot accuracy, retrieval, CLIP score and a linear probe."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from diffusers_ext.data import ImageDataset
from diffusers_ext.metrics import linear_probe_accuracy, retrieval_recall
from diffusers_ext.training.loop.context import Context


# Unit embeddings (N, D) of uint8 images (N, C, H, W) at these places of the data set; and those (M, D) of texts.
EmbedImages = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]
EmbedTexts = Callable[[list[str]], torch.Tensor]
RANKS = (1, 5)
TEXTS_AT_ONCE = 500


class ContrastiveEvaluator:
    """Measures how well images and texts are embedded.

    Args:
        dataset (`ImageDataset`): the images to measure on, with captions; with labels for accuracies.
        probe_dataset (`ImageDataset`): the images that the linear probe is fitted on.
        templates (`list[str]`): phrases for a class, with `{}` in place of its name. The embedding of a class is the
            mean over the phrases (Radford et al. 2021, section 3.1.4).
        num_images (`int`): how many images of each set are used at most.
        batch_size (`int`): the images that a process embeds at once.
        split (`str`): the name of the split of `dataset`, reported beside the values.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        probe_dataset: ImageDataset,
        *,
        templates: list[str],
        num_images: int,
        batch_size: int,
        split: str,
    ):
        self.dataset, self.probe_dataset, self.templates = dataset, probe_dataset, templates
        self.num_images, self.batch_size, self.split = num_images, batch_size, split

    def __call__(self, embed_images: EmbedImages, embed_texts: EmbedTexts, context: Context) -> dict:
        """A row of values.

        Returns:
            `dict`: `image_to_text_recall_at_k` and `text_to_image_recall_at_k`, where an equal caption of another
            image is right too; `clip_score`, 100 times the mean cosine of an image and its caption, negative ones
            counted as 0 (Hessel et al. 2021, without their factor of 2.5); and where there are labels
            `zero_shot_accuracy` and `linear_probe_accuracy`.
        """
        images, captions, labels = self._embedded(self.dataset, embed_images, context)
        own, inverse = captions.unique(return_inverse=True)
        texts = embed_in_parts(embed_texts, [self.dataset.captions[index] for index in own.tolist()])
        similarities, matches = images @ texts.T, inverse[:, None] == torch.arange(len(own))
        row = {}
        for k in RANKS:
            if k <= min(similarities.shape):
                row[f"image_to_text_recall_at_{k}"] = retrieval_recall(similarities, matches, k)
                row[f"text_to_image_recall_at_{k}"] = retrieval_recall(similarities.T, matches.T, k)
        row["clip_score"] = 100 * similarities[matches].clamp(min=0).mean().item()
        if labels is not None:
            row["zero_shot_accuracy"] = self._zero_shot_accuracy(images, labels, embed_texts)
            probe_images, _, probe_labels = self._embedded(self.probe_dataset, embed_images, context)
            row["linear_probe_accuracy"] = linear_probe_accuracy(probe_images, probe_labels, images, labels)
        return {**row, "provenance": self.provenance(len(images))}

    def zero_shot(self, embed_images: EmbedImages, embed_texts: EmbedTexts, context: Context) -> float:
        """The zero-shot accuracy alone."""
        images, _, labels = self._embedded(self.dataset, embed_images, context)
        return self._zero_shot_accuracy(images, labels, embed_texts)

    def provenance(self, num_images: int) -> dict:
        """How the values are computed."""
        return {"split": self.split, "num_images": num_images, "templates": self.templates}

    def best_images(
        self, captions: list[str], count: int, embed_images: EmbedImages, embed_texts: EmbedTexts, context: Context
    ) -> torch.Tensor:
        """The `count` images that fit each caption best, uint8 (len(captions) * count, C, H, W)."""
        batches = list(self.dataset.reference_batches(self.batch_size, limit=self.num_images))
        pixels = torch.cat([batch["pixel_values"] for batch in batches])
        images = torch.cat([embed_images(part, range(len(part))) for part in pixels.split(self.batch_size)]).cpu()
        found = (embed_in_parts(embed_texts, captions) @ images.T).topk(count, dim=1).indices
        return pixels[found.flatten()]

    def _embedded(
        self, dataset: ImageDataset, embed_images: EmbedImages, context: Context
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """The embeddings, the ids of the first captions, and the labels of all images."""
        images, captions, labels, seen = [], [], [], 0
        for batch in dataset.reference_batches(self.batch_size, limit=self.num_images, **context.share):
            count = len(batch["pixel_values"])
            rows = [context.process_index + context.num_processes * (seen + i) for i in range(count)]
            seen += count
            images.append(embed_images(batch["pixel_values"], rows))
            captions.append(batch["caption_ids"].to(context.device))
            if "class_labels" in batch:
                labels.append(batch["class_labels"].to(context.device))
        gathered = context.gather_rows(images), context.gather_rows(captions)
        return *gathered, (context.gather_rows(labels) if labels else None)

    def _zero_shot_accuracy(self, images: torch.Tensor, labels: torch.Tensor, embed_texts: EmbedTexts) -> float:
        names = list(self.dataset.id2label.values())
        by_template = [embed_texts([template.format(name) for name in names]).cpu() for template in self.templates]
        classes = F.normalize(torch.stack(by_template).mean(dim=0), dim=1)
        predicted = torch.tensor(list(self.dataset.id2label))[(images @ classes.T).argmax(dim=1)]
        return (predicted == labels).float().mean().item()


def embed_in_parts(embed_texts: EmbedTexts, texts: list[str]) -> torch.Tensor:
    """The embeddings of many texts on the CPU, some at a time."""
    parts = [texts[start : start + TEXTS_AT_ONCE] for start in range(0, len(texts), TEXTS_AT_ONCE)]
    return torch.cat([embed_texts(part).cpu() for part in parts])
