"""Pipelines: what users run.

Each class here is the class of a `pipeline_*.py` file with [`PublishableMixin`], so that saved pipelines load with and
without this package. The other files are parts that several pipelines share.
"""

from diffusers_ext.hub import PublishableMixin
from diffusers_ext.pipelines import (
    pipeline_attribute_translation,
    pipeline_autoencoder,
    pipeline_autoregressive,
    pipeline_cascade,
    pipeline_class_conditional,
    pipeline_density,
    pipeline_energy,
    pipeline_gan,
    pipeline_gan_inversion,
    pipeline_image_translation,
    pipeline_maskgit,
    pipeline_palette,
    pipeline_restoration,
    pipeline_semantic_synthesis,
    pipeline_singan,
    pipeline_sketch,
    pipeline_style_transfer,
    pipeline_styleclip,
    pipeline_styleclip_mapper,
    pipeline_text_to_image_pixel,
    pipeline_text_to_video,
    pipeline_tokens_to_image,
    pipeline_unclip_pixel,
    pipeline_unclip_prior,
    pipeline_video_gan,
)
from diffusers_ext.registration import register


register()


class AttributeTranslationPipeline(PublishableMixin, pipeline_attribute_translation.AttributeTranslationPipeline): ...


class AutoencoderPipeline(PublishableMixin, pipeline_autoencoder.AutoencoderPipeline): ...


class AutoregressivePipeline(PublishableMixin, pipeline_autoregressive.AutoregressivePipeline): ...


class CascadePipeline(PublishableMixin, pipeline_cascade.CascadePipeline): ...


class ClassConditionalPipeline(PublishableMixin, pipeline_class_conditional.ClassConditionalPipeline): ...


class DensityPipeline(PublishableMixin, pipeline_density.DensityPipeline): ...


class EnergyPipeline(PublishableMixin, pipeline_energy.EnergyPipeline): ...


class GANPipeline(PublishableMixin, pipeline_gan.GANPipeline): ...


class GANInversionPipeline(PublishableMixin, pipeline_gan_inversion.GANInversionPipeline): ...


class ImageTranslationPipeline(PublishableMixin, pipeline_image_translation.ImageTranslationPipeline): ...


class MaskGITPipeline(PublishableMixin, pipeline_maskgit.MaskGITPipeline): ...


class PalettePipeline(PublishableMixin, pipeline_palette.PalettePipeline): ...


class RestorationPipeline(PublishableMixin, pipeline_restoration.RestorationPipeline): ...


class SketchPipeline(PublishableMixin, pipeline_sketch.SketchPipeline): ...


class SinGANPipeline(PublishableMixin, pipeline_singan.SinGANPipeline): ...


class SemanticSynthesisPipeline(PublishableMixin, pipeline_semantic_synthesis.SemanticSynthesisPipeline): ...


class StyleTransferPipeline(PublishableMixin, pipeline_style_transfer.StyleTransferPipeline): ...


class StyleCLIPPipeline(PublishableMixin, pipeline_styleclip.StyleCLIPPipeline): ...


class StyleCLIPMapperPipeline(PublishableMixin, pipeline_styleclip_mapper.StyleCLIPMapperPipeline): ...


class TextToVideoPixelPipeline(PublishableMixin, pipeline_text_to_video.TextToVideoPixelPipeline): ...


class TokensToImagePipeline(PublishableMixin, pipeline_tokens_to_image.TokensToImagePipeline): ...


class TextToImagePixelPipeline(PublishableMixin, pipeline_text_to_image_pixel.TextToImagePixelPipeline): ...


class UnCLIPPixelPipeline(PublishableMixin, pipeline_unclip_pixel.UnCLIPPixelPipeline): ...


class UnCLIPPriorPipeline(PublishableMixin, pipeline_unclip_prior.UnCLIPPriorPipeline): ...


class VideoGANPipeline(PublishableMixin, pipeline_video_gan.VideoGANPipeline): ...
