from diffusers_ext.models.modeling_adm_unet import ADMUNet2DModel
from diffusers_ext.models.modeling_noisy_classifier import NoisyClassifier
from diffusers_ext.registration import register


register()

__all__ = ["ADMUNet2DModel", "NoisyClassifier"]
