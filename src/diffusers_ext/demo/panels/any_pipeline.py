"""Any other pipeline, such as diffusers' text-to-image ones: controls from the signature of its `__call__`."""

import inspect
import typing
from collections.abc import Callable

from PIL import Image

from diffusers_ext.demo.controls import Integer, Number, Picture, Seed, Switch, Text
from diffusers_ext.demo.panel import Action, Made, Panel, seed_captions, seeded, shrink, shrink_mask


# How many pictures a call makes, by the name that a pipeline has for it
COUNTS = ("num_images_per_prompt", "num_images_per_input", "num_images_per_label", "num_images", "batch_size")
# Arguments that do not change the picture, or that need more than a control
LEFT_OUT = {"return_dict", "output_type", "ip_adapter_image", "max_sequence_length"}


class AnyPanel(Panel):
    pipelines = ("DiffusionPipeline",)

    def actions(self):
        controls = {}
        for parameter in inspect.signature(self.pipeline.__call__).parameters.values():
            if parameter.name not in LEFT_OUT and (control := self.control(parameter)) is not None:
                controls[parameter.name] = control
        has_mask = "mask_image" in controls and "image" in controls
        if has_mask:
            del controls["mask_image"]
            controls["image"] = self.painted_picture()
        if any(isinstance(control, Picture) for control in controls.values()):
            controls["longest_side"] = self.longest_side()
        if self.takes_generator:
            controls["seed"] = Seed()
        return [Action(type(self.pipeline).__name__, controls, self.make)]

    @property
    def takes_generator(self) -> bool:
        return "generator" in inspect.signature(self.pipeline.__call__).parameters

    def control(self, parameter: inspect.Parameter):
        """The control of an argument; `None` for one that the page does not show."""
        name, default = parameter.name, parameter.default
        is_required = default is inspect.Parameter.empty
        label, kinds = name.replace("_", " ").capitalize(), kinds_of(parameter.annotation)
        if name in COUNTS:
            return self.number_of_images(1) if name == self.count_name else None
        if Image.Image in kinds and "latents" not in name:
            return self.picture(label, is_required=is_required)
        # Only words: what a pipeline may take for a path is never the visitor's text.
        if "prompt" in name and "embeds" not in name and str in kinds:
            is_first = name == "prompt"
            return Text(label, is_required=is_first, is_advanced=not is_first and name != "negative_prompt")
        if name in ("height", "width"):
            return Integer(label, None, 8, self.limits.side, info="Empty: as in training.", is_advanced=True)
        if name == "num_inference_steps":
            return self.steps(default if isinstance(default, int) else 50)
        if name == "guidance_scale" and float in kinds:
            return Number("Guidance", None if is_required or default is None else float(default), 0, 20)
        if isinstance(default, bool):
            return Switch(label, default, is_advanced=True)
        if isinstance(default, int) and default > 0:
            return Integer(label, default, 1, 4 * default, is_advanced=True)
        if isinstance(default, float) and default >= 0:
            return Number(label, default, 0.0, 4 * default or 1.0, 0.01, is_advanced=True)
        return None

    @property
    def count_name(self) -> str | None:
        """The argument that says how many pictures a call makes."""
        arguments = inspect.signature(self.pipeline.__call__).parameters
        return next((name for name in COUNTS if name in arguments), None)

    def make(self, seed=0, longest_side=None, **values):
        if isinstance(values.get("image"), tuple):
            picture, mask = values["image"]
            values |= {"image": picture, "mask_image": shrink_mask(mask, longest_side)}
        given = {}
        for name, value in values.items():
            if isinstance(value, Image.Image) and name != "mask_image":
                value = shrink(value, longest_side)
            if value is not None and not (isinstance(value, str) and not value):
                given[name] = value
        number = given.get(self.count_name, 1)
        if self.takes_generator:
            given["generator"] = seeded(seed, number) if number > 1 else seeded(seed, 1)[0]
        pictures = pictures_of(self.pipeline(**given))
        captions = seed_captions(seed, number) if self.takes_generator and len(pictures) == number else None
        return Made(pictures, captions or [""] * len(pictures))


def kinds_of(annotation) -> set[type]:
    """The classes that an annotation admits, also inside of lists and unions."""
    parts = [part for part in typing.get_args(annotation) if part is not Ellipsis]
    if not parts or typing.get_origin(annotation) is Callable:
        return {annotation}
    return set().union(*map(kinds_of, parts))


def pictures_of(output) -> list[Image.Image]:
    """The pictures in what a pipeline returns."""
    pictures = getattr(output, "images", None)
    if pictures is None:
        pictures = getattr(output, "frames", None)
    if isinstance(pictures, list) and pictures and isinstance(pictures[0], list):
        pictures = [picture for row in pictures for picture in row]
    if not isinstance(pictures, list) or not all(isinstance(picture, Image.Image) for picture in pictures):
        raise ValueError(f"The page has no way to show a {type(output).__name__}, which holds no pictures.")
    return pictures


PANEL = AnyPanel
