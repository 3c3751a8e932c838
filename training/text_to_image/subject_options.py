"""Options of the recipes that learn from a few images of a subject, or of several."""

from dataclasses import dataclass

from diffusers_ext.data.image_dataset import ImageDataset
from diffusers_ext.data.subjects import Subject, load_subjects
from diffusers_ext.training.loop.configuration import DataConfig


@dataclass
class SubjectsConfig(DataConfig):
    """Takes the images of subjects for the data set, in the place of a column of captions."""

    def __post_init__(self):
        super().__post_init__()
        self.require(not self.streaming, "--streaming is not for the few images of a subject")
        self.require(
            self.conditioning_image_column is None, "--conditioning_image_column is not for the images of a subject"
        )

    def image_subjects(self) -> list[Subject]:
        """The subjects, and where their images are."""
        raise NotImplementedError

    def load_dataset(self, size, channels, center_crop=False, random_flip=False, **options) -> ImageDataset:
        return load_subjects(
            self.image_subjects(),
            resolution=size,
            channels=channels,
            center_crop=center_crop,
            random_flip=random_flip,
            skip_unreadable_images=self.skip_unreadable_images,
            cache_images=self.cache_images,
            split=self.dataset_split,
            image_column=self.image_column,
            cache_dir=self.cache_dir,
            **options,
        )
