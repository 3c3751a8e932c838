"""Images with the patches of one image, by a SinGAN: samples of any size, edits, enlargements and films."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline, ImagePipelineOutput, ModelMixin
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

from .checks import check_fraction, check_generator, check_number, check_output_type, check_positive_int
from .films import FilmPipelineOutput, to_films
from .images import ImageInput, check_one_size, denormalize, fit_channels, list_images, read_image, to_output
from .masks import read_masks
from .networks import get_shared_models


class SinGANPipeline(DiffusionPipeline):
    r"""
    Uses a SinGAN (Shaham et al. 2019, https://huggingface.co/papers/1905.01164) in the ways of the paper's section 4.

    Args:
        generator ([`SinGANGenerator`]):
            The pyramid of generators.
    """

    pipeline_tag = "unconditional-image-generation"
    samples_from_noise = True
    model_cpu_offload_seq = "generator"

    def __init__(self, generator: ModelMixin):
        super().__init__()
        self.register_modules(generator=generator)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int | None = None,
        height: int | None = None,
        width: int | None = None,
        first_scale: int = 0,
        image: ImageInput | list[ImageInput] | None = None,
        mask_image: ImageInput | list[ImageInput] | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        r"""
        Generates images, or gives a given image the patches of the trained one.

        Without `image`, the coarsest scale decides what is where. With a larger `first_scale`, the layout is that of
        the trained image, and only the details of this scale and the finer ones are random. With `image`, its layout
        is kept: that makes a photo of a painting, and fits a pasted object (harmonisation) or a changed region
        (editing) to its surroundings. The smaller `first_scale`, the more changes.

        Args:
            batch_size (`int`, *optional*, defaults to the number of images, or 1):
                The number of results.
            height, width (`int`, *optional*, default to those of the trained image):
                The size of the results in pixels. Patches keep their size: a larger image has more of them.
            first_scale (`int`, defaults to 0):
                The first scale whose noise is random, from 0 (the coarsest); at least 1 with `image`.
            image (*optional*):
                A picture, array, tensor or path, or a list of them, resized to `height` and `width`.
            mask_image (*optional*):
                White where pixels are made; elsewhere the results are the `image`. See
                [inpainting masks](https://huggingface.co/docs/diffusers/using-diffusers/inpaint).
            generator (`torch.Generator` or a list of one for each result, *optional*):
                Makes the results reproducible.
            output_type (`str`, defaults to `"pil"`):
                `"pil"` for pictures, `"np"` for an array `(N, H, W, C)`, `"pt"` for a tensor `(N, C, H, W)`, both
                float32 in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`ImagePipelineOutput`] instead of a tuple.

        Returns:
            [`ImagePipelineOutput`] or `tuple`: the images, in `.images` or as the first entry.

        Raises:
            ValueError: for input that cannot be carried out.

        Example:

        ```py
        >>> pipe = SinGANPipeline.from_pretrained("user/photo-singan")
        >>> wide = pipe(height=64, width=256).images[0]
        >>> photo = pipe(image="painting.png", first_scale=1).images[0]
        ```
        """
        height, width = self._read_size(height, width)
        self._check_scale(first_scale, least=0 if image is None else 1)
        given = None if image is None else self._read_given("image", image)
        number = count_results(batch_size, given)
        check_generator(generator, number)
        check_output_type(output_type, self.generator.config.num_channels)
        if mask_image is not None and given is None:
            raise ValueError("`mask_image` is for an `image`, which is not given.")
        masks = None
        if mask_image is not None:
            masks = read_masks(mask_image, len(given), *given.shape[2:]).to(given).expand(number, -1, -1, -1)

        noise = self._draw(number, height, width, first_scale, generator)
        if first_scale == 0:
            images = self.generator(noise).sample
        else:
            sizes = self.generator.sizes_for(height, width)
            kept = self._give_back(first_scale) if given is None else given
            images = self.generator(
                noise, resize_pyramid(kept, sizes[first_scale - 1]).expand(number, -1, -1, -1), first_scale
            ).sample
        if masks is not None:
            masks = resize_pyramid(masks, (height, width)).clamp(0, 1)
            images = torch.lerp(resize_pyramid(given, (height, width)), images, masks)

        images = to_output(denormalize(images.float()), output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    @torch.no_grad()
    def super_resolve(
        self,
        image: ImageInput | list[ImageInput],
        scale: float = 4.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
    ) -> ImagePipelineOutput:
        r"""
        Enlarges images in several passes through the finest scale, each of about the pyramid's factor.

        Args:
            image:
                A picture, array, tensor or path, or a list of one size: the trained image, or one like it.
            scale (`float`, defaults to 4.0):
                How often the sides are enlarged, more than 1.
            generator, output_type: see [`~SinGANPipeline.__call__`].

        Raises:
            ValueError: for input that cannot be carried out.
        """
        check_number("scale", scale)
        if scale <= 1:
            raise ValueError(f"`scale` must be more than 1, but is {scale}.")
        images = self._read_given("image", image)
        check_generator(generator, len(images))
        check_output_type(output_type, self.generator.config.num_channels)
        (height, width), sizes, last = images.shape[2:], self.generator.config.sizes, self.generator.num_scales - 1
        if last == 0:
            raise ValueError("A SinGAN of one scale cannot enlarge images.")
        num_passes = max(1, round(math.log(scale) / math.log(sizes[-1][0] / sizes[-2][0])))
        for step in range(1, num_passes + 1):
            size = [round(side * scale ** (step / num_passes)) for side in (height, width)]
            noise = randn_tensor(
                (*images.shape[:2], *size), generator=generator, device=self._execution_device, dtype=images.dtype
            )
            images = self.generator([noise], images, first_scale=last).sample
        images = to_output(denormalize(images.float()), output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images)

    @torch.no_grad()
    def animate(
        self,
        num_frames: int = 24,
        first_scale: int = 1,
        pull: float = 0.1,
        smoothness: float = 0.9,
        generator: torch.Generator | None = None,
        output_type: str = "pil",
    ) -> FilmPipelineOutput:
        r"""
        A film of the trained image that moves: a random walk of the noise around the one that gives it back.

        Section 3 of the paper's supplement: `z_(t+1) = pull z_rec + (1 - pull) (z_t + d_(t+1))` with
        `d_(t+1) = smoothness d_t + (1 - smoothness) u_t` and normal u.

        Args:
            num_frames (`int`, defaults to 24):
                The frames.
            first_scale (`int`, defaults to 1):
                Coarser scales stand still.
            pull (`float`, defaults to 0.1):
                How strongly the image is drawn back to the trained one, in `[0, 1)`.
            smoothness (`float`, defaults to 0.9):
                How much a movement continues, in `[0, 1)`.
            generator (`torch.Generator`, *optional*):
                Makes the film reproducible.
            output_type (`str`, defaults to `"pil"`):
                `"pil"`, `"np"` or `"pt"`; see [`FilmPipelineOutput`], which has one film.

        Raises:
            ValueError: for input that cannot be carried out.
        """
        check_positive_int("num_frames", num_frames)
        self._check_scale(first_scale)
        check_fraction("pull", pull)
        check_fraction("smoothness", smoothness)
        check_generator(generator, 1)
        check_output_type(output_type, self.generator.config.num_channels)
        restoring = self.generator.reconstruction_noise()
        sizes = self.generator.config.sizes[-1]
        frames, now, moves = [], restoring, [torch.zeros_like(noise) for noise in restoring]
        for _ in range(num_frames):
            frames.append(self.generator(now).sample)
            drawn = self._draw(1, *sizes, 0, generator)
            moves = [smoothness * move + (1 - smoothness) * new for move, new in zip(moves, drawn, strict=True)]
            walked = [
                pull * rest + (1 - pull) * (noise + move)
                for rest, noise, move in zip(restoring, now, moves, strict=True)
            ]
            now = [*restoring[:first_scale], *walked[first_scale:]]
        films = to_films(denormalize(torch.stack(frames, dim=2).float()), output_type)
        self.maybe_free_model_hooks()
        return FilmPipelineOutput(frames=films)

    @torch.no_grad()
    def reconstruct(self, output_type: str = "pil") -> list[Image.Image] | np.ndarray | torch.Tensor:
        """The trained image, as the fixed noise gives it back: one image of the kind `output_type`."""
        check_output_type(output_type, self.generator.config.num_channels)
        return to_output(denormalize(self._give_back(self.generator.num_scales).float()), output_type)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs) -> "SinGANPipeline":
        """As in diffusers, but models of other classes than the signature names are taken over, too."""
        return super().from_pipe(pipeline, **{**get_shared_models(pipeline, cls), **kwargs})

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images of a call without `height` and `width`."""
        return (self.generator.config.num_channels, *self.generator.config.sizes[-1])

    def _give_back(self, num_scales: int) -> torch.Tensor:
        """The trained image at the last of so many scales, (1, C, H, W) in about [-1, 1]."""
        return self.generator(self.generator.reconstruction_noise(num_scales)).sample

    def _draw(self, number: int, height: int, width: int, first_scale: int, generator) -> list[torch.Tensor]:
        """The noise of the scales from `first_scale` on."""
        options = {"generator": generator, "device": self._execution_device, "dtype": self.generator.dtype}
        shapes = self.generator.noise_shapes(height, width)[first_scale:]
        return [randn_tensor((number, *shape), **options) for shape in shapes]

    def _read_size(self, height: int | None, width: int | None) -> tuple[int, int]:
        full_height, full_width = self.generator.config.sizes[-1]
        height, width = height or full_height, width or full_width
        check_positive_int("height", height)
        check_positive_int("width", width)
        return height, width

    def _check_scale(self, first_scale: int, least: int = 0):
        last = self.generator.num_scales - 1
        if not isinstance(first_scale, int) or not least <= first_scale <= last:
            raise ValueError(f"`first_scale` must be an integer from {least} to {last}, but is {first_scale!r}.")

    def _read_given(self, name: str, images: ImageInput | list[ImageInput]) -> torch.Tensor:
        """Images of one size, (N, C, H, W) in [-1, 1]."""
        channels = self.generator.config.num_channels
        read = [fit_channels(name, read_image(name, image), channels) for image in list_images(name, images)]
        check_one_size(read)
        return (torch.stack(read) * 2 - 1).to(self._execution_device, self.generator.dtype)


def count_results(batch_size: int | None, given: torch.Tensor | None) -> int:
    """How many results a call has: as many as images, or so many of a single one."""
    if batch_size is None:
        return 1 if given is None else len(given)
    check_positive_int("batch_size", batch_size)
    if given is not None and len(given) not in (1, batch_size):
        raise ValueError(f"`batch_size` is {batch_size}, but there are {len(given)} images.")
    return batch_size


def resize_pyramid(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Images of another height and width, as [`SinGANGenerator`] resizes them between scales."""
    resized = F.interpolate(images.float(), size=tuple(size), mode="bicubic", antialias=True)
    return resized.clamp(-1, 1).to(images.dtype)
