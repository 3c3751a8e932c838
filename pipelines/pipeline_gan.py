"""Images from the generator of a GAN, class-conditional or not, and walks through its latent space."""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, ModelMixin
from diffusers.utils import BaseOutput
from PIL import Image

from .checks import check_generator, check_latents, check_output_type, check_positive, check_positive_int
from .films import arrange_pictures, check_film, write_film
from .images import denormalize, to_output, to_pictures
from .interpolation import lerp, slerp
from .labels import (
    ClassLabels,
    check_class_labels_given,
    check_label_range,
    count_images,
    read_id2label,
)
from .latent_directions import LatentDirections, read_strengths
from .latent_generators import LatentPipelineMixin, check_latent_generator
from .networks import get_shared_models
from .style_options import check_style_options, check_styles, has_styles, per_layer


WALK_BATCH = 64  # the frames of a walk that the generator makes at once


@dataclass
class GANPipelineOutput(ImagePipelineOutput):
    """
    Images, and where they are in the latent spaces of the generator: each can be given to [`GANPipeline`] again.

    Args:
        images (`list[PIL.Image.Image]`, `np.ndarray` or `torch.Tensor`):
            N pictures, an array `(N, H, W, C)` or a tensor `(N, C, H, W)`, in `[0, 1]`.
        latents (`torch.Tensor` of shape `(N, latent_dim)`, *optional*):
            The latents z, unless `styles` were given.
        styles (`torch.Tensor` of shape `(N, num_styles, style_dim)`, *optional*):
            The styles w+ that the images were made from, after truncation, if the generator has styles.
        noise (`list[torch.Tensor]`, *optional*):
            The maps of noise of the layers, if they were random or given.
    """

    latents: torch.Tensor | None = None
    styles: torch.Tensor | None = None
    noise: list[torch.Tensor] | None = None


@dataclass
class GANWalkOutput(BaseOutput):
    """
    The frames of walks through the latent space, a row for each walk.

    Args:
        images (`list[list[PIL.Image.Image]]`, `np.ndarray` or `torch.Tensor`):
            Pictures, an array `(rows, frames, H, W, C)` or a tensor `(rows, frames, C, H, W)`, in `[0, 1]`.
    """

    images: list[list[Image.Image]] | np.ndarray | torch.Tensor

    def _pictures(self) -> list[list[Image.Image]]:
        if isinstance(self.images, list):
            return self.images
        frames = self.images
        if isinstance(frames, torch.Tensor):
            frames = frames.permute(0, 1, 3, 4, 2).cpu().numpy()
        if frames.shape[-1] not in (1, 3, 4):
            raise ValueError(f"PIL has no images of {frames.shape[-1]} channels.")
        return [to_pictures(row) for row in frames]

    def grid(self) -> Image.Image:
        """One picture of all frames: each walk is a row, from left to right."""
        rows = self._pictures()
        return arrange_pictures([picture for row in rows for picture in row], columns=len(rows[0]))

    def save(self, path: str | os.PathLike, fps: float = 12) -> None:
        """
        Writes a film in which all walks run side by side.

        Args:
            path (`str` or `os.PathLike`):
                A file that ends in `.gif`, which repeats forever, or in `.mp4`, which needs the packages imageio and
                imageio-ffmpeg. It appears under this name when it is complete.
            fps (`float`, defaults to 12):
                Frames per second. A GIF counts in hundredths of a second, and has from 0.002 to 50.

        Raises:
            ValueError: for another ending, or `fps` out of range.
            ImportError: for an `.mp4` without these packages.
        """
        check_film(path, fps)
        rows = self._pictures()
        columns = math.ceil(math.sqrt(len(rows)))
        write_film([arrange_pictures(list(frame), columns) for frame in zip(*rows, strict=True)], path, fps)


