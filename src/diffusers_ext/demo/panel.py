"""What a pipeline shows on its page: actions, each with its controls and what it makes."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from diffusers import BaseGuidance, DiffusionPipeline
from PIL import Image, ImageOps

from diffusers_ext.demo.controls import (
    MAX_IMAGE_PIXELS,
    Choice,
    Control,
    Integer,
    Number,
    PaintedPicture,
    Picture,
)
from diffusers_ext.pipelines.denoising import build_guider, get_guidance_scale


MOST_CLASSES_AT_ONCE = 20
MOST_SLIDERS = 12
FRAMES_SHOWN = 12
HIDDEN = (128, 128, 128)  # how hidden pixels are shown


@dataclass(frozen=True)
class Limits:
    """
    What one visit may ask for.

    Args:
        images (`int`): the most pictures that one click makes.
        side (`int`): the most pixels of the longer side of what a network works on; larger uploads are shrunk.
        image_pixels (`int`): the most pixels of an upload; larger ones are refused before they are decoded.
        file_size (`int`): the most bytes of an upload.
    """

    images: int = 64
    side: int = 1024
    image_pixels: int = MAX_IMAGE_PIXELS
    file_size: int = 20_000_000


@dataclass
class Made:
    """
    What an action made.

    Args:
        pictures (`list[PIL.Image.Image]`): for the gallery.
        captions (`list[str]`): one for each picture.
        pair (`tuple[PIL.Image.Image, PIL.Image.Image]`, *optional*): before and after, of one size.
        film (`list[PIL.Image.Image]`, *optional*): frames of one size.
        note (`str`): a line of Markdown above the pictures.
    """

    pictures: list[Image.Image] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    pair: tuple[Image.Image, Image.Image] | None = None
    film: list[Image.Image] | None = None
    note: str = ""


@dataclass(frozen=True)
class Action:
    """
    A tab of the page.

    Args:
        title (`str`): of the tab.
        controls (`dict[str, Control]`): by the name of the argument that their value becomes.
        make (`Callable[..., Made]`): called with the values of the controls by name; raises `ValueError` with a
            sentence for the visitor.
        compares, films (`bool`): whether it makes a pair, or a film.
        is_live (`bool`): whether it runs each time a slider is moved, too.
    """

    title: str
    controls: dict[str, Control]
    make: Callable[..., Made]
    compares: bool = False
    films: bool = False
    is_live: bool = False


class Panel:
    """
    The actions of pipelines of some classes. A file in `panels/` defines one as `PANEL`.

    A panel names its classes in `pipelines`; it serves their subclasses, too, unless another panel names these.
    """

    pipelines: ClassVar[tuple[str, ...]]

    def __init__(self, pipeline: DiffusionPipeline, limits: Limits):
        self.pipeline, self.limits = pipeline, limits

    def actions(self) -> list[Action]:
        """The tabs of the page, at least one."""
        raise NotImplementedError

    # Parts that several panels use

    def picture(self, label: str = "Picture", channels: int = 3, **options: Any) -> Picture:
        return Picture(label, channels, self.limits.image_pixels, **options)

    def painted_picture(
        self, label: str = "Picture; paint over what has to be made", channels: int = 3
    ) -> PaintedPicture:
        return PaintedPicture(label, channels, self.limits.image_pixels)

    def own_picture(self, label: str = "Picture", **options: Any) -> Picture:
        """In the channels of the network, which it does not convert."""
        return self.picture(label, self.pipeline.image_shape[0], **options)

    def fit(self, picture: Image.Image, longest_side: int) -> Image.Image:
        """In the size that the network has; if it takes any size, not larger than the visitor wants."""
        return fit_to(picture, self.pipeline.image_shape[1:], longest_side)

    def fit_painted(
        self, painted: tuple[Image.Image, Image.Image], longest_side: int
    ) -> tuple[Image.Image, Image.Image]:
        """A picture and its mask, as [`fit`] has the picture."""
        picture, mask = painted
        size = self.pipeline.image_shape[1:]
        if None in size:
            return shrink(picture, longest_side), shrink_mask(mask, longest_side)
        return self.fit(picture, longest_side), painted_parts(ImageOps.fit(mask, size[::-1], Image.Resampling.BOX))

    def number_of_images(self, default: int = 4) -> Integer:
        return Integer("Pictures", min(default, self.limits.images), 1, self.limits.images)

    def longest_side(self, default: int | None = None) -> Integer:
        """How far an upload is shrunk, by default to the size of the training images."""
        sides = [side for side in getattr(self.pipeline, "image_shape", ())[1:] if side is not None]
        default = default or max(sides, default=256)
        info = "A larger picture is shrunk to this, in pixels."
        high = max(self.limits.side, default)
        return Integer("Longest side", default, 1, high, info=info, is_advanced=True)

    def class_choice(self, names: dict[str, int], is_optional: bool, at_once: bool = True) -> Choice:
        """One of the classes, each of them (if `at_once`, and they are few), or, if `is_optional`, none."""
        choices = {"any": None} if is_optional else {}
        if at_once and 1 < len(names) <= MOST_CLASSES_AT_ONCE:
            choices["each of them"] = list(names.values())
        return Choice("Class", choices | names)

    def guidance(self, guider: BaseGuidance | None, label: str = "Guidance") -> Number:
        """How much the class counts: as the pipeline has it, if the visitor does not move the slider."""
        default = get_guidance_scale(build_guider(guider, None))
        return Number(label, default, 0, max(20, default), info="1 is none.")

    def steps(self, default: int, label: str = "Steps") -> Integer:
        return Integer(label, default, 1, max(250, default))

    def latent_sliders(self, dimensions: int) -> dict[str, Number]:
        """A slider for each of the first latents, `shift_0` and so on: what is added to it."""
        return {f"shift_{i}": Number(f"Latent {i}", 0.0, -4, 4) for i in range(min(MOST_SLIDERS, dimensions))}

    def fill(self, painted: tuple[Image.Image, Image.Image], longest_side: int, **values: Any) -> Made:
        """What the panel's `make` puts where a picture was painted over."""
        picture, mask = self.fit_painted(painted, longest_side)
        made = self.make(image=picture, mask_image=mask, **values)
        made.pair = hide(picture, mask), made.pictures[0]
        return made

    def sampled(self, label: int | list[int] | None, number: int) -> tuple[dict[str, Any], int]:
        """The options of a call for `number` pictures of each label, or of none, and how many these are together."""
        options = {"batch_size": number}
        if label is not None:
            options = {"class_labels": label, "num_images_per_label": number}
            number *= len(label) if isinstance(label, list) else 1
        self.check_number(number)
        return options, number

    def check_number(self, number: int) -> None:
        """Refuses more pictures than one click may make."""
        if number > self.limits.images:
            raise ValueError(f"That would be {number} pictures, but one click makes at most {self.limits.images}.")


