# Written by tests/write_stubs.py: the functions of all families, for type checkers and `diffusers_ext`.

from .checkpoint_to_folder import convert_checkpoint as convert_checkpoint
from .compvis.first_stage import (
    convert_latent_diffusion_first_stage as convert_latent_diffusion_first_stage,
    convert_vqgan as convert_vqgan,
)
from .compvis.latent_unet import convert_latent_diffusion as convert_latent_diffusion
from .csinva.mnist_lenet import convert_mnist_lenet as convert_mnist_lenet
from .csinva.mnist_mlp_gan import convert_mlp_gan as convert_mlp_gan
from .csinva.mnist_mlp_vae import convert_mnist_mlp_vae as convert_mnist_mlp_vae
from .disentangling_vae.network import convert_disentangling_vae as convert_disentangling_vae
from .facebook_dit.transformer import convert_dit as convert_dit
from .janspiry.palette_unet import convert_palette as convert_palette
from .janspiry.sr3_unet import convert_sr3 as convert_sr3
from .mmgeneration.progressive_gan import convert_progressive_gan as convert_progressive_gan
from .open_clip.clip import convert_open_clip as convert_open_clip
from .openai_clip.clip import convert_clip as convert_clip
from .openai_diffusion.noisy_classifier import (
    convert_guided_diffusion_classifier as convert_guided_diffusion_classifier,
)
from .openai_diffusion.pixel_unets import (
    convert_guided_diffusion as convert_guided_diffusion,
    convert_improved_diffusion as convert_improved_diffusion,
)
from .openai_glide.noised_clip import convert_glide_clip as convert_glide_clip
from .pixel_cnn_pp.network import convert_pixel_cnn_pp as convert_pixel_cnn_pp
from .pythae.network import convert_pythae as convert_pythae
from .pytorch_cyclegan_and_pix2pix.patch_discriminator import (
    convert_patch_discriminator as convert_patch_discriminator,
)
from .pytorch_cyclegan_and_pix2pix.resnet_generator import convert_resnet_generator as convert_resnet_generator
from .pytorch_cyclegan_and_pix2pix.translation_network import (
    convert_translation_network as convert_translation_network,
)
from .pytorch_cyclegan_and_pix2pix.unet_generator import convert_unet_generator as convert_unet_generator
from .pytorch_examples.dcgan import convert_dcgan as convert_dcgan
from .pytorch_vae.network import convert_pytorch_vae as convert_pytorch_vae
from .rosinality.stylegan2 import convert_stylegan2_rosinality as convert_stylegan2_rosinality
from .stylegan2_ada.networks import convert_stylegan2_ada as convert_stylegan2_ada
from .uvadlc_notebooks.gated_pixelcnn import convert_uvadlc_pixelcnn as convert_uvadlc_pixelcnn
