"""What an autoencoder can be used for: sampling, reconstruction, latent traversals, interpolation and arithmetic."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, ModelMixin
from diffusers.utils import BaseOutput, make_image_grid
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image, ImageOps


ImageInput = Image.Image | np.ndarray | torch.Tensor
Images = ImageInput | list[ImageInput]
Latents = torch.Tensor | tuple[torch.Tensor, ...]  # several of a network with latents at several levels (VQ-VAE-2)

PARALLEL = 1e-4  # sine of an angle below which two latents are of one direction, or of opposite ones


def check_positive_int(name: str, value: Any):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer, but is {value!r}.")


def check_number(name: str, value: Any):
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        raise ValueError(f"`{name}` must be a finite number, but is {value!r}.")


def check_generator(generator: torch.Generator | list[torch.Generator] | None, count: int):
    for one in generator if isinstance(generator, list) else [generator]:
        if one is not None and not isinstance(one, torch.Generator):
            raise ValueError(f"`generator` must be a torch.Generator or a list of them, but has {one!r}.")
    if isinstance(generator, list) and len(generator) != count:
        raise ValueError(f"`generator` must be one generator or {count}, one per image, but is {len(generator)}.")


def picture_to_array(image: Image.Image) -> np.ndarray:
    """Upright, `(H, W)` or `(H, W, C)` with the picture's own channels; uint8 or in `[0, 1]`."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("A float picture has no defined range: pass an array from 0 to 1 instead.")
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.float32) / 65535
    if image.mode in ("1", "L", "LA", "RGB", "RGBA"):
        return np.array(image.convert("L") if image.mode == "1" else image)
    return np.array(image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB"))


# Copied from diffusers_ext.pipelines.pipeline_palette.to_tensor
def to_tensor(name: str, image: ImageInput) -> torch.Tensor:
    """One picture, array `(H, W)` or `(H, W, C)`, or tensor `(H, W)` or `(C, H, W)`, as float32 `(C, H, W)`."""
    if isinstance(image, Image.Image):
        image = picture_to_array(image)
    if not isinstance(image, (np.ndarray, torch.Tensor)):
        raise ValueError(f"`{name}` must be a PIL image, an array or a tensor, but is a {type(image).__name__}.")
    shape = tuple(image.shape)
    if isinstance(image, np.ndarray):
        if image.dtype.kind not in "biuf":
            raise ValueError(f"`{name}` must hold floats from 0 to 1 or bytes, but holds {image.dtype}.")
        # torch knows no other order of bytes than that of the machine
        native = image.dtype.newbyteorder("=")
        image = torch.from_numpy(np.array(image.transpose(2, 0, 1) if image.ndim == 3 else image, dtype=native))
    if image.ndim == 2:
        image = image[None]
    if image.ndim != 3 or 0 in shape:
        raise ValueError(f"`{name}` must have the shape (H, W, C) or, of a tensor, (C, H, W), but has {shape}.")

    if image.dtype == torch.uint8:
        return image.float() / 255
    if not image.is_floating_point() and image.dtype != torch.bool:
        raise ValueError(f"`{name}` must hold floats from 0 to 1 or bytes, but holds {image.dtype}.")
    image = image.float()
    low, high = image.aminmax()
    if not (low >= 0 and high <= 1):  # so that NaN is refused too
        raise ValueError(f"`{name}` must hold values from 0 to 1, but they go from {low:.8g} to {high:.8g}.")
    return image


def each_level(function: Callable, *latents: Latents) -> Latents:
    """`function` of the latents of every level."""
    if torch.is_tensor(latents[0]):
        return function(*latents)
    return tuple(function(*level) for level in zip(*latents, strict=True))


def shapes(latents: Latents) -> list[tuple[int, ...]]:
    """The shapes of one sample's latents."""
    return [tuple(level.shape[1:]) for level in ([latents] if torch.is_tensor(latents) else latents)]


def slerp(first: torch.Tensor, second: torch.Tensor, fraction: torch.Tensor) -> torch.Tensor:
    """Along the great circle from `first` to `second` `(N, ...)`, each sample being one vector; where two directions
    are the same or opposite, as with one latent they always are, along the straight line."""
    one, other = first.flatten(1), second.flatten(1)
    angle = torch.nn.functional.cosine_similarity(one, other, dim=1).clamp(-1, 1).acos()[:, None]
    is_arc = angle.sin() > PARALLEL
    angle = torch.where(is_arc, angle, 1.0)
    arc = (torch.sin((1 - fraction) * angle) * one + torch.sin(fraction * angle) * other) / torch.sin(angle)
    return torch.where(is_arc, arc, torch.lerp(one, other, fraction)).view_as(first)


@dataclass
class ImageGridOutput(BaseOutput):
    """
    Images that belong in rows.

    Args:
        images (`list[PIL.Image.Image]`, `np.ndarray` or `torch.Tensor`): all of them, row by row.
        rows, columns (`int`): how many there are of either.
        grid (`PIL.Image.Image`, *optional*): one picture of all, with `output_type="pil"`.
    """

    images: list[Image.Image] | np.ndarray | torch.Tensor
    rows: int | None = None
    columns: int | None = None
    grid: Image.Image | None = None


class AutoencoderPipeline(DiffusionPipeline):
    r"""
    Works with the latents of an autoencoder, and samples from a variational one.

    All methods take and give images as usual in diffusers: pictures, arrays `(H, W, C)` and tensors `(C, H, W)`, or
    batches and lists of them, floats in `[0, 1]` or bytes; `output_type` is `"pil"`, `"np"` or `"pt"`.

    Args:
        autoencoder ([`ModelMixin`]):
            A model with `encode(sample)`, whose output has `latent_dist` (of a variational autoencoder) or `latents`,
            and `decode(latents).sample`: those of diffusers_ext, [`AutoencoderKL`] or [`VQModel`]. Its configuration
            has `in_channels`, and `sample_range` if it does not see images in `[-1, 1]`.

    Raises:
        ValueError: if the model is something else.
    """

    model_cpu_offload_seq = "autoencoder"

    def __init__(self, autoencoder: ModelMixin):
        super().__init__()
        if not (hasattr(autoencoder, "encode") and hasattr(autoencoder, "decode")):
            raise ValueError(
                "`autoencoder` must encode images and decode latents, as an AutoencoderConv or an AutoencoderKL does, "
                f"but is a {type(autoencoder).__name__}."
            )
        self.register_modules(autoencoder=autoencoder)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs) -> "AutoencoderPipeline":
        """As in diffusers, which alone would leave behind models of other classes than the signature names."""
        own = {name: model for name, model in pipeline.components.items() if name == "autoencoder"}
        return super().from_pipe(pipeline, **{**own, **kwargs})

    @property
    def has_prior(self) -> bool:
        """Whether new images can be made of standard normal latents: that takes a variational autoencoder's vector."""
        return bool(self.autoencoder.config.get("variational", False))

    # Input and output

    def _read_images(self, name: str, image: Images) -> torch.Tensor:
        """As the network takes them: `(N, C, H, W)`, of its dtype, in its range of values."""
        low, high = self._sample_range
        images = self._stack_images(name, image).to(self._execution_device)
        return (low + (high - low) * images).to(self.autoencoder.dtype)

    def _stack_images(self, name: str, image: Images) -> torch.Tensor:
        """`(N, C, H, W)` in `[0, 1]`, float32."""
        if isinstance(image, (np.ndarray, torch.Tensor)) and image.ndim == 4:
            image = list(image)
        images = image if isinstance(image, (list, tuple)) else [image]
        if not images:
            raise ValueError(f"`{name}` is empty: pass one image or more.")
        images = [to_tensor(name, entry) for entry in images]
        channels = self.autoencoder.config.in_channels
        for entry in images:
            if len(entry) != channels:
                raise ValueError(f"`{name}` must have {channels} channels, as in training, but has {len(entry)}.")
        sizes = sorted({(entry.shape[2], entry.shape[1]) for entry in images})
        if len(sizes) > 1:
            raise ValueError(
                f"The images of one call must have one size, but these have {len(sizes)} (width, height): {sizes[:5]}."
            )
        self._check_size(name, *sizes[0])
        return torch.stack(images)

    def _check_size(self, name: str, width: int, height: int):
        # The others say what they can do themselves; those of diffusers would fail in the middle or crop.
        if "latent_channels" not in self.autoencoder.config or "block_out_channels" not in self.autoencoder.config:
            return
        multiple = 2 ** (len(self.autoencoder.config.block_out_channels) - 1)
        if width % multiple or height % multiple:
            raise ValueError(
                f"`{name}` must have sides that are multiples of {multiple}, for the network halves images, but is "
                f"{width}x{height}."
            )

    @property
    def _sample_range(self) -> tuple[float, float]:
        return tuple(self.autoencoder.config.get("sample_range", (-1.0, 1.0)))

    def _check_output_type(self, output_type: str):
        channels = self.autoencoder.config.in_channels
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"`output_type` must be 'pil', 'np' or 'pt', but is {output_type!r}.")
        if output_type == "pil" and channels not in (1, 3, 4):
            raise ValueError(f"PIL has no images of {channels} channels: pass `output_type='np'` or 'pt'.")

    def _decode(self, latents: Latents) -> torch.Tensor:
        """Images `(N, C, H, W)` in `[0, 1]`, float32."""
        low, high = self._sample_range
        device, dtype = self._execution_device, self.autoencoder.dtype
        sample = self.autoencoder.decode(each_level(lambda level: level.to(device, dtype), latents)).sample
        return ((sample.float() - low) / (high - low)).clamp(0, 1)

    def _check_latents(self, latents: Latents):
        levels = latents if isinstance(latents, (list, tuple)) else [latents]
        if not levels or not all(torch.is_tensor(level) and level.numel() > 0 for level in levels):
            raise ValueError("`latents` must be a tensor of one image or more, or a tuple of several such.")
        # The others say themselves what they take; those of diffusers would fail in the middle.
        config = self.autoencoder.config
        channels = config.get("vq_embed_dim") or config.get("latent_channels")
        if channels is not None and not (len(levels) == 1 and levels[0].ndim == 4 and levels[0].shape[1] == channels):
            found = [tuple(level.shape) for level in levels]
            raise ValueError(f"`latents` must be of the shape (N, {channels}, h, w), but are {found}.")

    def _encode(self, name: str, image: Images) -> Latents:
        """The latents of images, float32: where the network says a distribution, the most likely ones."""
        output = self.autoencoder.encode(self._read_images(name, image))
        latents = output.latent_dist.mode() if "latent_dist" in output else output.latents
        return each_level(torch.Tensor.float, latents)

    def _to_output(self, images: torch.Tensor, output_type: str):
        if output_type != "pt":
            images = images.permute(0, 2, 3, 1).cpu().numpy()
        return self.numpy_to_pil(images) if output_type == "pil" else images

    def _finish(self, images: torch.Tensor, output_type: str, return_dict: bool) -> ImagePipelineOutput | tuple:
        images = self._to_output(images, output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _finish_grid(
        self, images: torch.Tensor, columns: int, output_type: str, return_dict: bool
    ) -> ImageGridOutput | tuple:
        rows = len(images) // columns
        images = self._to_output(images, output_type)
        grid = make_image_grid(images, rows, columns) if output_type == "pil" else None
        self.maybe_free_model_hooks()
        output = ImageGridOutput(images=images, rows=rows, columns=columns, grid=grid)
        return output if return_dict else (images, rows, columns, grid)

    # Sampling

    def check_inputs(
        self,
        batch_size: int | None,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
        output_type: str,
    ):
        """Refuses, with a `ValueError` of one sentence, what the call could not carry out."""
        self._check_output_type(output_type)
        if not self.has_prior:
            raise ValueError(
                f"{type(self.autoencoder).__name__} has no prior to sample from, for it is not variational or has "
                "maps of latents: pass images to `reconstruct`, or latents to `decode`."
            )
        if batch_size is not None:
            check_positive_int("batch_size", batch_size)
        count, size = batch_size, self.autoencoder.config.latent_dim
        if latents is not None:
            found = tuple(latents.shape) if torch.is_tensor(latents) else type(latents).__name__
            count = len(latents) if count is None and torch.is_tensor(latents) and latents.ndim > 0 else count
            if found != (count, size) or count == 0:
                raise ValueError(f"`latents` must be a tensor of the shape ({count or 'N'}, {size}), but is {found}.")
        check_generator(generator, count or 1)

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
        Samples the prior of a variational autoencoder: new images.

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
            ValueError: for an autoencoder without prior, and other input that cannot be carried out.

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

    # Images to latents and back

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
                For that draw.

        Returns:
            `torch.Tensor`: float32, `(N, latent_dim)`, or maps `(N, C, h, w)` of a network that has such, before any
            quantisation; a tuple of several with latents at several levels.
        """
        if sample:
            images = self._read_images("image", image)
            check_generator(generator, len(images))
            output = self.autoencoder.encode(images)
            if "latent_dist" not in output:
                raise ValueError(f"{type(self.autoencoder).__name__} has no posterior to draw latents from.")
            latents = output.latent_dist.sample(generator).float()
        else:
            latents = self._encode("image", image)
        self.maybe_free_model_hooks()
        return latents

    @torch.no_grad()
    def decode(
        self, latents: Latents, output_type: str = "pil", return_dict: bool = True
    ) -> ImagePipelineOutput | tuple:
        r"""
        The images of latents, as [`~AutoencoderPipeline.encode`] gives them.

        Args:
            latents (`torch.Tensor`, or a tuple of several): `(N, latent_dim)` or `(N, C, h, w)`.
            output_type, return_dict: as in `__call__`.
        """
        self._check_output_type(output_type)
        self._check_latents(latents)
        return self._finish(self._decode(latents), output_type, return_dict)

    @torch.no_grad()
    def reconstruct(
        self, image: Images, output_type: str = "pil", return_dict: bool = True
    ) -> ImagePipelineOutput | tuple:
        r"""
        What the autoencoder keeps of images: encoded (to the mean of a posterior) and decoded.

        Args:
            image: one image or several of one size.
            output_type, return_dict: as in `__call__`.
        """
        self._check_output_type(output_type)
        return self._finish(self._decode(self._encode("image", image)), output_type, return_dict)

    def denoise(
        self, image: Images, output_type: str = "pil", return_dict: bool = True
    ) -> ImagePipelineOutput | tuple:
        r"""
        Clean images from noisy ones, with an autoencoder that was trained to that end
        (Vincent et al. 2008, https://doi.org/10.1145/1390156.1390294): their reconstruction.

        Args:
            image, output_type, return_dict: as in [`~AutoencoderPipeline.reconstruct`].
        """
        return self.reconstruct(image, output_type, return_dict)

    @torch.no_grad()
    def outlier_score(self, image: Images) -> torch.Tensor:
        r"""
        How unlike the training images each image is: the mean squared error of its reconstruction.

        Args:
            image: one image or several of one size.

        Returns:
            `torch.Tensor` of shape `(N,)`: float32, of pixels in `[0, 1]`; larger for what the network can't say.
        """
        images = self._stack_images("image", image)
        errors = self._decode(self._encode("image", image)) - images.to(self._execution_device)
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
        Images between two images: a row for each pair, from the reconstruction of one to that of the other.

        Args:
            first, second: the ends, one image each or as many of both.
            num_steps (`int`, defaults to 8): how many images a row has, the ends included.
            method (`str`, defaults to `"linear"`):
                `"linear"` in the latents, or `"spherical"`: along the great circle, which keeps their length.
            output_type, return_dict: as in `__call__`, of an [`ImageGridOutput`].
        """
        self._check_output_type(output_type)
        check_positive_int("num_steps", num_steps)
        mixes: dict[str, Callable] = {"linear": torch.lerp, "spherical": slerp}
        if method not in list(mixes):  # which may be unhashable
            raise ValueError(f"`method` must be 'linear' or 'spherical', but is {method!r}.")
        images = [self._stack_images(name, image) for name, image in (("first", first), ("second", second))]
        if images[0].shape != images[1].shape:
            raise ValueError(
                f"`first` and `second` must be as many images of one size, (N, C, H, W), but are "
                f"{tuple(images[0].shape)} and {tuple(images[1].shape)}."
            )
        fractions = torch.linspace(0, 1, num_steps, device=self._execution_device)

        def mix(*ends):
            return torch.stack([mixes[method](*ends, fraction) for fraction in fractions], dim=1).flatten(0, 1)

        latents = each_level(mix, self._encode("first", first), self._encode("second", second))
        return self._finish_grid(self._decode(latents), num_steps, output_type, return_dict)

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
        What each latent dimension means: a row for each, in which it goes from `-limit` to `limit` alone.

        Args:
            image (*optional*): where the others stay: at the latents of this image, or at zero, the prior's mean.
            dimensions (`int` or `list[int]`, *optional*): which ones; by default all.
            num_steps (`int`, defaults to 9): how many images a row has.
            limit (`float`, defaults to 3.0): in standard deviations of the prior.
            output_type, return_dict: as in `__call__`, of an [`ImageGridOutput`].
        """
        self._check_output_type(output_type)
        check_positive_int("num_steps", num_steps)
        check_number("limit", limit)
        name = type(self.autoencoder).__name__
        if image is not None:
            start = self._encode("image", image)
        elif self.has_prior:
            start = torch.zeros(1, self.autoencoder.config.latent_dim, device=self._execution_device)
        else:
            raise ValueError(f"{name} has no prior whose mean a traversal could start from: pass `image`.")
        if len(shapes(start)[0]) != 1:
            raise ValueError(f"{name} has maps of latents, {shapes(start)[0]}, and no dimensions to traverse.")
        if len(start) != 1:
            raise ValueError(f"`image` must be one image, but is {len(start)}.")

        size = start.shape[1]
        dimensions = range(size) if dimensions is None else dimensions
        if isinstance(dimensions, (np.ndarray, torch.Tensor)):
            dimensions = dimensions.tolist()
        dimensions = list(dimensions) if isinstance(dimensions, (list, tuple, range)) else [dimensions]
        are_integers = all(isinstance(d, (int, np.integer)) and not isinstance(d, bool) for d in dimensions)
        if not dimensions or not are_integers or any(not 0 <= dimension < size for dimension in dimensions):
            raise ValueError(f"`dimensions` must be among 0 to {size - 1}, but is {dimensions!r}.")
        values = torch.linspace(-limit, limit, num_steps, device=start.device)
        latents = start.repeat(len(dimensions), num_steps, 1)
        for row, dimension in zip(latents, dimensions, strict=True):
            row[:, dimension] = values
        return self._finish_grid(self._decode(latents.flatten(0, 1)), num_steps, output_type, return_dict)

    @torch.no_grad()
    def attribute_direction(self, plus: Images, minus: Images) -> Latents:
        r"""
        Where an attribute lies: from the mean latents of images without it to that of images with it
        (Larsen et al. 2016, section 3.3, https://huggingface.co/papers/1512.09300).

        Args:
            plus, minus: images with and without it, as many as you like of both.

        Returns:
            `torch.Tensor`, or a tuple of several: `(1, latent_dim)` or `(1, C, h, w)`, float32.
        """

        def difference(with_it, without_it):
            return with_it.mean(dim=0, keepdim=True) - without_it.mean(dim=0, keepdim=True)

        with_it, without_it = self._encode("plus", plus), self._encode("minus", minus)
        self._check_alike("`plus` and `minus`", with_it, without_it)
        self.maybe_free_model_hooks()
        return each_level(difference, with_it, without_it)

    @staticmethod
    def _check_alike(names: str, one: Latents, other: Latents):
        if shapes(one) != shapes(other):
            raise ValueError(f"{names} must have one size, but their latents are {shapes(one)} and {shapes(other)}.")

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
        Images with an attribute that tells two groups of images apart: a row for each, a column for each strength.

        Args:
            image: what is to get it, one image or several of one size.
            plus, minus: see [`~AutoencoderPipeline.attribute_direction`].
            strengths (`float` or `list[float]`, defaults to 1.0):
                How many times the difference of the groups is added to the latents; negative to take it away.
            output_type, return_dict: as in `__call__`, of an [`ImageGridOutput`].
        """
        self._check_output_type(output_type)
        strengths = strengths if isinstance(strengths, (list, tuple)) else [strengths]
        if not strengths:
            raise ValueError("`strengths` is empty: pass one number or more.")
        for strength in strengths:
            check_number("strengths", strength)
        direction = self.attribute_direction(plus, minus)
        latents = self._encode("image", image)
        self._check_alike("`image`, `plus` and `minus`", latents, direction)

        def edit(latents, direction):
            return torch.stack([latents + strength * direction for strength in strengths], dim=1).flatten(0, 1)

        return self._finish_grid(
            self._decode(each_level(edit, latents, direction)), len(strengths), output_type, return_dict
        )
