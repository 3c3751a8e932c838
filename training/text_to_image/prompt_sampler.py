"""Sampling of text-to-image pipelines during training."""

from dataclasses import dataclass

from diffusers import DiffusionPipeline, ImagePipelineOutput

from diffusers_ext.training.loop.context import Context
from diffusers_ext.training.text_to_image.base_models import BaseModel


@dataclass
class PromptSampler:
    """Calls a pipeline in the precision of the training, and decodes its latents in float32.

    Args:
        base ([`BaseModel`]): decodes the latents.
        context ([`Context`]): the precision of the training.
        pipeline (`DiffusionPipeline`): the base's own, or another one around its parts.
    """

    base: BaseModel
    context: Context
    pipeline: DiffusionPipeline

    def __call__(self, output_type: str, **arguments) -> ImagePipelineOutput:
        """Call the pipeline with `arguments`: images (N, 3, H, W) in [0, 1], which is "pt", the only `output_type`."""
        with self.context.autocast():
            latents = self.pipeline(output_type="latent", **arguments).images
        return ImagePipelineOutput(images=(self.base.decode(latents) / 2 + 0.5).clamp(0, 1))
