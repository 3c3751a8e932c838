"""Training on the few images of a subject, or of several, instead of a data set with captions."""

from __future__ import annotations

from dataclasses import dataclass

from diffusers_ext.data import ImageDataset
from diffusers_ext.data.subjects import Subject, load_subjects
from diffusers_ext.training.loop.configuration import DataConfig
from diffusers_ext.training.text_to_image.text_to_image_recipe import TextToImageRecipe


class SubjectsRecipe(TextToImageRecipe):
    """A recipe that trains on images of its subjects, each with the prompt of its subject."""

    on_host = ("caption_ids", "class_labels")  # the numbers of the subjects

    def image_subjects(self) -> list[Subject]:
        """The subjects, and where their images are."""
        raise NotImplementedError

    def load_dataset(self) -> ImageDataset:
        config, options = self.config, self.image_options()
        return load_subjects(
            self.image_subjects(),
            resolution=options.pop("size"),
            **options,
            skip_unreadable_images=config.skip_unreadable_images,
            max_image_pixels=config.max_image_pixels,
            cache_images=config.cache_images,
            verify_images=config.verify_images,
            split=config.dataset_split,
            image_column=config.image_column,
            cache_dir=config.cache_dir,
        )


@dataclass
class SubjectsConfig(DataConfig):
    """Options of recipes that train on the images of subjects."""

    def __post_init__(self):
        super().__post_init__()
        self.require(not self.streaming, "--streaming is not for the few images of a subject")
