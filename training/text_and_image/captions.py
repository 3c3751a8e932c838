"""The captions of images, which recipes read and now and then hide."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from diffusers_ext.data import ImageDataset
from diffusers_ext.training.loop.configuration import ValidationConfig, option
from diffusers_ext.training.loop.draws import Draw


def draw_captions(captions: list[str], batch: dict[str, torch.Tensor], hidden_share: float, draw: Draw) -> list[str]:
    """The caption of each image of a batch, or the empty text where it is hidden."""
    chosen = [captions[index] for index in batch["caption_ids"].tolist()]
    hidden = (draw.host.uniform() < hidden_share).tolist()
    return ["" if hide else caption for caption, hide in zip(chosen, hidden, strict=True)]


@dataclass
class CaptionedImagesConfig(ValidationConfig):
    """Images with captions, and some of them for measures."""

    caption_column: str = option(
        "text",
        help="The column with one caption or several for each image. A folder of images has its captions in a "
        "metadata file, or in text files beside the images.",
        group="data",
    )

    def load_dataset(self, size: tuple[int, int], channels: int, *augmentations, **options) -> ImageDataset:
        """The images that these options name, with their captions."""
        return super().load_dataset(size, channels, *augmentations, caption_column=self.caption_column, **options)
