"""Measures of a diffusion prior: whether the embeddings that it makes are those of images."""

import torch
import torch.nn.functional as F

from diffusers_ext.data import ImageDataset
from diffusers_ext.data.randomness import derive_seed
from diffusers_ext.metrics import linear_probe_accuracy
from diffusers_ext.pixels import to_pixel_values
from diffusers_ext.training.loop.context import Context
from diffusers_ext.training.loop.sampling import Generation
from diffusers_ext.training.text_and_image.frozen_clip import FrozenCLIP


class PriorEvaluator:
    """Compares the embeddings that a prior makes of captions with the embeddings of their images.

    Args:
        dataset (`ImageDataset`): the images to measure on, with captions; with labels for the accuracy.
        probe_dataset (`ImageDataset`): the images that the linear probe is fitted on.
        clip (`FrozenCLIP`): embeds images and captions.
        num_images (`int`): how many images of each set are used at most.
        batch_size (`int`): what a process embeds or samples at once.
        split (`str`): the name of the split of `dataset`, reported beside the values.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        probe_dataset: ImageDataset,
        clip: FrozenCLIP,
        *,
        num_images: int,
        batch_size: int,
        split: str,
    ):
        self.dataset, self.probe_dataset, self.clip = dataset, probe_dataset, clip
        self.num_images, self.batch_size, self.split = num_images, batch_size, split

    def __call__(self, generate: Generation, guidance_scales: list[float]) -> list[dict]:
        """A row of values for each scale.

        Returns:
            `list[dict]`: `cosine_to_image`, the mean cosine of a sampled embedding and that of the caption's image;
            `cosine_of_text`, the same for the embedding of the caption itself; `relative_std`, the standard deviation
            of sampled embeddings over that of images, the mean over the dimensions; and where there are labels
            `accuracy`, how often a linear probe on embeddings of images finds the label of the caption, beside its
            `accuracy_on_images`.
        """
        context = generate.context
        images, captions, labels = self.image_embeds(self.dataset, context, self.num_images)
        prompts = [self.dataset.captions[index] for index in captions.tolist()]
        own = range(context.process_index, len(prompts), context.num_processes)
        texts = context.gather_rows([self.clip.prompt_embeds([prompts[i] for i in own]).embeds])
        common = {"cosine_of_text": F.cosine_similarity(texts, images).mean().item()}
        probe = None
        if labels is not None:
            probe = self.image_embeds(self.probe_dataset, context, self.num_images)
            common["accuracy_on_images"] = linear_probe_accuracy(probe[0], probe[2], images, labels)
        rows = []
        for scale in guidance_scales:
            sampled = context.gather_rows([self.sample(generate, [prompts[i] for i in own], scale, own)])
            row = {
                "guidance_scale": scale,
                "cosine_to_image": F.cosine_similarity(sampled, images).mean().item(),
                "relative_std": (sampled.std(dim=0) / images.std(dim=0)).mean().item(),
            }
            if probe is not None:
                row["accuracy"] = linear_probe_accuracy(probe[0], probe[2], sampled, labels)
            rows.append({**row, **common, "provenance": {"split": self.split, "num_images": len(images)}})
        return rows

    def sample(self, generate: Generation, prompts: list[str], guidance_scale: float, rows=None) -> torch.Tensor:
        """An embedding (N, D) for each prompt; that of row i depends only on the seed and i."""
        rows, parts = range(len(prompts)) if rows is None else rows, []
        for start in range(0, len(prompts), self.batch_size):
            seeds = [derive_seed(generate.seed, "sample", row) for row in rows[start : start + self.batch_size]]
            generators = [torch.Generator().manual_seed(seed) for seed in seeds]
            part = prompts[start : start + self.batch_size]
            parts.append(generate.pipeline(part, guidance_scale=guidance_scale, generator=generators).image_embeds)
        return torch.cat(parts)

    def embed_bytes(self, pixels: torch.Tensor) -> torch.Tensor:
        """The embeddings (N, D) of images, uint8 (N, C, H, W)."""
        return self.clip.image_embeds(to_pixel_values(pixels.to(self.clip.image_encoder.device)))

    def image_embeds(
        self, dataset: ImageDataset, context: Context, limit: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """The embeddings (N, D), the ids of the first captions, and the labels of the first `limit` images."""
        images, captions, labels = [], [], []
        for batch in dataset.reference_batches(self.batch_size, limit=limit, **context.share):
            images.append(self.embed_bytes(batch["pixel_values"]))
            captions.append(batch["caption_ids"].to(context.device))
            if "class_labels" in batch:
                labels.append(batch["class_labels"].to(context.device))
        gathered = context.gather_rows(images), context.gather_rows(captions)
        return *gathered, (context.gather_rows(labels) if labels else None)
