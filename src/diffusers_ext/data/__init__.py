"""Where images come from: data sets as endless, reproducible streams of batches."""

from diffusers_ext.data.decoding import UnreadableImagesError, decode_image
from diffusers_ext.data.image_dataset import ImageDataset
from diffusers_ext.data.loading import load_image_dataset
from diffusers_ext.data.randomness import derive_seed


__all__ = ["ImageDataset", "UnreadableImagesError", "decode_image", "derive_seed", "load_image_dataset"]
