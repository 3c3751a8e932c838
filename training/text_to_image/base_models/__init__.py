"""Text-to-image pipelines to build on, with one adapter per family: the only code that knows how families differ."""

from diffusers_ext.training.text_to_image.base_models.base_model import BaseModel
from diffusers_ext.training.text_to_image.base_models.families import load_base_model, take_apart


__all__ = ["BaseModel", "load_base_model", "take_apart"]
