from diffusers_ext.guiders.guiding_classifier import ClassifierGuidance
from diffusers_ext.registration import register


register()

__all__ = ["ClassifierGuidance"]
