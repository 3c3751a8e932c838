"""Conditions: functions that compute the control images of ControlNets from the images of a training batch."""

from diffusers_ext.data.conditions.canny import canny as canny
from diffusers_ext.data.conditions.registry import (
    CONDITIONS as CONDITIONS,
    IMAGE_CONDITIONS as IMAGE_CONDITIONS,
    LABEL_MAP_CONDITIONS as LABEL_MAP_CONDITIONS,
    describe_conditions as describe_conditions,
    load_condition as load_condition,
)
from diffusers_ext.data.conditions.segmentation import segmentation as segmentation
from diffusers_ext.data.conditions.simplified import (
    blur as blur,
    grayscale as grayscale,
    low_resolution as low_resolution,
)
from diffusers_ext.data.conditions.soft_edges import soft_edges as soft_edges
from diffusers_ext.data.label_colors import default_palette as default_palette