def class_names(id2label: dict | None, num_labels: int | None, null_label: int | None = None) -> dict[str, int]:
    """What the page calls the classes of a pipeline, and their ids; empty if they are not known."""
    named = {int(label): str(name) for label, name in (id2label or {}).items()}
    ids = sorted(named) or [label for label in range(num_labels or 0) if label != null_label]
    texts = [named.get(label, str(label)) for label in ids]
    if len(set(texts)) < len(texts):  # ImageNet has two cranes
        texts = [f"{label} {text}" for label, text in zip(ids, texts, strict=True)]
    return dict(zip(texts, ids, strict=True))


def seeded(seed: int, number: int) -> list[torch.Generator]:
    """A generator for each picture. The picture with a seed is the same whatever pictures are made beside it."""
    return [torch.Generator().manual_seed(seed + i) for i in range(number)]


def seed_captions(seed: int, number: int) -> list[str]:
    return [f"seed {seed + i}" for i in range(number)]


def shrink(picture: Image.Image, longest_side: int) -> Image.Image:
    """The picture with at most so many pixels on its longer side; smaller pictures stay as they are."""
    size = shrunk_size(picture.size, longest_side)
    return picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS)


def film(frames: list[Image.Image], seed: int) -> Made:
    """A film, and some of its frames, evenly spaced."""
    pictures = frames[:: math.ceil(len(frames) / FRAMES_SHOWN)]
    return Made(pictures, [f"seed {seed}"] * len(pictures), film=frames)


def fit_to(picture: Image.Image, size: tuple[int | None, int | None], longest_side: int) -> Image.Image:
    """The middle of a picture in the `(height, width)` of a network; with `None` among them, the whole, shrunk."""
    if None in size:
        return shrink(picture, longest_side)
    return ImageOps.fit(picture, size[::-1], Image.Resampling.LANCZOS)


def shrink_mask(mask: Image.Image, longest_side: int) -> Image.Image:
    """A mask for a picture that [`shrink`] shrinks: what is painted anywhere in a pixel is hidden."""
    size = shrunk_size(mask.size, longest_side)
    return mask if size == mask.size else painted_parts(mask.resize(size, Image.Resampling.BOX))


def painted_parts(mask: Image.Image) -> Image.Image:
    """A mask that is white where any part of a pixel was painted."""
    return mask.point(lambda value: 255 * (value > 0))


def hide(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """A picture that is gray where the visitor painted."""
    hidden = picture.convert("RGB")
    hidden.paste(HIDDEN, mask=mask)
    return hidden


def shrunk_size(size: tuple[int, int], longest_side: int) -> tuple[int, int]:
    scale = min(1.0, longest_side / max(size))
    return tuple(max(1, math.floor(side * scale + 0.5)) for side in size)
