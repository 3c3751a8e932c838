"""Images of a GAN that a latent mapper of StyleCLIP moves to the prompt that it was trained for."""

from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, ModelMixin

from .checks import check_number, check_output_type
from .images import denormalize, to_output
from .latent_generators import check_latent_generator, make_images
from .networks import get_sample_size, get_shared_models
from .style_options import check_styles, has_styles, per_layer


@dataclass
class StyleCLIPMapperOutput(ImagePipelineOutput):
    """
    Edited images, and their styles, which can be given to [`GANPipeline`].

    Args:
        images (`list[PIL.Image.Image]`, `np.ndarray` or `torch.Tensor`):
            N pictures, an array `(N, H, W, C)` or a tensor `(N, C, H, W)`, in `[0, 1]`.
        styles (`torch.Tensor` of shape `(N, num_styles, style_dim)`):
            Their styles.
    """

    styles: torch.Tensor = None


class StyleCLIPMapperPipeline(DiffusionPipeline):
    r"""
    Edits images by one pass through the latent mapper of StyleCLIP (Patashnik et al. 2021, section 5,
    https://huggingface.co/papers/2103.17249), which is trained for one prompt. It needs no CLIP.

    Args:
        generator ([`ModelMixin`]):
            A generator with styles, such as [`StyleGAN2Generator`].
        mapper ([`LatentMapper`]):
            From the styles of images to what is added to them.
        prompt (`str`, *optional*):
            What the mapper was trained for.

    Raises:
        ValueError: if the generator has no styles, or the mapper is for other styles.
    """

    pipeline_tag = "image-to-image"
    samples_from_noise = False
    model_cpu_offload_seq = "mapper->generator"

    def __init__(self, generator: ModelMixin, mapper: ModelMixin, prompt: str | None = None):
        super().__init__()
        check_latent_generator(generator)
        if not has_styles(generator):
            raise ValueError(f"`mapper` changes styles, but a {type(generator).__name__} has none.")
        wanted = (generator.num_styles, generator.config.style_dim)
        found = (mapper.config.num_styles, mapper.config.style_dim)
        if found != wanted:
            raise ValueError(
                f"`mapper` must fit the generator in the number of styles and their length, which are {wanted}, but "
                f"they are {found}."
            )
        self.register_modules(generator=generator, mapper=mapper)
        self.register_to_config(prompt=prompt)

    @torch.no_grad()
    def __call__(
        self, styles: torch.Tensor, strength: float = 0.1, output_type: str = "pil", return_dict: bool = True
    ) -> StyleCLIPMapperOutput | tuple:
        r"""
        Moves images to the prompt of the mapper.

        Args:
            styles (`torch.Tensor`):
                The images as styles w `(N, style_dim)` or w+ `(N, num_styles, style_dim)`, such as those that a
                [`GANInversionPipeline`] finds for photographs.
            strength (`float`, defaults to 0.1):
                What the mapper's offsets are multiplied by; it was trained with 0.1. A negative one moves the other
                way.
            output_type (`str`, defaults to `"pil"`):
                `"pil"`, `"np"` (`(N, H, W, C)`) or `"pt"` (`(N, C, H, W)`, float32); the latter two in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`StyleCLIPMapperOutput`] instead of a tuple.

        Returns:
            [`StyleCLIPMapperOutput`] or `tuple`: the images, in `.images` or as the first entry.

        Raises:
            ValueError: for input that cannot be carried out.

        Example:

        ```py
        >>> found = inversion("face.png", start="encoder", num_optimization_steps=100)
        >>> pipe(found.styles).images[0]
        ```
        """
        check_styles(self.generator, styles, "styles")
        check_number("strength", strength)
        check_output_type(output_type, self.generator.config.out_channels)
        styles = per_layer(styles, self.generator.num_styles).to(self._execution_device, torch.float32)
        offsets = self.mapper(styles.to(self.mapper.dtype), return_dict=False)[0].float()
        styles = styles + strength * offsets
        images = to_output(denormalize(make_images(self.generator, "w+", styles)), output_type)
        self.maybe_free_model_hooks()
        return StyleCLIPMapperOutput(images=images, styles=styles) if return_dict else (images,)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs) -> "StyleCLIPMapperPipeline":
        """As in diffusers, but models of other classes than the signature names are taken over, too."""
        return super().from_pipe(pipeline, **{**get_shared_models(pipeline, cls), **kwargs})

    @property
    def image_shape(self) -> tuple[int, int | None, int | None]:
        """Channels, height and width of the images."""
        return (self.generator.config.out_channels, *get_sample_size(self.generator))
