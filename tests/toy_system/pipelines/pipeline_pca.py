"""Images from probabilistic PCA."""

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, ModelMixin
from diffusers.utils.torch_utils import randn_tensor


class PCAPipeline(DiffusionPipeline):
    """
    Samples from probabilistic PCA (Tipping & Bishop 1999).

    Args:
        generator_model ([`ModelMixin`]): a `PCAGenerator`.
    """

    pipeline_tag = "unconditional-image-generation"
    samples_from_noise = True

    def __init__(self, generator_model: ModelMixin):
        super().__init__()
        self.register_modules(generator_model=generator_model)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        """`batch_size` images, as `"pil"`, or as `"pt"`: float32 (N, C, H, W) in [0, 1]."""
        model = self.generator_model
        shape = (batch_size, model.config.latent_dim)
        latents = randn_tensor(shape, generator=generator, device=self._execution_device, dtype=model.dtype)
        images = (model(latents).sample.float() / 2 + 0.5).clamp(0, 1)
        if output_type == "pil":
            images = self.numpy_to_pil(images.permute(0, 2, 3, 1).cpu().numpy())
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        config = self.generator_model.config
        return config.out_channels, config.sample_size, config.sample_size
