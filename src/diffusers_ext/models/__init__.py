from diffusers_ext.models.modeling_adm_unet import ADMUNet2DModel
from diffusers_ext.models.modeling_autoencoder_burgess import AutoencoderBurgess
from diffusers_ext.models.modeling_autoencoder_conv import AutoencoderConv
from diffusers_ext.models.modeling_autoencoder_mlp import AutoencoderMLP
from diffusers_ext.models.modeling_dcgan import DCGANDiscriminator, DCGANGenerator
from diffusers_ext.models.modeling_latent_discriminator import LatentDiscriminator
from diffusers_ext.models.modeling_lenet import LeNet
from diffusers_ext.models.modeling_mlp_gan import MLPDiscriminator, MLPGenerator
from diffusers_ext.models.modeling_noisy_classifier import NoisyClassifier
from diffusers_ext.models.modeling_patch_discriminator import MultiScalePatchDiscriminator, PatchDiscriminator
from diffusers_ext.models.modeling_resnet_generator import ResnetGenerator
from diffusers_ext.models.modeling_unet_generator import UNetGenerator
from diffusers_ext.models.modeling_vqvae import VQVAEModel
from diffusers_ext.models.modeling_vqvae2 import VQVAE2Model
from diffusers_ext.registration import register


register()

__all__ = [
    "ADMUNet2DModel",
    "AutoencoderBurgess",
    "AutoencoderConv",
    "AutoencoderMLP",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "LatentDiscriminator",
    "LeNet",
    "MLPDiscriminator",
    "MLPGenerator",
    "MultiScalePatchDiscriminator",
    "NoisyClassifier",
    "PatchDiscriminator",
    "ResnetGenerator",
    "UNetGenerator",
    "VQVAE2Model",
    "VQVAEModel",
]
