"""Uses of an autoencoder: sampling, reconstruction, latent traversals, interpolation and arithmetic."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, ModelMixin
from diffusers.utils import BaseOutput, make_image_grid
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image, ImageOps

from .checks import (
    check_generator,
    check_latents,
    check_number,
    check_output_type,
    check_positive_int,
    is_integer,
)
from .images import ImageInput, check_one_size, list_images, pad_images, read_image, to_output
from .interpolation import slerp_samples
from .networks import get_sample_size, get_shared_models, get_size_multiple
from .tiles import round_up


Images = ImageInput | list[ImageInput]
Latents = torch.Tensor | tuple[torch.Tensor, ...]  # several for a network with latents at several levels (VQ-VAE-2)

# How latents between two images are computed: (one, other, fraction)
INTERPOLATIONS: dict[str, Callable] = {"linear": torch.lerp, "spherical": slerp_samples}


@dataclass
class ImageGridOutput(BaseOutput):
    """
    Images in rows and columns.

    Args:
        images (`list[PIL.Image.Image]`, `np.ndarray` or `torch.Tensor`): all images, row by row.
        rows, columns (`int`): the number of rows and of columns.
        grid (`PIL.Image.Image`, *optional*): one picture of all, with `output_type="pil"`.
    """

    images: list[Image.Image] | np.ndarray | torch.Tensor
    rows: int | None = None
    columns: int | None = None
    grid: Image.Image | None = None


class AutoencoderPipeline(DiffusionPipeline):
    r"""
    Works with the latents of an autoencoder, and samples images from a variational one.

    Images are passed and returned as usual in diffusers: pictures (or their paths), arrays `(H, W, C)` and tensors
    `(C, H, W)`, or batches and lists of them, with floats in `[0, 1]` or bytes. `output_type` is `"pil"`, `"np"` or
    `"pt"`. Sides that the network can't halve are padded by reflection, and images made from these are cropped again.

    Args:
        autoencoder ([`ModelMixin`]):
            A model with `encode(sample)`, whose output has `latent_dist` (for a variational autoencoder) or `latents`,
            and `decode(latents).sample`: an autoencoder of diffusers_ext, [`AutoencoderKL`] or [`VQModel`]. Its
            configuration has `in_channels`, and `sample_range` if it does not take images in `[-1, 1]`. If it has a
            `stride`, sides of images must be multiples of it.

    Raises:
        ValueError: if the model does not encode and decode.
    """

    pipeline_tag = "unconditional-image-generation"
    model_cpu_offload_seq = "autoencoder"

    def __init__(self, autoencoder: ModelMixin):
        super().__init__()
        if not (hasattr(autoencoder, "encode") and hasattr(autoencoder, "decode")):
            raise ValueError(
                "`autoencoder` must encode images and decode latents, as an AutoencoderConv or an AutoencoderKL does, "
                f"but its class is {type(autoencoder).__name__}."
            )
        self.register_modules(autoencoder=autoencoder)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        r"""
        Samples new images from the prior of a variational autoencoder.

        Args:
            batch_size (`int`, *optional*, defaults to 1 or the number of `latents`):
                The number of images.
            generator (`torch.Generator` or a list of one for each image, *optional*):
                Makes the images reproducible, on the CPU also for a network on another device.
            latents (`torch.Tensor`, *optional*):
                Standard normal numbers `(N, latent_dim)` instead of those drawn from `generator`.
            output_type (`str`, defaults to `"pil"`):
                `"pil"` for a list of `PIL.Image.Image`, `"np"` for an array `(N, H, W, C)`, `"pt"` for a tensor
                `(N, C, H, W)`, both float32 in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`ImagePipelineOutput`] instead of a tuple.

        Returns:
            [`ImagePipelineOutput`] or `tuple`: the images, in `.images` or as the first entry.

        Raises:
            ValueError: for an autoencoder without prior, and for input that cannot be carried out.

        Example:

        ```py
        >>> pipe = AutoencoderPipeline.from_pretrained("user/digits-vae")
        >>> images = pipe(batch_size=16, generator=torch.Generator().manual_seed(0)).images
        >>> copies = pipe.reconstruct(images).images
        ```
        """
        self.check_inputs(batch_size, generator, latents, output_type)
        if latents is None:
            shape = (batch_size or 1, self.autoencoder.config.latent_dim)
            latents = randn_tensor(shape, generator=generator, device=self._execution_device, dtype=torch.float32)
        return self._finish(self._decode(latents), output_type, return_dict)

    # Images and latents

    @torch.no_grad()
    def encode(
        self, image: Images, sample: bool = False, generator: torch.Generator | list[torch.Generator] | None = None
    ) -> Latents:
        r"""
        The latents of images, for [`~AutoencoderPipeline.decode`].

        Args:
            image: one image or several of one size.
            sample (`bool`, defaults to `False`):
                Whether latents are drawn from the posterior of a variational autoencoder, instead of its mean.
            generator (`torch.Generator` or a list of one for each image, *optional*):
                Makes that draw reproducible.

        Returns:
            `torch.Tensor`: float32, `(N, latent_dim)`, or `(N, C, h, w)` for a network with maps of latents, before
            any quantisation. A network with latents at several levels returns a tuple of tensors. They belong to the
            padded images.
        """
        if sample:
            images = self._stack_images("image", image)
            check_generator(generator, len(images))
            output = self.autoencoder.encode(self._to_network(images))
            if "latent_dist" not in output:
                raise ValueError(f"{type(self.autoencoder).__name__} has no posterior to draw latents from.")
            latents = output.latent_dist.sample(generator).float()
        else:
            latents = self._encode(self._stack_images("image", image))
        self.maybe_free_model_hooks()
        return latents

    @torch.no_grad()
    def decode(
        self, latents: Latents, output_type: str = "pil", return_dict: bool = True
    ) -> ImagePipelineOutput | tuple:
        r"""
        The images of latents, in the form that [`~AutoencoderPipeline.encode`] returns.

        Args:
            latents (`torch.Tensor` or a tuple of them): `(N, latent_dim)` or `(N, C, h, w)`.
            output_type, return_dict: as in `__call__`.
        """
        check_output_type(output_type, self._channels)
        self._check_latents(latents)
        return self._finish(self._decode(latents), output_type, return_dict)

    @torch.no_grad()
    def reconstruct(
        self, image: Images, output_type: str = "pil", return_dict: bool = True
    ) -> ImagePipelineOutput | tuple:
        r"""
        Encodes images (to the mean of a posterior) and decodes their latents.

        Args:
            image: one image or several of one size.
            output_type, return_dict: as in `__call__`.
        """
        check_output_type(output_type, self._channels)
        images = self._stack_images("image", image)
        return self._finish(self._decode(self._encode(images), images), output_type, return_dict)

    def denoise(
        self, image: Images, output_type: str = "pil", return_dict: bool = True
    ) -> ImagePipelineOutput | tuple:
        r"""
        Removes noise from images, with an autoencoder that was trained to do this
        (Vincent et al. 2008, https://doi.org/10.1145/1390156.1390294): the reconstruction of noisy images.

        Args:
            image, output_type, return_dict: as in [`~AutoencoderPipeline.reconstruct`].
        """
        return self.reconstruct(image, output_type, return_dict)

    @torch.no_grad()
    def outlier_score(self, image: Images) -> torch.Tensor:
        r"""
        How different each image is from the training images: the mean squared error of its reconstruction.

        Args:
            image: one image or several of one size.

        Returns:
            `torch.Tensor` of shape `(N,)`: float32, for pixels in `[0, 1]`; larger for images that the network cannot
            reconstruct.
        """
        images = self._stack_images("image", image)
        errors = self._decode(self._encode(images), images) - images.to(self._execution_device)
        self.maybe_free_model_hooks()
        return errors.square().mean(dim=(1, 2, 3)).cpu()

    # Walks in latent space

    @torch.no_grad()
    def interpolate(
        self,
        first: Images,
        second: Images,
        num_steps: int = 8,
        method: str = "linear",
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImageGridOutput | tuple:
        r"""
        Images between two images: a row for each pair, from one reconstruction to the other.

        Args:
            first, second: the ends, one image each, or several of each.
            num_steps (`int`, defaults to 8): the number of images in a row, with both ends.
            method (`str`, defaults to `"linear"`):
                `"linear"`, or `"spherical"`, which follows the great circle and keeps the length of latents.
            output_type, return_dict: as in `__call__`, with an [`ImageGridOutput`].
        """
        check_output_type(output_type, self._channels)
        check_positive_int("num_steps", num_steps)
        if method not in list(INTERPOLATIONS):  # a list, because `method` may be unhashable
            raise ValueError(f"`method` must be 'linear' or 'spherical', but is {method!r}.")
        first, second = self._stack_images("first", first), self._stack_images("second", second)
        if first.shape != second.shape:
            raise ValueError(
                f"`first` and `second` must have the same shape (N, C, H, W), but have "
                f"{tuple(first.shape)} and {tuple(second.shape)}."
            )
        fractions = torch.linspace(0, 1, num_steps, device=self._execution_device)

        def mix(*ends):
            mixed = [INTERPOLATIONS[method](*ends, fraction) for fraction in fractions]
            return torch.stack(mixed, dim=1).flatten(0, 1)

        latents = each_level(mix, self._encode(first), self._encode(second))
        return self._finish_grid(self._decode(latents, first), num_steps, output_type, return_dict)

    @torch.no_grad()
    def traverse(
        self,
        image: ImageInput | None = None,
        dimensions: int | list[int] | None = None,
        num_steps: int = 9,
        limit: float = 3.0,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImageGridOutput | tuple:
        r"""
        Shows what each latent dimension means: a row for each, in which only this one changes, from `-limit` to
        `limit`.

        Args:
            image (*optional*): the image with the latents of the other dimensions. By default they are zero, the mean
                of the prior.
            dimensions (`int` or `list[int]`, *optional*): the dimensions to show, by default all.
            num_steps (`int`, defaults to 9): the number of images in a row.
            limit (`float`, defaults to 3.0): the largest value, in standard deviations of the prior.
            output_type, return_dict: as in `__call__`, with an [`ImageGridOutput`].
        """
        check_output_type(output_type, self._channels)
        check_positive_int("num_steps", num_steps)
        check_number("limit", limit)
        name = type(self.autoencoder).__name__
        if image is not None:
            start = self._encode(self._stack_images("image", image))
        elif self.has_prior:
            start = torch.zeros(1, self.autoencoder.config.latent_dim, device=self._execution_device)
        else:
            raise ValueError(f"{name} has no prior whose mean a traversal could start from: pass `image`.")
        if len(latent_shapes(start)[0]) != 1:
            raise ValueError(f"{name} has maps of latents, {latent_shapes(start)[0]}, and no dimensions to traverse.")
        if len(start) != 1:
            raise ValueError(f"`image` must be one image, but is {len(start)}.")

        dimensions = read_dimensions(dimensions, start.shape[1])
        values = torch.linspace(-limit, limit, num_steps, device=start.device)
        latents = start.repeat(len(dimensions), num_steps, 1)
        for row, dimension in zip(latents, dimensions, strict=True):
            row[:, dimension] = values
        return self._finish_grid(self._decode(latents.flatten(0, 1)), num_steps, output_type, return_dict)

    @torch.no_grad()
    def attribute_direction(self, plus: Images, minus: Images) -> Latents:
        r"""
        The direction of an attribute: the mean latents of images with it, minus the mean latents of images without it
        (Larsen et al. 2016, section 3.3, https://huggingface.co/papers/1512.09300).

        Args:
            plus, minus: images with and without the attribute, any number of each.

        Returns:
            `torch.Tensor` or a tuple of them: `(1, latent_dim)` or `(1, C, h, w)`, float32.
        """

        def difference(with_it, without_it):
            return with_it.mean(dim=0, keepdim=True) - without_it.mean(dim=0, keepdim=True)

        with_it = self._encode(self._stack_images("plus", plus))
        without_it = self._encode(self._stack_images("minus", minus))
        self._check_same_size("`plus` and `minus`", with_it, without_it)
        self.maybe_free_model_hooks()
        return each_level(difference, with_it, without_it)

    @torch.no_grad()
    def arithmetic(
        self,
        image: Images,
        plus: Images,
        minus: Images,
        strengths: float | list[float] = 1.0,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImageGridOutput | tuple:
        r"""
        Adds an attribute to images: a row for each image, a column for each strength.

        Args:
            image: one image or several of one size.
            plus, minus: images with and without the attribute, see [`~AutoencoderPipeline.attribute_direction`].
            strengths (`float` or `list[float]`, defaults to 1.0):
                The factor of the attribute's direction that is added to the latents. A negative one removes it.
            output_type, return_dict: as in `__call__`, with an [`ImageGridOutput`].
        """
        check_output_type(output_type, self._channels)
        strengths = strengths if isinstance(strengths, (list, tuple)) else [strengths]
        if not strengths:
            raise ValueError("`strengths` is empty: pass one number or more.")
        for strength in strengths:
            check_number("strengths", strength)
        direction = self.attribute_direction(plus, minus)
        images = self._stack_images("image", image)
        latents = self._encode(images)
        self._check_same_size("`image`, `plus` and `minus`", latents, direction)

        def edit(latents, direction):
            return torch.stack([latents + strength * direction for strength in strengths], dim=1).flatten(0, 1)

        return self._finish_grid(
            self._decode(each_level(edit, latents, direction), images), len(strengths), output_type, return_dict
        )

    # Inputs and outputs

    def _stack_images(self, name: str, image: Images) -> torch.Tensor:
        """`(N, C, H, W)` in `[0, 1]`, float32."""
        images = [read_image(name, in_own_channels(entry)) for entry in list_images(name, image)]
        for entry in images:
            if len(entry) != self._channels:
                raise ValueError(
                    f"`{name}` must have {self._channels} channels, as in training, but has {len(entry)}."
                )
        check_one_size(images)
        return torch.stack(images)

    def _to_network(self, images: torch.Tensor) -> torch.Tensor:
        """Images in `[0, 1]` in the range, the dtype and on the device of the network, and padded for it."""
        low, high = self._sample_range
        images = pad_images(images, *(round_up(side, None, self._size_multiple) for side in images.shape[2:]))
        return (low + (high - low) * images.to(self._execution_device)).to(self.autoencoder.dtype)

    def _encode(self, images: torch.Tensor) -> Latents:
        """The latents of images in `[0, 1]`, float32; of a distribution, the most likely ones."""
        output = self.autoencoder.encode(self._to_network(images))
        latents = output.latent_dist.mode() if "latent_dist" in output else output.latents
        return each_level(torch.Tensor.float, latents)

    def _decode(self, latents: Latents, encoded: torch.Tensor | None = None) -> torch.Tensor:
        """Images `(N, C, H, W)` in `[0, 1]`, float32, without the padding of the images that were `encoded`."""
        low, high = self._sample_range
        device, dtype = self._execution_device, self.autoencoder.dtype
        sample = self.autoencoder.decode(each_level(lambda level: level.to(device, dtype), latents)).sample
        height, width = sample.shape[2:] if encoded is None else encoded.shape[2:]
        return ((sample[..., :height, :width].float() - low) / (high - low)).clamp(0, 1)

    def _finish(self, images: torch.Tensor, output_type: str, return_dict: bool) -> ImagePipelineOutput | tuple:
        images = to_output(images, output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _finish_grid(
        self, images: torch.Tensor, columns: int, output_type: str, return_dict: bool
    ) -> ImageGridOutput | tuple:
        rows = len(images) // columns
        images = to_output(images, output_type)
        grid = make_image_grid(images, rows, columns) if output_type == "pil" else None
        self.maybe_free_model_hooks()
        output = ImageGridOutput(images=images, rows=rows, columns=columns, grid=grid)
        return output if return_dict else (images, rows, columns, grid)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs) -> "AutoencoderPipeline":
        """As in diffusers, but models of other classes than the signature names are taken over, too."""
        return super().from_pipe(pipeline, **{**get_shared_models(pipeline, cls), **kwargs})

    @property
    def image_shape(self) -> tuple[int, int | None, int | None]:
        """Channels, height and width of the images that the network was trained on."""
        return (self._channels, *get_sample_size(self.autoencoder))

    @property
    def samples_from_noise(self) -> bool:
        """Whether a call without images makes images."""
        return self.has_prior

    @property
    def has_prior(self) -> bool:
        """Whether standard normal latents make new images, as in a variational autoencoder with vectors as latents."""
        return bool(self.autoencoder.config.get("variational", False))

    @property
    def _channels(self) -> int:
        return self.autoencoder.config.in_channels

    @property
    def _size_multiple(self) -> int:
        """What sides are padded to multiples of: 1 for a network whose images have one size."""
        if hasattr(self.autoencoder, "stride"):
            return self.autoencoder.stride
        return get_size_multiple(self.autoencoder) if "latent_channels" in self.autoencoder.config else 1

    @property
    def _sample_range(self) -> tuple[float, float]:
        return tuple(self.autoencoder.config.get("sample_range", (-1.0, 1.0)))

    def check_inputs(
        self,
        batch_size: int | None,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
        output_type: str,
    ):
        """Refuses what the call could not carry out, with a `ValueError` of one sentence."""
        check_output_type(output_type, self._channels)
        if not self.has_prior:
            raise ValueError(
                f"{type(self.autoencoder).__name__} has no prior to sample from, because it is not variational or has "
                "maps of latents: pass images to `reconstruct`, or latents to `decode`."
            )
        if batch_size is not None:
            check_positive_int("batch_size", batch_size)
        check_latents(latents, (batch_size, self.autoencoder.config.latent_dim))
        check_generator(generator, len(latents) if latents is not None else batch_size or 1)

    def _check_latents(self, latents: Latents):
        levels = latents if isinstance(latents, (list, tuple)) else [latents]
        if not levels or not all(torch.is_tensor(level) and level.numel() > 0 for level in levels):
            raise ValueError("`latents` must be a tensor of one image or more, or a tuple of such tensors.")
        # Other networks check their latents. Diffusers' networks would fail somewhere in the middle.
        config = self.autoencoder.config
        channels = config.get("vq_embed_dim") or config.get("latent_channels")
        if channels is not None and not (len(levels) == 1 and levels[0].ndim == 4 and levels[0].shape[1] == channels):
            found = [tuple(level.shape) for level in levels]
            raise ValueError(f"`latents` must be of the shape (N, {channels}, h, w), but are {found}.")

    @staticmethod
    def _check_same_size(names: str, one: Latents, other: Latents):
        if latent_shapes(one) != latent_shapes(other):
            raise ValueError(
                f"{names} must have one size, but their latents are {latent_shapes(one)} and {latent_shapes(other)}."
            )


def each_level(function: Callable, *latents: Latents) -> Latents:
    """The result of a function for the latents of every level."""
    if torch.is_tensor(latents[0]):
        return function(*latents)
    return tuple(function(*level) for level in zip(*latents, strict=True))


def latent_shapes(latents: Latents) -> list[tuple[int, ...]]:
    """The shapes of one sample's latents."""
    return [tuple(level.shape[1:]) for level in ([latents] if torch.is_tensor(latents) else latents)]


def read_dimensions(dimensions: int | list[int] | np.ndarray | torch.Tensor | None, size: int) -> list[int]:
    """The latent dimensions that a user asks for, by default all of `size`."""
    if dimensions is None:
        return list(range(size))
    if isinstance(dimensions, (np.ndarray, torch.Tensor)):
        dimensions = dimensions.tolist()
    dimensions = list(dimensions) if isinstance(dimensions, (list, tuple, range)) else [dimensions]
    if not dimensions or not all(is_integer(dimension) and 0 <= dimension < size for dimension in dimensions):
        raise ValueError(f"`dimensions` must be among 0 to {size - 1}, but is {dimensions!r}.")
    return dimensions


def in_own_channels(image: ImageInput) -> ImageInput:
    """
    Arrays of pictures with the channels that they have.

    Networks here take images with the channels that they were trained with. `read_image` would convert gray pictures
    with transparency to colours, and read the transparent colour of pictures without an alpha channel.
    """
    if not isinstance(image, Image.Image) or image.mode not in ("1", "L", "LA", "RGB", "RGBA"):
        return image
    image = ImageOps.exif_transpose(image)
    return np.array(image.convert("L") if image.mode == "1" else image)
