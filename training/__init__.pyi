from .diffusion.timestep_sampling import LossSecondMoment as LossSecondMoment
from .loop.configuration import TrainingConfig as TrainingConfig
from .loop.draws import Draw as Draw
from .loop.ema import EMA as EMA
from .loop.posthoc_ema import PowerEMA as PowerEMA, Snapshots as Snapshots
from .loop.recipe import Recipe as Recipe
from .loop.trainer import NonFiniteLossError as NonFiniteLossError, Trainer as Trainer
from .reconstruct_ema import reconstruct_ema as reconstruct_ema
from .text_and_image.film_diffusion import (
    FilmDiffusionConfig as FilmDiffusionConfig,
    FilmDiffusionRecipe as FilmDiffusionRecipe,
)
from .text_and_image.text_diffusion import (
    TextDiffusionConfig as TextDiffusionConfig,
    TextDiffusionRecipe as TextDiffusionRecipe,
)
from .text_to_image.base_models import load_base_model as load_base_model
from .text_to_image.text_to_image_recipe import (
    TextToImageConfig as TextToImageConfig,
    TextToImageRecipe as TextToImageRecipe,
)
from .train_attribute_translation import (
    AttributeTranslationConfig as AttributeTranslationConfig,
    AttributeTranslationRecipe as AttributeTranslationRecipe,
)
from .train_autoencoder import AutoencoderConfig as AutoencoderConfig, AutoencoderRecipe as AutoencoderRecipe
from .train_biggan import BigGANConfig as BigGANConfig, BigGANRecipe as BigGANRecipe
from .train_classifier import ClassifierConfig as ClassifierConfig, ClassifierRecipe as ClassifierRecipe
from .train_clip import CLIPConfig as CLIPConfig, CLIPRecipe as CLIPRecipe, NoisyCLIPRecipe as NoisyCLIPRecipe
from .train_controlnet import ControlNetConfig as ControlNetConfig, ControlNetRecipe as ControlNetRecipe
from .train_danet import DANetConfig as DANetConfig, DANetRecipe as DANetRecipe
from .train_density import DensityConfig as DensityConfig, DensityRecipe as DensityRecipe
from .train_diffusion import DiffusionConfig as DiffusionConfig, DiffusionRecipe as DiffusionRecipe
from .train_distillation import (
    DistillationConfig as DistillationConfig,
    DistillationRecipe as DistillationRecipe,
    distillation_recipe as distillation_recipe,
)
from .train_dreambooth import DreamBoothConfig as DreamBoothConfig, DreamBoothRecipe as DreamBoothRecipe
from .train_ebgan import EBGANConfig as EBGANConfig, EBGANRecipe as EBGANRecipe
from .train_energy import EnergyConfig as EnergyConfig, EnergyRecipe as EnergyRecipe
from .train_gan import GANConfig as GANConfig, GANRecipe as GANRecipe
from .train_hdr import HDRConfig as HDRConfig, HDRRecipe as HDRRecipe
from .train_image_tokens import (
    ImageTokenConfig as ImageTokenConfig,
    ImageTokenRecipe as ImageTokenRecipe,
    TextToTokensRecipe as TextToTokensRecipe,
)
from .train_inversion_encoder import (
    InversionEncoderConfig as InversionEncoderConfig,
    InversionEncoderRecipe as InversionEncoderRecipe,
)
from .train_latent_mapper import LatentMapperConfig as LatentMapperConfig, LatentMapperRecipe as LatentMapperRecipe
from .train_maskgit import MaskGITConfig as MaskGITConfig, MaskGITRecipe as MaskGITRecipe
from .train_multimodal_translation import (
    MultimodalConfig as MultimodalConfig,
    MultimodalRecipe as MultimodalRecipe,
)
from .train_palette import PaletteConfig as PaletteConfig, PaletteRecipe as PaletteRecipe
from .train_pixels import PixelConfig as PixelConfig, PixelRecipe as PixelRecipe
from .train_prior import PriorConfig as PriorConfig, PriorRecipe as PriorRecipe
from .train_progressive_gan import (
    ProgressiveGANConfig as ProgressiveGANConfig,
    ProgressiveGANRecipe as ProgressiveGANRecipe,
)
from .train_restoration import (
    RestorationRecipe as RestorationRecipe,
    RestorationTrainingConfig as RestorationTrainingConfig,
)
from .train_singan import SinGANConfig as SinGANConfig, SinGANRecipe as SinGANRecipe
from .train_sketches import SketchConfig as SketchConfig, SketchRecipe as SketchRecipe
from .train_spade import SPADEConfig as SPADEConfig, SPADERecipe as SPADERecipe
from .train_stylegan import StyleGANConfig as StyleGANConfig, StyleGANRecipe as StyleGANRecipe
from .train_text_to_image import FineTuningConfig as FineTuningConfig, FineTuningRecipe as FineTuningRecipe
from .train_textual_inversion import (
    TextualInversionConfig as TextualInversionConfig,
    TextualInversionRecipe as TextualInversionRecipe,
)
from .train_translation import TranslationConfig as TranslationConfig, TranslationRecipe as TranslationRecipe
from .train_unclip_decoder import (
    UnCLIPDecoderConfig as UnCLIPDecoderConfig,
    UnCLIPDecoderRecipe as UnCLIPDecoderRecipe,
)
from .train_video import VideoConfig as VideoConfig, VideoRecipe as VideoRecipe
from .train_video_gan import VideoGANConfig as VideoGANConfig, VideoGANRecipe as VideoGANRecipe
from .train_video_super_resolution import (
    VideoSuperResolutionConfig as VideoSuperResolutionConfig,
    VideoSuperResolutionRecipe as VideoSuperResolutionRecipe,
)
