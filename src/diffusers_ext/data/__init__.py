"""Where images come from, and what is done to them.

Data sets are endless, reproducible streams of batches (`load_image_dataset`); restoration tasks are functions that
degrade a batch (`load_corruptions`), and control images are made by others (`load_condition`).
"""

from diffusers_ext.data.conditions import CONDITIONS, describe_conditions, load_condition
from diffusers_ext.data.corruptions import CORRUPTIONS, Corruption, describe_corruptions, load_corruptions
from diffusers_ext.data.decoding import UnreadableImagesError, decode_image
from diffusers_ext.data.image_dataset import ImageDataset
from diffusers_ext.data.loading import load_image_dataset
from diffusers_ext.data.randomness import derive_seed


__all__ = [
    "CONDITIONS",
    "CORRUPTIONS",
    "Corruption",
    "ImageDataset",
    "UnreadableImagesError",
    "decode_image",
    "derive_seed",
    "describe_conditions",
    "describe_corruptions",
    "load_condition",
    "load_corruptions",
    "load_image_dataset",
]
