"""What a visitor of the page can set: each control has a default and bounds, and reads what the page sends.

Pages can send anything, whatever their controls show: so `read` checks every value, and refuses it with a
`ValueError` of one sentence that names the control.
"""

import math
import secrets
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image

from diffusers_ext.data.decoding import MODES, UnreadableImageError, decode_frames, decode_image, decode_label_map
from diffusers_ext.pipelines.latent_directions import LatentDirections


LARGEST_SEED = 2**32 - 1
DRAWN_SEEDS = 10_000  # the captions of small pictures show four digits
MAX_IMAGE_PIXELS = 50_000_000  # photographs of telephones have up to this many


@dataclass
class Control:
    """
    Args:
        label (`str`): what the page calls it.
        info (`str`): a hint below the label.
        is_advanced (`bool`): whether it is hidden until the visitor opens "More".
    """

    label: str
    info: str = field(default="", kw_only=True)
    is_advanced: bool = field(default=False, kw_only=True)

    def component(self, gradio: ModuleType) -> Any:
        """The component of Gradio that shows this control."""
        raise NotImplementedError

    def read(self, sent: Any) -> Any:
        """The value of what the page sent.

        Raises:
            ValueError: if this is no value of the control.
        """
        raise NotImplementedError

    @property
    def _texts(self) -> dict[str, str | None]:
        return {"label": self.label, "info": self.info or None}


@dataclass
class Number(Control):
    """A number from `low` to `high`, on a slider; without default in a field that may stay empty, which is `None`."""

    default: float | None
    low: float
    high: float
    step: float = 0.1

    def component(self, gradio):
        if self.default is None:
            return gradio.Textbox(max_lines=1, **self._texts)  # a number in Gradio can't be empty
        return gradio.Slider(self.low, self.high, self.default, step=self.step, **self._texts)

    def read(self, sent):
        if self.default is None:
            sent = parse_number(sent)
            if sent is None:
                return None
        is_number = isinstance(sent, (int, float)) and not isinstance(sent, bool) and math.isfinite(sent)
        if not is_number or not self.low <= sent <= self.high:
            raise ValueError(f"{self.label} must be a number from {self.low} to {self.high}, but is {shown(sent)}.")
        return float(sent)


@dataclass
class Integer(Number):
    """An integer from `low` to `high`."""

    step: float = 1

    def read(self, sent):
        value = super().read(sent)
        if value is not None and value != int(value):
            raise ValueError(f"{self.label} must be an integer, but is {shown(sent)}.")
        return None if value is None else int(value)


@dataclass
class Seed(Control):
    """The seed of the first picture; the next has the next seed. Without one, each click has a new one."""

    label: str = "Seed"
    default: int | None = None
    info: str = field(default="Empty: a new one each time. The captions of the pictures say it.", kw_only=True)

    def component(self, gradio):
        return gradio.Textbox("" if self.default is None else str(self.default), max_lines=1, **self._texts)

    def read(self, sent):
        seed = Integer(self.label, None, 0, LARGEST_SEED).read(sent)
        return secrets.randbelow(DRAWN_SEEDS) if seed is None else seed


@dataclass
class Switch(Control):
    default: bool = False

    def component(self, gradio):
        return gradio.Checkbox(self.default, **self._texts)

    def read(self, sent):
        if not isinstance(sent, bool):
            raise ValueError(f"{self.label} must be on or off, but is {shown(sent)}.")
        return sent


@dataclass
class Choice(Control):
    """One of `choices`, which maps what the page shows to values."""

    choices: dict[str, Any]

    def component(self, gradio):
        return gradio.Dropdown(list(self.choices), value=next(iter(self.choices)), **self._texts)

    def read(self, sent):
        if not isinstance(sent, str) or sent not in self.choices:
            names = ", ".join(list(self.choices)[:10])
            raise ValueError(f"{self.label} must be one of the choices, such as {names}, but is {shown(sent)}.")
        return self.choices[sent]


