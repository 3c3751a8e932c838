from diffusers_ext.hub import PublishableMixin
from diffusers_ext.pipelines import (
    pipeline_autoencoder,
    pipeline_cascade,
    pipeline_class_conditional,
    pipeline_gan,
    pipeline_image_translation,
    pipeline_palette,
)
from diffusers_ext.registration import register


register()


class AutoencoderPipeline(PublishableMixin, pipeline_autoencoder.AutoencoderPipeline):
    __doc__ = pipeline_autoencoder.AutoencoderPipeline.__doc__


class CascadePipeline(PublishableMixin, pipeline_cascade.CascadePipeline):
    __doc__ = pipeline_cascade.CascadePipeline.__doc__


class ClassConditionalPipeline(PublishableMixin, pipeline_class_conditional.ClassConditionalPipeline):
    __doc__ = pipeline_class_conditional.ClassConditionalPipeline.__doc__


class GANPipeline(PublishableMixin, pipeline_gan.GANPipeline):
    __doc__ = pipeline_gan.GANPipeline.__doc__


class ImageTranslationPipeline(PublishableMixin, pipeline_image_translation.ImageTranslationPipeline):
    __doc__ = pipeline_image_translation.ImageTranslationPipeline.__doc__


class PalettePipeline(PublishableMixin, pipeline_palette.PalettePipeline):
    __doc__ = pipeline_palette.PalettePipeline.__doc__


__all__ = [
    "AutoencoderPipeline",
    "CascadePipeline",
    "ClassConditionalPipeline",
    "GANPipeline",
    "ImageTranslationPipeline",
    "PalettePipeline",
]
