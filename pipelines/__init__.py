from diffusers_ext.hub import PublishableMixin
from diffusers_ext.pipelines import pipeline_class_conditional, pipeline_palette
from diffusers_ext.registration import register


register()


class ClassConditionalPipeline(PublishableMixin, pipeline_class_conditional.ClassConditionalPipeline):
    __doc__ = pipeline_class_conditional.ClassConditionalPipeline.__doc__


class PalettePipeline(PublishableMixin, pipeline_palette.PalettePipeline):
    __doc__ = pipeline_palette.PalettePipeline.__doc__


__all__ = ["ClassConditionalPipeline", "PalettePipeline"]
