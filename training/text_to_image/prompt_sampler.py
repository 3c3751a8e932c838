"""Pipelines as the text-to-image recipes sample them."""

from dataclasses import dataclass
from types import SimpleNamespace

from accelerate import Accelerator
from diffusers import DiffusionPipeline

from diffusers_ext.training.text_to_image.base_models import BaseModel


@dataclass
class PromptSampler:
    """Calls a pipeline in the precision of the training, and decodes its latents in float32.

    Args:
        base (`BaseModel`): decodes.
        accelerator (`Accelerator`): knows the precision.
        pipeline (`DiffusionPipeline`): the base's, or another around its parts.
    """

    base: BaseModel
    accelerator: Accelerator
    pipeline: DiffusionPipeline

    def __call__(self, output_type: str, **arguments) -> SimpleNamespace:
        with self.accelerator.autocast():
            latents = self.pipeline(output_type="latent", **arguments).images
        return SimpleNamespace(images=(self.base.decode(latents) / 2 + 0.5).clamp(0, 1))
