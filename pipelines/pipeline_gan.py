"""Images from the generator of a GAN, class-conditional or not, and walks through its latent space."""

import difflib
import importlib.util
import math
import os
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, ModelMixin
from diffusers.utils import BaseOutput, export_to_video
from PIL import Image


WALK_BATCH = 64  # frames of a walk that the generator makes at once
SLOWEST_GIF = 0.002  # frames per second
PARALLEL = 1e-4  # sine of an angle below which two latents are of one direction, or of opposite ones


def check_positive_int(name: str, value: Any, least: int = 1):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        wanted = "a positive integer" if least == 1 else f"an integer of at least {least}"
        raise ValueError(f"`{name}` must be {wanted}, but is {value!r}.")


def check_positive(name: str, value: Any):
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value <= 0:
        raise ValueError(f"`{name}` must be a positive number, but is {value!r}.")


def lerp(start: torch.Tensor, end: torch.Tensor, fraction: torch.Tensor) -> torch.Tensor:
    """On the straight line from `start` (fraction 0) to `end` (fraction 1)."""
    return (1 - fraction) * start + fraction * end


def slerp(start: torch.Tensor, end: torch.Tensor, fraction: torch.Tensor) -> torch.Tensor:
    r"""
    On the arc from `start` (fraction 0) to `end` (fraction 1), on which latents of one length keep it.

    Normal latents of many dimensions have all nearly one length, and the middle of a straight line between two of them
    is too short to be a likely one (White 2016, section 2.1, https://huggingface.co/papers/1609.04468). Where two
    directions are the same or opposite, or one has none, this is the straight line.

    Args:
        start, end (`torch.Tensor` of shape `(..., D)`): the two ends.
        fraction (`torch.Tensor`, which broadcasts to `(..., 1)`): from 0 to 1.
    """
    norms = start.norm(dim=-1, keepdim=True) * end.norm(dim=-1, keepdim=True)
    cosine = (start * end).sum(dim=-1, keepdim=True) / norms.clamp(min=1e-12)
    angle = cosine.clamp(-1, 1).acos()
    is_arc = (angle.sin() > PARALLEL) & (norms > 0)
    angle = torch.where(is_arc, angle, 1.0)
    arc = (((1 - fraction) * angle).sin() * start + (fraction * angle).sin() * end) / angle.sin()
    return torch.where(is_arc, arc, lerp(start, end, fraction))


def draw(function, shape: tuple[int, ...], generator, device: torch.device) -> torch.Tensor:
    """`torch.randn` or `torch.rand`, whose row i comes of the i-th generator where there is a list of them."""
    if isinstance(generator, list):
        rows = [draw(function, (1, *shape[1:]), row_generator, device) for row_generator in generator]
        return torch.cat(rows)
    source = device if generator is None else generator.device
    return function(shape, generator=generator, device=source, dtype=torch.float32).to(device)


