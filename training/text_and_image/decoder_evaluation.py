"""Measures of a decoder that draws images from their CLIP embeddings."""

import torch
import torch.nn.functional as F

from diffusers_ext.data import ImageDataset
from diffusers_ext.training.loop.sampling import Generation


class DecoderEvaluator:
    """Measures whether the images that a decoder draws have the embeddings that it was given.

    Args:
        dataset (`ImageDataset`): the images to vary, with captions.
        num_images (`int`): how many of them are used at most.
        split (`str`): the name of their split, reported beside the values.
        has_prior (`bool`): whether the pipeline draws images of captions, too.
    """

    def __init__(self, dataset: ImageDataset, *, num_images: int, split: str, has_prior: bool):
        self.dataset, self.split, self.has_prior = dataset, split, has_prior
        self.num_images = min(num_images, dataset.num_examples)

    def __call__(self, generate: Generation, guidance_scales: list[float]) -> list[dict]:
        """A row of values for each scale.

        Returns:
            `list[dict]`: `variation_cosine`, the mean cosine between the embeddings of an image and of its variation;
            and with a prior `prompt_cosine`, that between the embeddings of an image which is drawn of a caption and
            of the image that has this caption.
        """
        images, captions = self.images(self.num_images)
        given = self.embeds(generate, images)
        rows = []
        for scale in guidance_scales:
            drawn = {"variation_cosine": self.variations(generate, images, scale)}
            if self.has_prior:
                drawn["prompt_cosine"] = generate.images(
                    len(captions), per_image={"prompt": captions}, guidance_scale=scale
                )
            row = {"guidance_scale": scale}
            for name, pixels in drawn.items():
                row[name] = F.cosine_similarity(self.embeds(generate, pixels), given).mean().item()
            rows.append({**row, "provenance": {"split": self.split, "num_images": len(images)}})
        return rows

    def images(self, count: int) -> tuple[torch.Tensor, list[str]]:
        """The first images, uint8 (N, C, H, W), and their first captions."""
        batches = list(self.dataset.reference_batches(count, limit=count))
        ids = torch.cat([batch["caption_ids"] for batch in batches]).tolist()
        return torch.cat([batch["pixel_values"] for batch in batches]), [self.dataset.captions[index] for index in ids]

    def variations(self, generate: Generation, images: torch.Tensor, guidance_scale: float) -> torch.Tensor:
        """A variation of each image, uint8 (N, C, H, W)."""
        pictures = {"image": list(images)}
        return generate.images(len(images), per_image=pictures, guidance_scale=guidance_scale)

    def embeds(self, generate: Generation, images: torch.Tensor) -> torch.Tensor:
        """The embeddings (N, D) of images, uint8 (N, C, H, W), on the CPU."""
        parts = images.split(generate.batch_size)
        return torch.cat([generate.pipeline.embed_images(list(part)).float().cpu() for part in parts])
