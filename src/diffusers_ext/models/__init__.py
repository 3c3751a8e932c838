"""Networks that Diffusers does not have: one file each, `modeling_<name>.py`, and the parts that they share.

A saved network loads with diffusers alone, because publishing adds its file to the repository.
"""

from diffusers_ext.models.modeling_adain import AdaINStyleNet as AdaINStyleNet
from diffusers_ext.models.modeling_adm_unet import ADMUNet2DModel as ADMUNet2DModel
from diffusers_ext.models.modeling_autoencoder_burgess import AutoencoderBurgess as AutoencoderBurgess
from diffusers_ext.models.modeling_autoencoder_conv import AutoencoderConv as AutoencoderConv
from diffusers_ext.models.modeling_autoencoder_mlp import AutoencoderMLP as AutoencoderMLP
from diffusers_ext.models.modeling_biggan import (
    BigGANDiscriminator as BigGANDiscriminator,
    BigGANGenerator as BigGANGenerator,
)
from diffusers_ext.models.modeling_class_embedder import ClassEmbedder as ClassEmbedder
from diffusers_ext.models.modeling_clip_resnet import CLIPResNetModel as CLIPResNetModel
from diffusers_ext.models.modeling_context_encoder import ContextEncoder as ContextEncoder
from diffusers_ext.models.modeling_danet import DANetCritic as DANetCritic, DANetUNet as DANetUNet
from diffusers_ext.models.modeling_dcgan import (
    DCGANDiscriminator as DCGANDiscriminator,
    DCGANGenerator as DCGANGenerator,
)
from diffusers_ext.models.modeling_deepdeblur import DeepDeblurNet as DeepDeblurNet
from diffusers_ext.models.modeling_discrete_vae import DiscreteVAE as DiscreteVAE
from diffusers_ext.models.modeling_dvd_gan import (
    DVDGANGenerator as DVDGANGenerator,
    DVDGANSpatialDiscriminator as DVDGANSpatialDiscriminator,
    DVDGANTemporalDiscriminator as DVDGANTemporalDiscriminator,
)
from diffusers_ext.models.modeling_ebgan import (
    EBGANDiscriminator as EBGANDiscriminator,
    EBGANGenerator as EBGANGenerator,
)
from diffusers_ext.models.modeling_energy_conv import EnergyConvNet as EnergyConvNet
from diffusers_ext.models.modeling_energy_mlp import EnergyMLP as EnergyMLP
from diffusers_ext.models.modeling_energy_resnet import EnergyResNet as EnergyResNet
from diffusers_ext.models.modeling_energy_wide_resnet import EnergyWideResNet as EnergyWideResNet
from diffusers_ext.models.modeling_exact_dit import ExactDiTTransformer2DModel as ExactDiTTransformer2DModel
from diffusers_ext.models.modeling_fast_style import FastStyleNet as FastStyleNet
from diffusers_ext.models.modeling_fpn_mobilenet import FPNMobileNet as FPNMobileNet
from diffusers_ext.models.modeling_gaussian_mixture import GaussianMixtureModel as GaussianMixtureModel
from diffusers_ext.models.modeling_glide_text import GlideTextModel as GlideTextModel
from diffusers_ext.models.modeling_imagen_unet import ImagenUNet as ImagenUNet
from diffusers_ext.models.modeling_imagen_video_unet import ImagenVideoUNet as ImagenVideoUNet
from diffusers_ext.models.modeling_kernel_density import KernelDensityModel as KernelDensityModel
from diffusers_ext.models.modeling_latent_discriminator import LatentDiscriminator as LatentDiscriminator
from diffusers_ext.models.modeling_latent_mapper import LatentMapper as LatentMapper
from diffusers_ext.models.modeling_lenet import LeNet as LeNet
from diffusers_ext.models.modeling_mlp_gan import MLPDiscriminator as MLPDiscriminator, MLPGenerator as MLPGenerator
from diffusers_ext.models.modeling_msrresnet import MSRResNet as MSRResNet
from diffusers_ext.models.modeling_multi_query_prior import (
    MultiQueryPriorTransformer as MultiQueryPriorTransformer,
)
from diffusers_ext.models.modeling_noisy_classifier import NoisyClassifier as NoisyClassifier
from diffusers_ext.models.modeling_noisy_clip import NoisyCLIPModel as NoisyCLIPModel
from diffusers_ext.models.modeling_patch_discriminator import (
    MultiScalePatchDiscriminator as MultiScalePatchDiscriminator,
    PatchDiscriminator as PatchDiscriminator,
)
from diffusers_ext.models.modeling_pixel_transformer import PixelTransformer as PixelTransformer
from diffusers_ext.models.modeling_pixelcnn import GatedPixelCNN as GatedPixelCNN, PixelCNN as PixelCNN
from diffusers_ext.models.modeling_pixelcnn_pp import PixelCNNPlusPlus as PixelCNNPlusPlus
from diffusers_ext.models.modeling_progressive_gan import (
    ProgressiveDiscriminator as ProgressiveDiscriminator,
    ProgressiveGenerator as ProgressiveGenerator,
)
from diffusers_ext.models.modeling_resnet_generator import ResnetGenerator as ResnetGenerator
from diffusers_ext.models.modeling_rrdb import RRDBNet as RRDBNet
from diffusers_ext.models.modeling_singan import (
    SinGANDiscriminator as SinGANDiscriminator,
    SinGANGenerator as SinGANGenerator,
    SinGANScale as SinGANScale,
)
from diffusers_ext.models.modeling_sketch_rnn import SketchRNN as SketchRNN
from diffusers_ext.models.modeling_spade import SPADEEncoder as SPADEEncoder, SPADEGenerator as SPADEGenerator
from diffusers_ext.models.modeling_spatial_rescaler import SpatialRescaler as SpatialRescaler
from diffusers_ext.models.modeling_srgan_discriminator import SRGANDiscriminator as SRGANDiscriminator
from diffusers_ext.models.modeling_srresnet import SRResNet as SRResNet
from diffusers_ext.models.modeling_stargan import (
    StarGANDiscriminator as StarGANDiscriminator,
    StarGANGenerator as StarGANGenerator,
)
from diffusers_ext.models.modeling_style_encoder import StyleEncoder as StyleEncoder
from diffusers_ext.models.modeling_stylegan import StyleGANGenerator as StyleGANGenerator
from diffusers_ext.models.modeling_stylegan2 import (
    StyleGAN2Discriminator as StyleGAN2Discriminator,
    StyleGAN2Generator as StyleGAN2Generator,
)
from diffusers_ext.models.modeling_unclip_conditioner import UnCLIPConditioner as UnCLIPConditioner
from diffusers_ext.models.modeling_unet_generator import UNetGenerator as UNetGenerator
from diffusers_ext.models.modeling_vgg import VGG as VGG
from diffusers_ext.models.modeling_vqvae import VQVAEModel as VQVAEModel
from diffusers_ext.models.modeling_vqvae2 import VQVAE2Model as VQVAE2Model
from diffusers_ext.registration import register


register()
