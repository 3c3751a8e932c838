"""Train a latent mapper of StyleCLIP: it moves images in the latent space of a GAN so that they fit one prompt.

    accelerate launch training/train_latent_mapper.py --config examples/digits_latent_mapper.yaml

The training of Patashnik et al. 2021, section 5 (https://huggingface.co/papers/2103.17249): an encoder finds the
styles of real images, and the mapper learns what to add to them, from a CLIP. Generator, encoder and CLIP stay as they
are. The result is a [`StyleCLIPMapperPipeline`], which needs neither encoder nor CLIP.
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from dataclasses import dataclass

import torch
from torch import nn

from diffusers_ext.models import LatentMapper
from diffusers_ext.pipelines import GANInversionPipeline, StyleCLIPMapperPipeline
from diffusers_ext.pipelines.clip_scores import check_clip, embed_texts, embed_views
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.evaluation.pipeline_classes import load_pipeline
from diffusers_ext.training.loop.configuration import JSONObject, ValidationConfig, option
from diffusers_ext.training.loop.network_options import build_network
from diffusers_ext.training.loop.perceptual import PerceptualConfig
from diffusers_ext.training.loop.recipe import Recipe
from diffusers_ext.training.text_and_image.frozen_clip import load_whole_clip


class LatentMapperRecipe(Recipe):
    """Patashnik et al. 2021, eq. 5: the image of moved styles is near to the prompt, and they are not moved far."""

    def networks(self) -> dict[str, nn.Module]:
        """The mapper of the generator's styles."""
        generator = self.generator
        decided = {"num_styles": generator.num_styles, "style_dim": generator.config.style_dim}
        return {"mapper": build_network(LatentMapper, "--mapper", self.config.mapper, decided=decided)}

    def step(self, batch, draw):
        config, styles = self.config, self.styles_of(batch["pixel_values"])
        moves = STRENGTH * self.mapper(styles).offsets
        made = self.generator(styles=styles + moves).sample
        views = embed_views(self.clip, self.image_processor, made / 2 + 0.5)
        distances, lengths = 1 - (views * self.text).sum(dim=1), moves.square().mean(dim=(1, 2))
        self.log(clip_distance=distances, squared_moves=lengths)
        losses = distances + config.latent_weight * lengths
        if config.perceptual_weight > 0:
            with torch.no_grad():
                before = self.generator(styles=styles).sample
            losses = losses + config.perceptual_weight * self.perceptual_loss(made, before)
        self.minimise("mapper", losses)

    @torch.no_grad()
    def styles_of(self, images: torch.Tensor) -> torch.Tensor:
        """The styles (N, num_styles, style_dim) that the encoder finds for images in [-1, 1]."""
        size = self.encoder.config.sample_size
        if images.shape[2] != size:
            images = nn.functional.interpolate(images, (size, size), mode="area")
        return self.encoder(images).styles

    def pipeline(self, mapper: nn.Module) -> StyleCLIPMapperPipeline:
        """The generator with the mapper; the encoder and the CLIP stay where they are."""
        return StyleCLIPMapperPipeline(self.generator, mapper, self.config.prompt)

    # What stands around the algorithm

    def __init__(self, config: LatentMapperConfig, context):
        super().__init__(config, context)
        name, device = config.pretrained_model_name_or_path, context.device
        inversion = load_pipeline(name, config.cache_dir, "--pretrained_model_name_or_path", GANInversionPipeline)
        if inversion.encoder is None:
            raise ValueError(
                f"--pretrained_model_name_or_path {name} has no encoder, which finds the styles of images."
            )
        if inversion.image_shape != (config.channels, *config.size):
            raise ValueError(
                f"{name} makes images of the shape {inversion.image_shape}, but --channels and --resolution are "
                f"{config.channels} and {config.size}."
            )
        self.generator = inversion.generator.to(device).requires_grad_(False).eval()
        self.encoder = inversion.encoder.to(device).requires_grad_(False).eval()
        clip, tokenizer, self.image_processor = load_whole_clip(config.clip, config.cache_dir)
        check_clip(clip, self.generator)
        self.clip = clip.to(device).requires_grad_(False).eval()
        with torch.no_grad():
            self.text = embed_texts(self.clip, tokenizer, [config.prompt])
        self.validation_images = config.load_validation_dataset(self.dataset)
        self.perceptual_loss = config.load_perceptual_loss(device, (config.channels, *config.size))

    def before_training(self) -> None:
        super().before_training()
        self.validation_images.prepare()

    def identity(self) -> dict:
        return {name: getattr(self.config, name) for name in ("prompt", "latent_weight", "perceptual_weight")}

    def averaged(self, names):
        return ("mapper",)

    def edit(self, pipeline: StyleCLIPMapperPipeline, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the generator makes of the styles of uint8 images, and of the moved ones: in [0, 1]."""
        styles = self.styles_of(images.to(self.context.device).float() / 127.5 - 1)
        return tuple(pipeline(styles, strength, "pt").images for strength in (0.0, STRENGTH))

    def sample_grid(self, generate):
        """Images, below each what the generator makes of its styles, and below that the edit."""
        images = next(iter(self.validation_images.reference_batches(SHOWN)))["pixel_values"][:SHOWN]
        made = [(part * 255).round().byte().cpu() for part in self.edit(generate.pipeline, images)]
        titles = ["image", "inverted", self.config.prompt]
        return sample_grid(torch.cat([images, *made]), len(images), row_titles=titles)

    @torch.no_grad()
    def evaluate(self, generate):
        """The cosines of validation images and the prompt, before and after."""
        config, context = self.config, generate.context
        rows, number = [], config.num_evaluation_samples
        for batch in self.validation_images.reference_batches(config.evaluation_batch_size, **context.share):
            parts = self.edit(generate.pipeline, batch["pixel_values"])
            views = [embed_views(self.clip, self.image_processor, part) for part in parts]
            rows.append(torch.stack([(view * self.text).sum(dim=1) for view in views], dim=1))
        before, after = context.gather_rows(rows)[:number].mean(dim=0).tolist()
        split = config.validation_split or config.dataset_split
        provenance = {"split": split, "num_images": min(number, self.validation_images.num_examples)}
        return [{"cosine_before": before, "cosine_after": after, "provenance": provenance}]

    def describe(self) -> dict:
        name, prompt = self.config.pretrained_model_name_or_path, self.config.prompt
        return {
            "task": f"Editing of images in the latent space of a GAN, to the prompt {prompt!r} (StyleCLIP's latent "
            f"mapper), for the generator of {name}.",
            "usage": "images = pipe(found.styles).images  # found by the GANInversionPipeline of the same generator",
            "base_model": name,
            "tags": ["image-to-image", "gan-inversion", "styleclip", "stylegan2"],
        }


STRENGTH = 0.1  # of the offsets, as in orpatashnik/StyleCLIP and in StyleCLIPMapperPipeline
SHOWN = 10


@dataclass
class LatentMapperConfig(PerceptualConfig, ValidationConfig):
    """The options of train_latent_mapper.py."""

    pretrained_model_name_or_path: str | None = option(
        help="The GANInversionPipeline of the generator, with an encoder: a local folder or a Hub name.",
        group="network",
        essential=True,
    )
    clip: str | None = option(
        help="A CLIPModel with its tokenizer and image processor: a local folder or a Hub name.",
        group="network",
        essential=True,
    )
    prompt: str | None = option(help="What edited images are to show.", essential=True)
    mapper: JSONObject = option(
        JSONObject(),
        help="Arguments of LatentMapper, as JSON or a YAML mapping, such as levels.",
        group="network",
    )
    latent_weight: float = option(0.8, help="The weight of the mean squared distance that styles are moved.")
    perceptual_weight: float = option(
        0.0, help="The weight of the perceptual distance of edited images from the inverted ones."
    )

    def __post_init__(self):
        super().__post_init__()
        for name in ("pretrained_model_name_or_path", "clip", "prompt"):
            self.require(bool((getattr(self, name) or "").strip()), f"--{name} is required")
        self.require_at_least(0, "latent_weight")
        self.require_default(
            False, ("feature_extractor", "metrics"), "is for other recipes: edits are measured by --clip"
        )


if __name__ == "__main__":
    run(LatentMapperRecipe, LatentMapperConfig)