@dataclass
class Text(Control):
    """Words, such as a prompt; never a path of the server."""

    default: str = ""
    longest: int = 2000  # characters
    is_required: bool = False

    def component(self, gradio):
        return gradio.Textbox(self.default, lines=2, max_length=self.longest, **self._texts)

    def read(self, sent):
        if not isinstance(sent, str) or len(sent) > self.longest:
            raise ValueError(f"{self.label} must be a text of at most {self.longest} characters.")
        if self.is_required and not sent.strip():
            raise ValueError(f"{self.label} is empty: write what the picture should show.")
        return sent


@dataclass
class Picture(Control):
    """
    An uploaded picture, upright, with `channels` channels: gray, gray and alpha, RGB, or RGBA.

    A picture for a network with fewer than four of them is put on white if it is transparent, and 16 bits become 8.
    """

    channels: int = 3
    max_pixels: int = MAX_IMAGE_PIXELS
    is_required: bool = True

    def component(self, gradio):
        return gradio.Image(label=self.label, type="filepath", sources=["upload", "clipboard"], height=320)

    def read(self, sent):
        path = getattr(sent, "path", None)
        if path is None:
            if self.is_required:
                raise ValueError(f"{self.label} is missing: upload a picture.")
            return None
        try:
            return self._decode(path)
        except UnreadableImageError as error:
            raise ValueError(f"{self.label} can't be read: {error}.") from error

    def _decode(self, path: str) -> Any:
        return as_picture(decode_image(path, self.channels, self.max_pixels))


@dataclass
class LabelMap(Picture):
    """An uploaded label map in mode L: the numbers of its pixels, whatever colours a palette gives them."""

    channels: int = field(default=1, init=False)

    def _decode(self, path):
        return as_picture(decode_label_map(path, self.max_pixels))


@dataclass
class Film(Picture):
    """The frames of an uploaded film, such as a GIF: a list of pictures."""

    def _decode(self, path):
        return [as_picture(frame) for frame in decode_frames(path, self.channels, self.max_pixels)]


@dataclass
class Directions(Control):
    """An uploaded file of latent directions, as find_directions.py writes it."""

    def component(self, gradio):
        return gradio.File(label=self.label, type="filepath", file_types=[".safetensors"])

    def read(self, sent):
        path = getattr(sent, "path", None)
        if path is None:
            raise ValueError(f"{self.label} are missing: upload a file that find_directions.py has written.")
        try:
            return LatentDirections.load(path)
        except (ValueError, KeyError) as error:  # whose sentence names the file of the server
            raise ValueError(f"{self.label} can't be read: find_directions.py has not written this file.") from error


@dataclass
class PaintedPicture(Picture):
    """A picture, and a mask in mode L that is white where the visitor painted: `(picture, mask)`."""

    def component(self, gradio):
        brush = gradio.Brush(colors=["#ff00ff"], color_mode="fixed", default_size="auto")
        return gradio.ImageEditor(
            label=self.label,
            type="filepath",
            format="png",
            sources=["upload", "clipboard"],
            transforms=(),
            layers=False,
            brush=brush,
            height=480,
        )

    def read(self, sent):
        picture = super().read(getattr(sent, "background", None))
        mask = Image.new("L", picture.size)
        for layer in getattr(sent, "layers", None) or ():
            painted = Picture(self.label, 4, self.max_pixels).read(layer).getchannel("A")
            if painted.size != picture.size:
                raise ValueError(
                    f"{self.label} has {picture.width} x {picture.height} pixels, but its mask {painted.width} x "
                    f"{painted.height}: upload it again."
                )
            mask.paste(255, mask=painted.point(lambda alpha: 255 * (alpha >= 128)))
        if mask.getbbox() is None:
            raise ValueError("The mask is empty: paint over what has to be made.")
        return picture, mask


def as_picture(pixels: torch.Tensor) -> Image.Image:
    """The picture of uint8 pixels (C, H, W)."""
    channels, pixels = len(pixels), np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels, MODES[channels])


def parse_number(sent: Any) -> Any:
    """The number in a text field; `None` for an empty one, and what is no number as it is."""
    if not isinstance(sent, str):
        return sent
    try:
        return float(sent) if sent.strip() else None
    except ValueError:
        return sent


def shown(sent: Any) -> str:
    """What the page sent, for a sentence: not longer than a line."""
    text = "empty" if sent is None else repr(sent)
    return text if len(text) <= 60 else f"{text[:60]}..."
