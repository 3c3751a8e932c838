"""A tiny pipeline of every kind that the demo knows, and what a page would send for it."""

import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from diffusers import DDPMPipeline, DDPMScheduler, DiffusionPipeline, StableDiffusionInpaintPipeline
from PIL import Image, ImageDraw

from diffusers_ext import AutoencoderPipeline, GANPipeline, ImageTranslationPipeline
from diffusers_ext.demo.controls import Choice, Control, Number, PaintedPicture, Picture, Seed, Switch, Text
from diffusers_ext.demo.loading import load_pipeline
from tests.pipelines import (
    test_pipeline_autoencoder as autoencoders,
    test_pipeline_cascade as cascades,
    test_pipeline_class_conditional as class_conditional,
    test_pipeline_gan as gans,
    test_pipeline_image_translation as translation,
    tiny_palette,
)
from tests.tiny_unet import tiny_unet
from tests.training.text_to_image_models import tiny_base


def stable_diffusion() -> DiffusionPipeline:
    return load_pipeline(tiny_base("sd1"))


def stable_diffusion_inpainting() -> DiffusionPipeline:
    return StableDiffusionInpaintPipeline(**stable_diffusion().components, requires_safety_checker=False)


MAKE: dict[str, Callable[[], DiffusionPipeline]] = {
    "class-conditional": class_conditional.make_pipeline,
    "unconditional": lambda: class_conditional.make_pipeline(
        unet=class_conditional.make_unet(None), id2label=None, null_class_label=None
    ),
    "cascade": cascades.make_cascade,
    "palette": tiny_palette.make_pipeline,
    "colorization": lambda: tiny_palette.make_pipeline(tasks=["colorization"]),
    "gan": gans.make_pipeline,
    "gan of classes": lambda: GANPipeline(gans.make_generator(4)),
    "autoencoder": lambda: AutoencoderPipeline(autoencoders.NETWORKS["deterministic"]()),
    "variational autoencoder": lambda: AutoencoderPipeline(autoencoders.NETWORKS["mlp"]()),
    "autoencoder of any size": lambda: AutoencoderPipeline(autoencoders.NETWORKS["kl"]()),
    "translation": lambda: ImageTranslationPipeline(translation.unet()),
    "translation both ways": lambda: ImageTranslationPipeline(translation.unet(), translation.resnet()),
    "ddpm": lambda: DDPMPipeline(tiny_unet(), DDPMScheduler()),
    "text": stable_diffusion,
    "text and mask": stable_diffusion_inpainting,
}


@functools.cache
def make(kind: str) -> DiffusionPipeline:
    """The pipeline of a kind, made once."""
    return MAKE[kind]()


def draw_picture(size: tuple[int, int] = (20, 12), mode: str = "RGB") -> Image.Image:
    picture = Image.new("RGB", size, (200, 60, 30))
    ImageDraw.Draw(picture).ellipse((2, 2, size[0] - 4, size[1] - 2), fill=(20, 90, 220))
    return picture.convert(mode)


def draw_layer(size: tuple[int, int] = (20, 12), box: tuple[int, ...] | None = (4, 3, 9, 8)) -> Image.Image:
    """What a brush painted, on transparent pixels."""
    layer = Image.new("RGBA", size)
    if box is not None:
        ImageDraw.Draw(layer).rectangle(box, fill=(255, 0, 255, 255))
    return layer


def write(picture: Image.Image, folder: Path, name: str = "picture.png") -> SimpleNamespace:
    """An upload, as Gradio hands it over."""
    folder.mkdir(parents=True, exist_ok=True)
    picture.save(folder / name)
    return SimpleNamespace(path=str(folder / name))


def sent_at_first(control: Control, folder: Path) -> Any:
    """What the page sends for a control that the visitor did not touch, with a picture uploaded and painted."""
    if isinstance(control, PaintedPicture):
        layer = write(draw_layer(), folder, "layer.png")
        return SimpleNamespace(background=write(draw_picture(), folder), layers=[layer])
    if isinstance(control, Picture):
        return write(draw_picture(), folder)
    if isinstance(control, Choice):
        return next(iter(control.choices))
    if isinstance(control, Text):
        return "a red square" if control.is_required else control.default
    if isinstance(control, Seed):
        return "" if control.default is None else str(control.default)
    if isinstance(control, Switch):
        return control.default
    assert isinstance(control, Number), f"{type(control).__name__} has no value to begin with"
    return "" if control.default is None else control.default
