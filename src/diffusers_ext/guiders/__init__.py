"""Guiders that Diffusers does not have, for every pipeline that takes a guider: one file each, `guiding_<name>.py`."""

from diffusers_ext.guiders.guiding_classifier import ClassifierGuidance as ClassifierGuidance
from diffusers_ext.guiders.guiding_clip import CLIPGuidance as CLIPGuidance
from diffusers_ext.registration import register


register()
