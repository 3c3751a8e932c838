"""Original checkpoints in, classes of this package or of diffusers out: `python -m diffusers_ext.converters`."""

from diffusers_ext.converters.autoencoders import convert_vqgan
from diffusers_ext.converters.classifiers import convert_guided_diffusion_classifier, convert_mnist_lenet
from diffusers_ext.converters.folders import convert_checkpoint
from diffusers_ext.converters.gans import convert_dcgan, convert_mlp_gan
from diffusers_ext.converters.sr3 import convert_sr3
from diffusers_ext.converters.translation import (
    convert_patch_discriminator,
    convert_resnet_generator,
    convert_translation_network,
    convert_unet_generator,
)
from diffusers_ext.converters.unets import (
    convert_guided_diffusion,
    convert_improved_diffusion,
    convert_latent_diffusion,
    convert_palette,
)
from diffusers_ext.converters.vaes import (
    convert_disentangling_vae,
    convert_mnist_mlp_vae,
    convert_pythae,
    convert_pytorch_vae,
)


__all__ = [
    "convert_checkpoint",
    "convert_dcgan",
    "convert_disentangling_vae",
    "convert_guided_diffusion",
    "convert_guided_diffusion_classifier",
    "convert_improved_diffusion",
    "convert_latent_diffusion",
    "convert_mlp_gan",
    "convert_mnist_lenet",
    "convert_mnist_mlp_vae",
    "convert_palette",
    "convert_patch_discriminator",
    "convert_pythae",
    "convert_pytorch_vae",
    "convert_resnet_generator",
    "convert_sr3",
    "convert_translation_network",
    "convert_unet_generator",
    "convert_vqgan",
]