def tile(pictures: list[Image.Image], columns: int) -> Image.Image:
    width, height = pictures[0].size
    rows = math.ceil(len(pictures) / columns)
    picture = Image.new(pictures[0].mode, (columns * width, rows * height))
    for i, part in enumerate(pictures):
        picture.paste(part, (i % columns * width, i // columns * height))
    return picture


@dataclass
class GANWalkOutput(BaseOutput):
    """
    The frames of one or more walks through the latent space, each of which is a row.

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
        return [DiffusionPipeline.numpy_to_pil(row) for row in frames]

    def grid(self) -> Image.Image:
        """One picture of all: each walk is a row, from left to right."""
        rows = self._pictures()
        return tile([picture for row in rows for picture in row], columns=len(rows[0]))

    def save(self, path: str | os.PathLike, fps: float = 12) -> None:
        """
        Writes a film in which all the walks run side by side.

        Args:
            path (`str` or `os.PathLike`):
                A file that ends in `.gif`, which repeats forever, or in `.mp4`, which needs the packages imageio and
                imageio-ffmpeg. It appears whole or not at all.
            fps (`float`, defaults to 12):
                Frames per second. A GIF counts in hundredths of a second, and has from 0.002 to 50.

        Raises:
            ValueError: for another ending, or `fps` out of range.
            ImportError: for an `.mp4` without these packages.
        """
        check_positive("fps", fps)
        suffix = os.path.splitext(path)[1].lower()
        if suffix not in (".gif", ".mp4"):
            raise ValueError(f"A film is written to a file that ends in .gif or .mp4, but {os.fspath(path)} does not.")
        if suffix == ".gif" and not SLOWEST_GIF <= fps <= 50:
            raise ValueError(f"`fps` of a GIF must be from {SLOWEST_GIF} to 50, but is {fps}.")
        lacking = [name for name in ("imageio", "imageio_ffmpeg") if importlib.util.find_spec(name) is None]
        if suffix == ".mp4" and lacking:
            raise ImportError(
                f"An .mp4 needs {' and '.join(lacking)}: run `pip install imageio imageio-ffmpeg`, or write a .gif."
            )

        rows = self._pictures()
        columns = math.ceil(math.sqrt(len(rows)))
        frames = [tile(list(pictures), columns) for pictures in zip(*rows, strict=True)]
        folder = tempfile.mkdtemp(dir=os.path.dirname(os.path.abspath(path)))
        unfinished = os.path.join(folder, "film" + suffix)
        try:
            if suffix == ".gif":
                frames[0].save(
                    unfinished, save_all=True, append_images=frames[1:], duration=round(100 / fps) * 10, loop=0
                )
            else:
                # the codec wants even sides
                export_to_video([frame.convert("RGB") for frame in frames], unfinished, fps=fps, macro_block_size=2)
            os.replace(unfinished, path)
        finally:
            if os.path.exists(unfinished):
                os.remove(unfinished)
            os.rmdir(folder)


class GANPipeline(DiffusionPipeline):
    r"""
    Generates images by one pass through the generator of a generative adversarial network.

    Args:
        generator ([`ModelMixin`]):
            A [`DCGANGenerator`], an [`MLPGenerator`], or any model with the same call, `generator(latents,
            class_labels, return_dict=False)[0]`, which makes images `(N, C, H, W)` in `[-1, 1]` of latents
            `(N, latent_dim)` and labels `(N,)` or `None`, and with the entries `latent_dim`, `out_channels`, and where
            they apply `num_classes`, `latent_distribution`, `num_categories` and `num_continuous_codes` in its config.
        discriminator ([`ModelMixin`], *optional*):
            Its counterpart, which no image needs, but further training does.
        id2label (`dict[int, str]`, *optional*):
            The name of each class id.

    Raises:
        ValueError: if the generator makes images of something else, or `id2label` does not fit it.
    """

    model_cpu_offload_seq = "generator"
    _exclude_from_cpu_offload = ["discriminator"]
    _optional_components = ["discriminator"]

    def __init__(
        self,
        generator: ModelMixin,
        discriminator: ModelMixin | None = None,
        # JSON has no integer keys: model_index.json gives strings back.
        id2label: dict[int, str] | dict[str, str] | None = None,
    ):
        super().__init__()
        if not {"latent_dim", "out_channels"} <= set(generator.config):
            raise ValueError(
                "`generator` must make images of latents, with `latent_dim` and `out_channels` in its configuration, "
                f"but is a {type(generator).__name__}."
            )
        if id2label is not None:
            if not all(str(label).isdigit() for label in id2label):
                raise ValueError(f"`id2label` must map class ids to names, but has the keys {list(id2label)[:5]}.")
            id2label = {int(label): name for label, name in id2label.items()}
            num_classes = generator.config.get("num_classes") or 0
            for label in id2label:
                if label >= num_classes:
                    raise ValueError(f"`id2label` has the label {label}, but the generator has {num_classes} classes.")

        self.register_modules(generator=generator, discriminator=discriminator)
        self.register_to_config(id2label=id2label)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs) -> "GANPipeline":
        """As in diffusers, which alone would leave behind models of other classes than the signature names."""
        models = {name: pipeline.components.get(name) for name in ("generator", "discriminator")}
        models = {name: model for name, model in models.items() if model is not None}
        return super().from_pipe(pipeline, **{**models, **kwargs})

    @property
    def num_classes(self) -> int | None:
        """How many classes the generator knows; `None` for an unconditional one."""
        return self.generator.config.get("num_classes")

    def get_label_ids(self, class_labels: int | str | list[int | str] | torch.Tensor | np.ndarray) -> list[int]:
        r"""
        The class ids of labels given by id or by name, where a name counts only as `id2label` spells it.

        Raises:
            ValueError: for no label at all, an unknown or ambiguous name, an id out of range, or anything else, and
                if the generator has no classes.
        """
        if self.num_classes is None:
            raise ValueError("`class_labels` must be left out, for the generator has no classes.")
        if isinstance(class_labels, (torch.Tensor, np.ndarray)):
            class_labels = class_labels.tolist()
        if not isinstance(class_labels, (list, tuple, range)):
            class_labels = [class_labels]
        if len(class_labels) == 0:
            raise ValueError("`class_labels` is empty, and no image can be made.")
        return [self._get_label_id(label) for label in class_labels]

    def _get_label_id(self, label: int | str | np.generic | torch.Tensor) -> int:
        if isinstance(label, (np.generic, np.ndarray, torch.Tensor)) and label.ndim == 0:
            label = label.item()
        if isinstance(label, str):
            label = self._get_id_of_name(label)
        if isinstance(label, bool) or not isinstance(label, int):
            raise ValueError(f"`class_labels` must hold class ids (integers) or class names, but holds {label!r}.")
        if not 0 <= label < self.num_classes:
            raise ValueError(f"There is no class {label}: the class ids are 0 to {self.num_classes - 1}.")
        return label

    # Copied from diffusers_ext.pipelines.pipeline_class_conditional.ClassConditionalPipeline._get_id_of_name
    def _get_id_of_name(self, name: str) -> int:
        id2label = self.config.id2label or {}
        ids = [label for label, known_name in id2label.items() if known_name == name]
        if len(ids) == 1:
            return ids[0]
        if ids:
            raise ValueError(f"The name {name!r} belongs to the classes {ids}: pass the id of the one you mean.")
        if not id2label:
            raise ValueError(
                f"The name {name!r} cannot be looked up, for the pipeline has no `id2label`: pass a class id."
            )
        names = difflib.get_close_matches(name, id2label.values()) or list(id2label.values())
        names = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
        raise ValueError(f"There is no class named {name!r}: did you mean one of {names}?")

    def check_inputs(
        self,
        class_labels: int | str | list[int | str] | torch.Tensor | np.ndarray | None,
        num_images_per_label: int,
        batch_size: int | None,
        truncation: float | None,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
        latents_shape: tuple[int, ...],
        output_type: str,
    ) -> int:
        """Refuses, with a `ValueError` of one sentence, what the call could not carry out.

        Args:
            latents_shape (`tuple`): what must be behind the first dimension of `latents`.

        Returns:
            `int`: the number of images, or of walks.
        """
        if latents is not None and (not torch.is_tensor(latents) or latents.shape[1:] != latents_shape):
            found = tuple(latents.shape) if torch.is_tensor(latents) else type(latents).__name__
            wanted = ", ".join(map(str, latents_shape))
            raise ValueError(f"`latents` must be a tensor of the shape (N, {wanted}), but is {found}.")
        number = self._check_labels(class_labels, num_images_per_label, batch_size)
        if latents is not None and class_labels is None and batch_size is None:
            number = len(latents)
        if latents is not None and (len(latents) != number or number == 0):
            raise ValueError(f"`latents` must be {number or 'one or more'}, but are {len(latents)}.")
        for one in generator if isinstance(generator, list) else [generator]:
            if one is not None and not isinstance(one, torch.Generator):
                raise ValueError(f"`generator` must be a torch.Generator or a list of them, but has {one!r}.")
        if isinstance(generator, list) and len(generator) != number:
            raise ValueError(f"`generator` must be one generator or a list of {number}, but of {len(generator)}.")
        if truncation is not None:
            check_positive("truncation", truncation)
            if latents is not None:
                raise ValueError("`truncation` is for latents that are drawn, but `latents` are given.")

        channels = self.generator.config.out_channels
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"`output_type` must be 'pil', 'np' or 'pt', but is {output_type!r}.")
        if output_type == "pil" and channels not in (1, 3, 4):
            raise ValueError(f"PIL has no images of {channels} channels: pass `output_type='np'` or 'pt'.")
        return number

    def _check_labels(self, class_labels, num_images_per_label, batch_size) -> int:
        check_positive_int("num_images_per_label", num_images_per_label)
        if class_labels is not None:
            number = len(self.get_label_ids(class_labels)) * num_images_per_label
            if batch_size is not None:
                raise ValueError("`batch_size` is for generators without classes: pass one label for each image.")
            return number
        if self.num_classes is not None:
            raise ValueError("`class_labels` must be given, for the generator makes images of classes.")
        if num_images_per_label != 1:
            raise ValueError("`num_images_per_label` needs `class_labels`: pass `batch_size` instead.")
        if batch_size is not None:
            check_positive_int("batch_size", batch_size)
        return batch_size or 1

    def _code(self, name: str, value: Any, number: int, size: int, device: torch.device) -> torch.Tensor:
        """A given part of InfoGAN's code, `(number, size)`."""
        if size == 0:
            raise ValueError(f"`{name}` must be left out, for the generator has none.")
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
            is_normal = config.get("latent_distribution", "normal") == "normal"
            noise = draw(torch.randn if is_normal else torch.rand, (number, noise_dim), generator, device)
            noise = noise if is_normal else 2 * noise - 1
            parts = [noise, noise.new_zeros(number, num_categories), noise.new_zeros(number, num_codes)]
            if num_categories > 0:
                category = draw(torch.rand, (number,), generator, device) * num_categories
                parts[1] = torch.nn.functional.one_hot(category.long(), num_categories).float()
            if num_codes > 0:
                parts[2] = 2 * draw(torch.rand, (number, num_codes), generator, device) - 1
            if truncation is not None:
                # What falls beyond the threshold is drawn once more from the distribution within it, by the inverse of
                # its cumulative function: as if it was resampled until it falls within, but of one draw.
                inside = 2 * draw(torch.rand, (number, noise_dim), generator, device) - 1
                if is_normal:
                    inside = math.sqrt(2) * (inside * math.erf(truncation / math.sqrt(2))).erfinv()
                else:
                    inside = inside * min(truncation, 1.0)
                parts[0] = torch.where(noise.abs() > truncation, inside.clamp(-truncation, truncation), noise)
        if categories is not None:
            parts[1] = self._code("categories", categories, number, num_categories, device)
        if continuous_codes is not None:
            parts[2] = self._code("continuous_codes", continuous_codes, number, num_codes, device)
        return torch.cat(parts, dim=1)

    def _between(self, start: torch.Tensor, end: torch.Tensor, fraction: torch.Tensor) -> torch.Tensor:
        """Latents between others: on an arc where the noise is normal, on a line where it is uniform and in codes."""
        config = self.generator.config
        if config.get("latent_distribution", "normal") != "normal":
            return lerp(start, end, fraction)
        code_dim = (config.get("num_categories") or 0) + (config.get("num_continuous_codes") or 0)
        noise_dim = config.latent_dim - code_dim
        noise = slerp(start[..., :noise_dim], end[..., :noise_dim], fraction)
        return torch.cat([noise, lerp(start[..., noise_dim:], end[..., noise_dim:], fraction)], dim=-1)

    def _generate(self, latents: torch.Tensor, class_labels: torch.Tensor | None) -> torch.Tensor:
        """Images `(N, C, H, W)`, float32 in `[0, 1]`."""
        sample = self.generator(latents.to(self.generator.dtype), class_labels, return_dict=False)[0]
        return (sample.float() / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def __call__(
        self,
        class_labels: int | str | list[int | str] | torch.Tensor | np.ndarray | None = None,
        num_images_per_label: int = 1,
        batch_size: int | None = None,
        truncation: float | None = None,
        categories: int | list[int] | torch.Tensor | np.ndarray | None = None,
        continuous_codes: list[float] | list[list[float]] | torch.Tensor | np.ndarray | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        r"""
        Generates `len(class_labels) * num_images_per_label` images, those of one label next to each other.

        There are no steps, and hence no callbacks: an image is one pass through the generator.

        Args:
            class_labels (`int`, `str`, a list of them, `torch.Tensor` or `np.ndarray`, *optional*):
                Class ids, or names as in `id2label`, one or many, for a generator with classes.
            num_images_per_label (`int`, defaults to 1):
                The number of images for each entry of `class_labels`.
            batch_size (`int`, *optional*, defaults to 1, or to the number of `latents`):
                The number of images of a generator without classes.
            truncation (`float`, *optional*):
                The largest absolute value of the noise. What falls beyond is resampled within (the truncation trick of
                BigGAN, Brock et al. 2019, section 3.1, https://huggingface.co/papers/1809.11096): lower values give
                more typical and less diverse images. The same seed keeps what was within.
            categories (`int`, `list[int]`, `torch.Tensor` or `np.ndarray`, *optional*):
                The category of InfoGAN's code, of all images or of each, instead of a drawn one.
            continuous_codes (`list[float]`, `list[list[float]]`, `torch.Tensor` or `np.ndarray`, *optional*):
                The continuous part of InfoGAN's code, `(num_continuous_codes,)` for all images or
                `(N, num_continuous_codes)`, instead of a drawn one. The generator was trained on values in `[-1, 1]`.
            generator (`torch.Generator` or a list of one for each image, *optional*):
                Makes the images reproducible, on the CPU also for a network on another device. Of a list, image i
                depends on the i-th alone.
            latents (`torch.Tensor`, *optional*):
                The latents `(N, latent_dim)`, instead of ones drawn from `generator`.
            output_type (`str`, defaults to `"pil"`):
                `"pil"` for a list of `PIL.Image.Image`, `"np"` for an array `(N, H, W, C)`, `"pt"` for a tensor
                `(N, C, H, W)`, both float32 in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`ImagePipelineOutput`] instead of a tuple.

        Returns:
            [`ImagePipelineOutput`] or `tuple`: the images, in `.images` or as the first entry.

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
            class_labels, num_images_per_label, batch_size, truncation, generator, latents, latents_shape, output_type
        )
        device = self._execution_device
        latents = self.prepare_latents(number, device, generator, latents, truncation, categories, continuous_codes)
        if class_labels is not None:
            class_labels = torch.tensor(self.get_label_ids(class_labels), device=device)
            class_labels = class_labels.repeat_interleave(num_images_per_label)
        images = self._generate(latents, class_labels)
        if output_type != "pt":
            images = images.permute(0, 2, 3, 1).cpu().numpy()
        if output_type == "pil":
            images = self.numpy_to_pil(images)

        self.maybe_free_model_hooks()

        if not return_dict:
            return (images,)
        return ImagePipelineOutput(images=images)

    def interpolate(
        self,
        class_labels: int | str | list[int | str] | torch.Tensor | np.ndarray | None = None,
        num_frames: int = 8,
        batch_size: int | None = None,
        truncation: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
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

        For the other arguments and the result see [`walk`].

        Example:

        ```py
        >>> pipe.interpolate(class_labels=[3, "seven"]).grid().save("interpolation.png")
        ```
        """
        if latents is not None and torch.is_tensor(latents) and latents.ndim == 3 and latents.shape[1] != 2:
            raise ValueError(f"`latents` must hold the two ends of each row, but hold {latents.shape[1]}.")
        return self.walk(
            class_labels=class_labels,
            num_frames=num_frames,
            batch_size=batch_size,
            num_points=2,
            closed=False,
            truncation=truncation,
            generator=generator,
            latents=latents,
            output_type=output_type,
            return_dict=return_dict,
        )

    @torch.no_grad()
    def walk(
        self,
        class_labels: int | str | list[int | str] | torch.Tensor | np.ndarray | None = None,
        num_frames: int = 60,
        batch_size: int | None = None,
        num_points: int = 4,
        closed: bool = True,
        truncation: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> GANWalkOutput | tuple:
        r"""
        Generates walks through the latent space, from point to point in even steps.

        Between two points it goes along an arc where the latents are normal ([`slerp`]), and along a straight line
        where they are uniform, as it does for InfoGAN's code.

        Args:
            class_labels (`int`, `str`, a list of them, `torch.Tensor` or `np.ndarray`, *optional*):
                The class of each walk, for a generator with classes.
            num_frames (`int`, defaults to 60):
                The number of images of each walk, at least 2.
            batch_size (`int`, *optional*, defaults to 1, or to the rows of `latents`):
                The number of walks with a generator without classes.
            num_points (`int`, defaults to 4):
                The number of points that each walk passes, at least 2. With `latents` it is theirs.
            closed (`bool`, defaults to `True`):
                Whether each walk returns to its first point, so that the film can be repeated.
            truncation (`float`, *optional*):
                The largest absolute value of the noise in the points, see [`__call__`].
            generator (`torch.Generator` or a list of one for each walk, *optional*):
                Draws the points.
            latents (`torch.Tensor`, *optional*):
                The points, `(rows, points, latent_dim)`.
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
        check_positive_int("num_points", num_points, least=2)
        check_positive_int("num_frames", num_frames, least=2)
        rows = self.check_inputs(
            class_labels, 1, batch_size, truncation, generator, latents, (num_points, latent_dim), output_type
        )
        device = self._execution_device

        # 1. Points
        if latents is None:
            if isinstance(generator, list):
                draws = [(num_points, row_generator) for row_generator in generator]
            else:
                draws = [(rows * num_points, generator)]
            latents = [self.prepare_latents(number, device, source, truncation=truncation) for number, source in draws]
            latents = torch.cat(latents).unflatten(0, (rows, num_points))
        latents = latents.to(device, torch.float32)

        # 2. Steps: the position of each frame, counted in points
        if closed:
            latents = torch.cat([latents, latents[:, :1]], dim=1)
            positions = torch.arange(num_frames, device=device) * (num_points / num_frames)
        else:
            positions = torch.arange(num_frames, device=device) * ((num_points - 1) / (num_frames - 1))
        before = positions.long().clamp(max=latents.shape[1] - 2)
        fractions = (positions - before)[:, None]
        frames = self._between(latents[:, before], latents[:, before + 1], fractions).flatten(0, 1)

        # 3. Images
        batches = [(batch, None) for batch in frames.split(WALK_BATCH)]
        if class_labels is not None:
            labels = torch.tensor(self.get_label_ids(class_labels), device=device).repeat_interleave(num_frames)
            batches = zip(frames.split(WALK_BATCH), labels.split(WALK_BATCH), strict=True)
        images = torch.cat([self._generate(*batch) for batch in batches]).unflatten(0, (rows, num_frames))
        if output_type != "pt":
            images = images.permute(0, 1, 3, 4, 2).cpu().numpy()
        if output_type == "pil":
            images = [self.numpy_to_pil(row) for row in images]

        self.maybe_free_model_hooks()

        if not return_dict:
            return (images,)
        return GANWalkOutput(images=images)
