"""Control images for ControlNets, made of the images of a batch while training."""

from diffusers_ext.data.conditions.canny import canny
from diffusers_ext.data.conditions.edges import soft_edges
from diffusers_ext.data.conditions.registry import (
    CONDITIONS,
    IMAGE_CONDITIONS,
    LABEL_MAP_CONDITIONS,
    describe_conditions,
    load_condition,
)
from diffusers_ext.data.conditions.segmentation import default_palette, segmentation
from diffusers_ext.data.conditions.simpler import blur, grayscale, low_resolution


__all__ = [
    "CONDITIONS",
    "IMAGE_CONDITIONS",
    "LABEL_MAP_CONDITIONS",
    "blur",
    "canny",
    "default_palette",
    "describe_conditions",
    "grayscale",
    "load_condition",
    "low_resolution",
    "segmentation",
    "soft_edges",
]