class GANPipeline(LatentPipelineMixin, DiffusionPipeline):
    r"""
    Generates images by one pass through the generator of a generative adversarial network.

    Args:
        generator ([`ModelMixin`]):
            A [`DCGANGenerator`], an [`MLPGenerator`], or any model with the same call: `generator(latents,
            class_labels, return_dict=False)[0]` are images `(N, C, H, W)` in `[-1, 1]` from latents `(N, latent_dim)`
            and labels `(N,)` or `None`. Its configuration has `latent_dim` and `out_channels`, and where they apply
            `num_classes`, `latent_distribution`, `num_categories` and `num_continuous_codes`. One with styles, such as
            [`StyleGAN2Generator`], has `num_styles` and `noise_shapes`, its call takes `styles`, `noise`,
            `truncation_psi` and `truncation_cutoff`, and its second output are the styles. One with statistics for
            each truncation, such as [`BigGANGenerator`], has `num_truncations` in its configuration, and its call
            takes `truncation`.
        discriminator ([`ModelMixin`], *optional*):
            Its counterpart, which further training needs, but no image.
        id2label (`dict[int, str]`, *optional*):
            The name of each class id.

    Raises:
        ValueError: if the generator does not make images from latents, or `id2label` does not fit it.
    """

    pipeline_tag = "unconditional-image-generation"
    samples_from_noise = True
    model_cpu_offload_seq = "generator"
    _exclude_from_cpu_offload = ["discriminator"]
    _optional_components = ["discriminator"]

    def __init__(
        self,
        generator: ModelMixin,
        discriminator: ModelMixin | None = None,
        # JSON has no integer keys, so that model_index.json has strings.
        id2label: dict[int, str] | dict[str, str] | None = None,
    ):
        super().__init__()
        check_latent_generator(generator)
        id2label = read_id2label(id2label)
        check_label_range("id2label", id2label or (), generator.config.get("num_classes") or 0, "the generator")
        self.register_modules(generator=generator, discriminator=discriminator)
        self.register_to_config(id2label=id2label)

    @torch.no_grad()
    def __call__(
        self,
        class_labels: ClassLabels | None = None,
        num_images_per_label: int = 1,
        batch_size: int | None = None,
        truncation: float | None = None,
        categories: int | list[int] | torch.Tensor | np.ndarray | None = None,
        continuous_codes: list[float] | list[list[float]] | torch.Tensor | np.ndarray | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        styles: torch.Tensor | None = None,
        noise: str | list[torch.Tensor] = "constant",
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> GANPipelineOutput | tuple:
        r"""
        Generates `len(class_labels) * num_images_per_label` images; images of one label are next to each other.

        An image is one pass through the generator, so that there are no steps and no callbacks.

        Args:
            class_labels (`int`, `str`, a list of them, `torch.Tensor` or `np.ndarray`, *optional*):
                Class ids, or names as in `id2label`, one or many, for a generator with classes.
            num_images_per_label (`int`, defaults to 1):
                The number of images for each entry of `class_labels`.
            batch_size (`int`, *optional*, defaults to 1, or to the number of `latents`):
                The number of images of a generator without classes.
            truncation (`float`, *optional*):
                The largest absolute value of the noise. Larger values are resampled (the truncation trick of BigGAN,
                Brock et al. 2019, section 3.1, https://huggingface.co/papers/1809.11096): a lower threshold gives more
                typical and less diverse images. With the same seed, smaller values stay the same. A generator with
                `latent_distribution="truncated_normal"` was trained on noise within 2, and a smaller threshold
                multiplies that: 0.8 is the truncation 0.4 of the released BigGANs. One with statistics for each
                truncation also takes it with `latents`, which it does not change.
            categories (`int`, `list[int]`, `torch.Tensor` or `np.ndarray`, *optional*):
                The category of InfoGAN's code, one for all images or one for each, instead of a random one.
            continuous_codes (`list[float]`, `list[list[float]]`, `torch.Tensor` or `np.ndarray`, *optional*):
                The continuous part of InfoGAN's code, `(num_continuous_codes,)` for all images or
                `(N, num_continuous_codes)`, instead of a random one. The generator was trained on values in `[-1, 1]`.
            generator (`torch.Generator` or a list of one for each image, *optional*):
                Makes the images reproducible, on the CPU also for a network on another device. With a list, image i
                depends on generator i alone.
            latents (`torch.Tensor`, *optional*):
                The latents `(N, latent_dim)`, instead of those drawn from `generator`.
            styles (`torch.Tensor`, *optional*):
                The styles w `(N, style_dim)`, or w+ `(N, num_styles, style_dim)`, instead of latents and labels.
            noise (`str` or `list[torch.Tensor]`, defaults to `"constant"`):
                The noise of a generator with styles: `"constant"` for that stored with it, `"random"`, `"none"`, or a
                map `(N, *shape)` or `(1, *shape)` for each of its `noise_shapes`.
            truncation_psi (`float`, defaults to 1.0):
                How much of their distance from the average style is kept (Karras et al. 2019, appendix B,
                https://huggingface.co/papers/1812.04948): less gives more typical and less diverse images.
            truncation_cutoff (`int`, *optional*):
                Only so many styles, from the coarsest one, are truncated.
            output_type (`str`, defaults to `"pil"`):
                `"pil"` for a list of `PIL.Image.Image`, `"np"` for an array `(N, H, W, C)`, `"pt"` for a tensor
                `(N, C, H, W)`, both float32 in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`GANPipelineOutput`] instead of a tuple.

        Returns:
            [`GANPipelineOutput`] or `tuple`: the images, in `.images` or as the first entry.

        Raises:
            ValueError: for input that cannot be carried out.

        Example:

        ```py
        >>> pipe = GANPipeline.from_pretrained("user/digits")
        >>> images = pipe(class_labels=[3, "seven"], num_images_per_label=4, truncation=1.0).images
        ```
        """
        latents_shape = (self.generator.config.latent_dim,)
        number = self.check_inputs(
            class_labels,
            num_images_per_label,
            batch_size,
            truncation,
            generator,
            latents,
            latents_shape,
            output_type,
            styles,
        )
        check_style_options(self.generator, number, noise, truncation_psi, truncation_cutoff)
        device = self._execution_device
        if styles is None:
            latents = self.prepare_latents(
                number, device, generator, latents, truncation, categories, continuous_codes
            )
        if class_labels is not None:
            class_labels = torch.tensor(self.get_label_ids(class_labels), device=device)
            class_labels = class_labels.repeat_interleave(num_images_per_label)
        if noise == "random":
            noise = [draw(torch.randn, (number, *shape), generator, device) for shape in self.generator.noise_shapes]

        options = {"noise": noise, "truncation_psi": truncation_psi, "truncation_cutoff": truncation_cutoff}
        sample, styles = self._run_generator(latents, class_labels, styles, **options, truncation=truncation)
        images = to_output(sample, output_type)
        self.maybe_free_model_hooks()
        if not return_dict:
            return (images,)
        maps = None if isinstance(noise, str) else noise
        return GANPipelineOutput(images=images, latents=latents, styles=styles, noise=maps)

    def prepare_latents(
        self,
        number: int,
        device: torch.device,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None = None,
        truncation: float | None = None,
        categories: Any = None,
        continuous_codes: Any = None,
    ) -> torch.Tensor:
        """The latents `(number, latent_dim)`, in float32: `[noise, one-hot category, continuous codes]`.

        The same seed gives the same noise whatever the truncation and the code.
        """
        config = self.generator.config
        num_categories, num_codes = config.get("num_categories") or 0, config.get("num_continuous_codes") or 0
        noise_dim = config.latent_dim - num_categories - num_codes
        if latents is not None:
            parts = list(latents.to(device, torch.float32).split([noise_dim, num_categories, num_codes], dim=1))
        else:
            distribution, scale = config.get("latent_distribution", "normal"), 1.0
            if distribution == "truncated_normal":  # of released BigGANs: noise within 2, which is made smaller
                scale, truncation = (2.0 if truncation is None else truncation) / 2.0, 2.0
            is_normal = distribution != "uniform"
            noise = draw(torch.randn if is_normal else torch.rand, (number, noise_dim), generator, device)
            noise = noise if is_normal else 2 * noise - 1
            parts = [noise, noise.new_zeros(number, num_categories), noise.new_zeros(number, num_codes)]
            if num_categories > 0:
                category = draw(torch.rand, (number,), generator, device) * num_categories
                parts[1] = torch.nn.functional.one_hot(category.long(), num_categories).float()
            if num_codes > 0:
                parts[2] = 2 * draw(torch.rand, (number, num_codes), generator, device) - 1
            if truncation is not None:
                # Values beyond the threshold are replaced by values from the truncated distribution, by the inverse of
                # its cumulative function. This equals resampling until they are within, but takes one draw.
                inside = 2 * draw(torch.rand, (number, noise_dim), generator, device) - 1
                if is_normal:
                    inside = math.sqrt(2) * (inside * math.erf(truncation / math.sqrt(2))).erfinv()
                else:
                    inside = inside * min(truncation, 1.0)
                inside = inside.clamp(-truncation, truncation)
                parts[0] = scale * torch.where(noise.abs() > truncation, inside, noise)
        if categories is not None:
            parts[1] = self._code("categories", categories, number, num_categories, device)
        if continuous_codes is not None:
            parts[2] = self._code("continuous_codes", continuous_codes, number, num_codes, device)
        return torch.cat(parts, dim=1)

    def _code(self, name: str, value: Any, number: int, size: int, device: torch.device) -> torch.Tensor:
        """A part of InfoGAN's code that the user passes, `(number, size)`."""
        if size == 0:
            raise ValueError(f"`{name}` must be left out, because the generator has none.")
        try:
            value = torch.as_tensor(value, dtype=torch.float32, device=device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"`{name}` must hold numbers, but is {value!r}.") from error
        if name == "categories":
            is_category = (value >= 0) & (value < size) & (value == value.round())
            if value.ndim > 1 or not is_category.all():
                raise ValueError(f"`categories` must be integers from 0 to {size - 1}, but are {value.tolist()}.")
            value = torch.nn.functional.one_hot(value.long(), size).float()
        if not value.isfinite().all() or value.shape not in ((size,), (1, size), (number, size)):
            wanted = f"{number} categories" if name == "categories" else f"of the shape ({number}, {size}), and finite"
            raise ValueError(f"`{name}` must be {wanted}, or one for all, but is {value.tolist()}.")
        return value.expand(number, size)

    def _between(self, start: torch.Tensor, end: torch.Tensor, fraction: torch.Tensor) -> torch.Tensor:
        """Latents between others: on an arc for normal noise, on a straight line for uniform noise and codes."""
        config = self.generator.config
        if config.get("latent_distribution", "normal") == "uniform":
            return lerp(start, end, fraction)
        code_dim = (config.get("num_categories") or 0) + (config.get("num_continuous_codes") or 0)
        noise_dim = config.latent_dim - code_dim
        noise = slerp(start[..., :noise_dim], end[..., :noise_dim], fraction)
        return torch.cat([noise, lerp(start[..., noise_dim:], end[..., noise_dim:], fraction)], dim=-1)

    def _run_generator(
        self,
        latents: torch.Tensor | None,
        class_labels: torch.Tensor | None,
        styles: torch.Tensor | None = None,
        noise: str | list[torch.Tensor] = "constant",
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        truncation: float | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Images `(N, C, H, W)`, float32 in `[0, 1]`, and their styles, if the generator has any."""
        network = self.generator
        latents = None if latents is None else latents.to(network.dtype)
        if not has_styles(network):
            statistics = {"truncation": truncation} if self._has_truncations else {}
            return denormalize(network(latents, class_labels, **statistics, return_dict=False)[0].float()), None
        place = {"device": self._execution_device, "dtype": network.dtype}
        sample, styles = network(
            latents,
            class_labels,
            styles=None if styles is None else styles.to(**place),
            noise=noise if isinstance(noise, str) else [values.to(**place) for values in noise],
            truncation_psi=truncation_psi,
            truncation_cutoff=truncation_cutoff,
            return_dict=False,
        )
        return denormalize(sample.float()), styles.float()

    @torch.no_grad()
    def edit(
        self,
        directions: LatentDirections | str | os.PathLike,
        name: str,
        strength: float | Sequence[float] | torch.Tensor = 3.0,
        layers: range | list[int] | None = None,
        latents: torch.Tensor | None = None,
        class_labels: ClassLabels | None = None,
        styles: torch.Tensor | None = None,
        noise: str | list[torch.Tensor] = "constant",
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> GANPipelineOutput | tuple:
        r"""
        Moves images along a direction in the latent space, such as one of GANSpace (Härkönen et al. 2020,
        https://huggingface.co/papers/2004.02546), SeFa (Shen & Zhou 2021, https://huggingface.co/papers/2007.06600) or
        InterFaceGAN (Shen et al. 2020, https://huggingface.co/papers/2005.09635).

        Args:
            directions ([`LatentDirections`], `str` or `os.PathLike`):
                The directions, or the file of them, such as the command find_directions.py writes.
            name (`str`):
                The name of the direction.
            strength (`float`, a sequence of them or `torch.Tensor`, defaults to 3.0):
                How far images are moved, in standard deviations: one number, or one for each image. A negative one
                moves them the other way.
            layers (`range` or `list[int]`, *optional*):
                The layers, from 0 for the coarsest one, whose styles are moved; by default those of the direction.
            latents (`torch.Tensor`, *optional*), class_labels (*optional*):
                The images as latents `(N, latent_dim)`, and their classes if the generator has any.
            styles (`torch.Tensor`, *optional*):
                The images as styles w `(N, style_dim)` or w+ `(N, num_styles, style_dim)`, such as those that a
                [`GANInversionPipeline`] finds for photographs.
            noise (`str` or `list[torch.Tensor]`, defaults to `"constant"`):
                See [`__call__`].
            output_type (`str`, defaults to `"pil"`), return_dict (`bool`, defaults to `True`):
                See [`__call__`].

        Returns:
            [`GANPipelineOutput`] or `tuple`: the images, and their latents or styles, which can be edited again.

        Raises:
            ValueError: for directions of another generator, an unknown name, and input that cannot be carried out.
            FileNotFoundError: if there is no such file.

        Example:

        ```py
        >>> people = pipe(batch_size=4, truncation_psi=0.7)
        >>> pipe.edit("directions.safetensors", "smile", strength=2.0, styles=people.styles).images
        ```
        """
        if not isinstance(directions, LatentDirections):
            directions = LatentDirections.load(directions)
        directions.check(self.generator)
        if (latents is None) == (styles is None):
            raise ValueError("Either `latents` or `styles` must be given, and not both.")
        num_styles = getattr(self.generator, "num_styles", None)
        if layers is not None and (directions.space == "latents" or not layers):
            raise ValueError("`layers` must name one layer or more, and are for directions of styles.")
        if layers is not None and any(not 0 <= layer < num_styles for layer in layers):
            raise ValueError(f"`layers` must be some of 0 to {num_styles - 1}, but are {list(layers)}.")
        if directions.space == "latents" and styles is not None:
            raise ValueError("These directions are for latents, but `styles` are given.")

        if styles is None and directions.space == "styles":
            styles = self(class_labels, latents=latents, output_type="pt").styles
            latents = class_labels = None
        if styles is not None:
            check_styles(self.generator, styles, "styles")
            styles = per_layer(styles, num_styles)
            styles = directions.add(styles, name, read_strengths(strength, len(styles)), layers)
        else:
            check_latents(latents, (None, self.generator.config.latent_dim))
            latents = directions.add(latents, name, read_strengths(strength, len(latents)))
        return self(
            class_labels,
            latents=latents,
            styles=styles,
            noise=noise,
            output_type=output_type,
            return_dict=return_dict,
        )

    @torch.no_grad()
    def mix_styles(
        self,
        row_styles: torch.Tensor,
        column_styles: torch.Tensor,
        layers: range | list[int],
        noise: str | list[torch.Tensor] = "constant",
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> GANWalkOutput | tuple:
        r"""
        Mixes each style of a row with each style of a column (Karras et al. 2019, figure 3).

        Args:
            row_styles, column_styles (`torch.Tensor` of shape `(rows, ...)` and `(columns, ...)`):
                Styles w or w+, such as `pipe(...).styles`.
            layers (`range` or `list[int]`):
                The layers, from 0 for the coarsest one, whose styles are those of the columns. The other layers have
                the styles of the rows.
            noise (`str` or `list[torch.Tensor]`, defaults to `"constant"`):
                See [`__call__`]; maps are for all images.
            output_type (`str`, defaults to `"pil"`), return_dict (`bool`, defaults to `True`):
                See [`walk`].

        Returns:
            [`GANWalkOutput`] or `tuple`: a row of images for each of `row_styles`.

        Raises:
            ValueError: for input that cannot be carried out.

        Example:

        ```py
        >>> people, looks = pipe(batch_size=4).styles, pipe(batch_size=6).styles
        >>> pipe.mix_styles(people, looks, layers=range(4, 8)).grid().save("mixed.png")
        ```
        """
        check_style_options(self.generator, 1, noise, 1.0, None, needs_styles=True)
        check_styles(self.generator, row_styles, "row_styles")
        check_styles(self.generator, column_styles, "column_styles")
        check_output_type(output_type, self.generator.config.out_channels)
        num_styles = self.generator.num_styles
        if not layers or any(not 0 <= layer < num_styles for layer in layers):
            raise ValueError(f"`layers` must be some of 0 to {num_styles - 1}, but are {list(layers)}.")
        rows, columns = (per_layer(styles, num_styles) for styles in (row_styles, column_styles))
        mixed = rows[:, None].repeat(1, len(columns), 1, 1)
        mixed[:, :, list(layers)] = columns[None][:, :, list(layers)].to(mixed)
        batches = [{"styles": batch, "noise": noise} for batch in mixed.flatten(0, 1).split(WALK_BATCH)]
        return self._frames(batches, len(rows), len(columns), output_type, return_dict)

    def _frames(
        self, batches: Iterable[dict], rows: int, columns: int, output_type: str, return_dict: bool
    ) -> GANWalkOutput | tuple:
        """The images of batches of arguments of [`_run_generator`], row by row."""
        made = [self._run_generator(**{"latents": None, "class_labels": None, **batch})[0] for batch in batches]
        images = torch.cat(made).unflatten(0, (rows, columns))
        if output_type != "pt":
            images = [to_output(row, output_type) for row in images]
        if output_type == "np":
            images = np.stack(images)
        self.maybe_free_model_hooks()
        return GANWalkOutput(images=images) if return_dict else (images,)

    def interpolate(
        self,
        class_labels: ClassLabels | None = None,
        num_frames: int = 8,
        batch_size: int | None = None,
        truncation: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        styles: torch.Tensor | None = None,
        space: str = "latents",
        noise: str | list[torch.Tensor] = "constant",
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> GANWalkOutput | tuple:
        r"""
        Generates the images between two latents, both ends included: a [`walk`] through two points.

        Args:
            num_frames (`int`, defaults to 8):
                The number of images from one latent to the other.
            latents (`torch.Tensor`, *optional*):
                The two ends of each row, `(rows, 2, latent_dim)`.
            styles (`torch.Tensor`, *optional*):
                The two ends of each row as styles, `(rows, 2, style_dim)` or `(rows, 2, num_styles, style_dim)`.

        For the other arguments and the result see [`walk`].

        Example:

        ```py
        >>> pipe.interpolate(class_labels=[3, "seven"]).grid().save("interpolation.png")
        ```
        """
        if latents is not None and torch.is_tensor(latents) and latents.ndim == 3 and latents.shape[1] != 2:
            raise ValueError(f"`latents` must hold the two ends of each row, but hold {latents.shape[1]}.")
        if torch.is_tensor(styles) and styles.ndim > 2 and styles.shape[1] != 2:
            raise ValueError(f"`styles` must hold the two ends of each row, but hold {styles.shape[1]}.")
        return self.walk(
            class_labels=class_labels,
            num_frames=num_frames,
            batch_size=batch_size,
            num_points=2,
            closed=False,
            truncation=truncation,
            generator=generator,
            latents=latents,
            styles=styles,
            space=space,
            noise=noise,
            truncation_psi=truncation_psi,
            truncation_cutoff=truncation_cutoff,
            output_type=output_type,
            return_dict=return_dict,
        )

    @torch.no_grad()
    def walk(
        self,
        class_labels: ClassLabels | None = None,
        num_frames: int = 60,
        batch_size: int | None = None,
        num_points: int = 4,
        closed: bool = True,
        truncation: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        styles: torch.Tensor | None = None,
        space: str = "latents",
        noise: str | list[torch.Tensor] = "constant",
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> GANWalkOutput | tuple:
        r"""
        Generates walks through the latent space, from point to point in even steps.

        Between two points a walk follows an arc if the latents are normal ([`slerp`]), and a straight line if they are
        uniform. InfoGAN's code and styles always follow a straight line.

        Args:
            class_labels (`int`, `str`, a list of them, `torch.Tensor` or `np.ndarray`, *optional*):
                The class of each walk, for a generator with classes.
            num_frames (`int`, defaults to 60):
                The number of images of each walk, at least 2.
            batch_size (`int`, *optional*, defaults to 1, or to the rows of `latents`):
                The number of walks with a generator without classes.
            num_points (`int`, defaults to 4):
                The number of points that each walk passes, at least 2. `latents` have their own number.
            closed (`bool`, defaults to `True`):
                Whether each walk returns to its first point, so that the film can be repeated.
            truncation (`float`, *optional*):
                The largest absolute value of the noise in the points, see [`__call__`].
            generator (`torch.Generator` or a list of one for each walk, *optional*):
                Makes the points reproducible.
            latents (`torch.Tensor`, *optional*):
                The points, `(rows, points, latent_dim)`.
            styles (`torch.Tensor`, *optional*):
                The points as styles w or w+, `(rows, points, style_dim)` or `(rows, points, num_styles, style_dim)`,
                instead of latents and labels.
            space (`str`, defaults to `"latents"`):
                Where the walk between latents goes: in their own space z, or in that of their `"styles"`.
            noise, truncation_psi, truncation_cutoff:
                See [`__call__`]; maps of noise, `(1, *shape)`, are for all images, and so is `"random"` noise.
            output_type (`str`, defaults to `"pil"`):
                `"pil"`, `"np"` or `"pt"`, see [`GANWalkOutput`].
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`GANWalkOutput`] instead of a tuple.

        Returns:
            [`GANWalkOutput`] or `tuple`: the images of each walk; `.grid()` makes one picture of them, and
            `.save("walk.gif")` a film.

        Raises:
            ValueError: for input that cannot be carried out.

        Example:

        ```py
        >>> pipe.walk(class_labels=range(10), num_frames=100).save("walk.gif", fps=20)
        ```
        """
        latent_dim = self.generator.config.latent_dim
        if torch.is_tensor(latents) and latents.ndim == 3:
            num_points = latents.shape[1]
        if torch.is_tensor(styles) and styles.ndim > 2:
            num_points = styles.shape[1]
        check_positive_int("num_points", num_points, least=2)
        check_positive_int("num_frames", num_frames, least=2)
        shape = (num_points, latent_dim)
        rows = self.check_inputs(
            class_labels, 1, batch_size, truncation, generator, latents, shape, output_type, styles, num_points
        )
        is_in_styles = styles is not None or space == "styles"
        if space not in ("latents", "styles"):
            raise ValueError(f'`space` must be "latents" or "styles", but is {space!r}.')
        check_style_options(self.generator, 1, noise, truncation_psi, truncation_cutoff, needs_styles=is_in_styles)
        device = self._execution_device
        if noise == "random":
            source = generator[0] if isinstance(generator, list) else generator
            noise = [draw(torch.randn, (1, *shape), source, device) for shape in self.generator.noise_shapes]
        options = {"noise": noise, "truncation_psi": truncation_psi, "truncation_cutoff": truncation_cutoff}
        options["truncation"] = truncation

        # 1. Points
        if latents is None and styles is None:
            if isinstance(generator, list):
                draws = [(num_points, row_generator) for row_generator in generator]
            else:
                draws = [(rows * num_points, generator)]
            latents = [self.prepare_latents(number, device, source, truncation=truncation) for number, source in draws]
            latents = torch.cat(latents).unflatten(0, (rows, num_points))
        labels = None
        if class_labels is not None:
            labels = torch.tensor(self.get_label_ids(class_labels), device=device)
        if is_in_styles and styles is None:
            of_points = None if labels is None else labels.repeat_interleave(num_points)
            _, styles = self._run_generator(latents.to(device, torch.float32).flatten(0, 1), of_points)
            styles = styles.unflatten(0, (rows, num_points))
        points = (styles if is_in_styles else latents).to(device, torch.float32)

        # 2. Steps: the position of each frame, counted in points
        if closed:
            points = torch.cat([points, points[:, :1]], dim=1)
            positions = torch.arange(num_frames, device=device) * (num_points / num_frames)
        else:
            positions = torch.arange(num_frames, device=device) * ((num_points - 1) / (num_frames - 1))
        before = positions.long().clamp(max=points.shape[1] - 2)
        fractions = (positions - before).view(-1, *[1] * (points.ndim - 2))
        between = lerp if is_in_styles else self._between
        frames = between(points[:, before], points[:, before + 1], fractions).flatten(0, 1)

        # 3. Images
        name = "styles" if is_in_styles else "latents"
        batches = [{name: batch, **options} for batch in frames.split(WALK_BATCH)]
        if labels is not None and not is_in_styles:
            of_frames = labels.repeat_interleave(num_frames).split(WALK_BATCH)
            batches = [{**batch, "class_labels": ids} for batch, ids in zip(batches, of_frames, strict=True)]
        return self._frames(batches, rows, num_frames, output_type, return_dict)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs) -> "GANPipeline":
        """As in diffusers, but models of other classes than the signature names are taken over, too."""
        return super().from_pipe(pipeline, **{**get_shared_models(pipeline, cls), **kwargs})

    @property
    def _has_truncations(self) -> bool:
        """Whether the generator has statistics for each truncation."""
        return self.generator.config.get("num_truncations") is not None

    def check_inputs(
        self,
        class_labels: ClassLabels | None,
        num_images_per_label: int,
        batch_size: int | None,
        truncation: float | None,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
        latents_shape: tuple[int, ...],
        output_type: str,
        styles: torch.Tensor | None = None,
        num_points: int | None = None,
    ) -> int:
        """
        Refuses what the call could not carry out, with a `ValueError` of one sentence.

        Args:
            latents_shape (`tuple`): what `latents` must have behind the first dimension.
            num_points (`int`, *optional*): the points of each walk, which are behind the first dimension of `styles`.

        Returns:
            `int`: the number of images, or of walks.
        """
        if styles is not None:
            check_styles(self.generator, styles, "styles", num_points)
            given = {"latents": latents, "class_labels": class_labels, "truncation": truncation}
            for name, value in given.items():
                if value is not None:
                    raise ValueError(f"`{name}` must be left out, because `styles` are given.")
            number = count_images(None, 1, len(styles) if batch_size is None else batch_size)
            if number != len(styles):
                raise ValueError(f"`styles` are {len(styles)}, but `batch_size` is {batch_size}.")
            check_generator(generator, number)
            check_output_type(output_type, self.generator.config.out_channels)
            return number
        check_latents(latents, (None, *latents_shape))
        check_class_labels_given(class_labels, self.num_classes is not None, None, "the generator")
        num_labels = None if class_labels is None else len(self.get_label_ids(class_labels))
        number = count_images(num_labels, num_images_per_label, batch_size)
        if latents is not None and class_labels is None and batch_size is None:
            number = len(latents)
        check_latents(latents, (number, *latents_shape))
        check_generator(generator, number)
        if truncation is not None:
            check_positive("truncation", truncation)
            if latents is not None and not self._has_truncations:
                raise ValueError("`truncation` is for random latents, but `latents` are given.")
        check_output_type(output_type, self.generator.config.out_channels)
        return number


def draw(function, shape: tuple[int, ...], generator, device: torch.device) -> torch.Tensor:
    """Numbers from `torch.randn` or `torch.rand`; with a list of generators, row i is from generator i."""
    if isinstance(generator, list):
        rows = [draw(function, (1, *shape[1:]), row_generator, device) for row_generator in generator]
        return torch.cat(rows)
    source = device if generator is None else generator.device
    return function(shape, generator=generator, device=source, dtype=torch.float32).to(device)
