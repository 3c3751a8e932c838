"""A tiny pipeline of every kind that the demo knows, and what a page would send for it."""

import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import DDPMPipeline, DDPMScheduler, DiffusionPipeline, StableDiffusionInpaintPipeline
from PIL import Image, ImageDraw

from diffusers_ext import (
    AutoencoderPipeline,
    GANPipeline,
    ImageTranslationPipeline,
    RestorationPipeline,
    SemanticSynthesisPipeline,
    StyleCLIPMapperPipeline,
)
from diffusers_ext.demo.controls import (
    Choice,
    Control,
    Directions,
    Film,
    LabelMap,
    Number,
    PaintedPicture,
    Picture,
    Seed,
    Switch,
    Text,
)
from diffusers_ext.demo.loading import load_pipeline
from diffusers_ext.models import DANetUNet, LatentMapper
from diffusers_ext.pipelines.latent_directions import LatentDirections, latent_fingerprint
from tests.pipelines import (
    test_pipeline_autoencoder as autoencoders,
    test_pipeline_autoregressive as autoregressive,
    test_pipeline_cascade as cascades,
    test_pipeline_class_conditional as class_conditional,
    test_pipeline_density as densities,
    test_pipeline_energy as energies,
    test_pipeline_gan as gans,
    test_pipeline_gan_inversion as inversion,
    test_pipeline_image_translation as translation,
    test_pipeline_maskgit as maskgit,
    test_pipeline_restoration as restoration,
    test_pipeline_semantic_synthesis as semantic,
    test_pipeline_singan as singan,
    test_pipeline_sketch as sketches,
    test_pipeline_style_transfer as style_transfer,
    test_pipeline_styleclip as styleclip,
    test_pipeline_text_to_image_pixel as text_to_pixels,
    test_pipeline_text_to_video as text_to_video,
    test_pipeline_tokens_to_image as tokens,
    test_pipeline_unclip_pixel as unclip,
    test_pipeline_video_gan as video_gan,
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
    "pixel by pixel": lambda: autoregressive.AutoregressiveConfig().get_pipeline(),
    "density": lambda: densities.DensityConfig().get_pipeline(),
    "energy": energies.make_pipeline,
    "maskgit": maskgit.make_pipeline,
    "sketch": lambda: sketches.SketchConfig().get_pipeline(),
    "tokens of classes": tokens.make_pipeline,
    "tokens of texts": tokens.make_text_pipeline,
    "text to pixels": text_to_pixels.make,
    "text to pixels, larger": text_to_pixels.super_resolver,
    "text to pixels, filled in": lambda: text_to_pixels.make(unet={"in_channels": 7}, shows_known_pixels=True),
    "unclip": lambda: unclip.UnCLIPConfig().get_pipeline(),
    "film of classes": lambda: video_gan.VideoGANConfig().get_pipeline(),
    "film of texts": lambda: text_to_video.TextToVideoConfig().get_pipeline(),
    "film of texts, larger": lambda: text_to_video.TestVideoSuperResolution().get_pipeline(),
    "restoration": lambda: RestorationPipeline(
        restoration.msrresnet(), noise_generator=DANetUNet(base_channels=4, num_levels=2, noise_channels=3)
    ),
    "restoration of light": lambda: RestorationPipeline(restoration.msrresnet(scale=1), peak=8.0),
    "style of a picture": style_transfer.adain,
    "style of a network": style_transfer.fast,
    "style by optimisation": style_transfer.gatys,
    "label maps": lambda: SemanticSynthesisPipeline(semantic.network(), semantic.style_encoder()),
    "label maps without styles": lambda: SemanticSynthesisPipeline(semantic.network(latent_dim=None)),
    "singan": lambda: singan.SinGANConfig().get_pipeline(),
    "gan of styles": lambda: GANPipeline(inversion.generator(num_classes=3)),
    "gan inversion": inversion.pipeline,
    "gan by prompts": styleclip.pipeline,
    "latent mapper": lambda: StyleCLIPMapperPipeline(inversion.generator(3), LatentMapper(4, 6).eval(), "a seven"),
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


def write_directions(pipeline: GANPipeline, folder: Path) -> SimpleNamespace:
    vectors = {"larger": torch.ones(pipeline.generator.config.latent_dim)}
    LatentDirections(vectors, "latents", latent_fingerprint(pipeline.generator)).save(folder / "found.safetensors")
    return SimpleNamespace(path=str(folder / "found.safetensors"))


def write_film(folder: Path) -> SimpleNamespace:
    frames = [Image.new("RGB", (4, 4), color) for color in ("navy", "olive")]
    frames[0].save(folder / "film.gif", save_all=True, append_images=frames[1:])
    return SimpleNamespace(path=str(folder / "film.gif"))


def sent_at_first(control: Control, folder: Path, pipeline: DiffusionPipeline | None = None) -> Any:
    """What the page sends for a control that the visitor did not touch, with what it needs uploaded and painted."""
    if isinstance(control, Directions):
        return write_directions(pipeline, folder)
    if isinstance(control, Film):
        return write_film(folder)
    if isinstance(control, LabelMap):
        return write(Image.new("L", (12, 8), 3), folder, "labels.png")
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
