"""Train CLIP on captioned images, so that an image is near its caption; or tune one for noisy images, as a guide.

    accelerate launch training/train_clip.py --config examples/mini_text_to_image/clip.yaml

Radford et al. 2021 ("Learning Transferable Visual Models From Natural Language Supervision"). The result is a
[`CLIPModel`] of transformers with its tokenizer and image processor, which transformers' own pipeline for zero-shot
classification loads; with `--loss sigmoid` (Zhai et al. 2023) a [`SiglipModel`]. `--noisy` tunes a trained one to see
noisy images and their timestep (Nichol et al. 2021, section 3.2), which `CLIPGuidance` guides diffusion models by.
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import DDPMScheduler, SchedulerMixin
from transformers import CLIPImageProcessor, CLIPModel

from diffusers_ext.losses import contrastive_loss, sigmoid_contrastive_loss
from diffusers_ext.models import NoisyCLIPModel
from diffusers_ext.training.diffusion.noised_images import noised_images
from diffusers_ext.training.evaluation.pipeline_classes import find_pipeline_class
from diffusers_ext.training.loop.configuration import JSONObject, option
from diffusers_ext.training.loop.context import TrainingContext
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.text_and_image.caption_tokenizer import (
    load_tokenizer,
    longest_caption,
    make_caption_tokenizer,
)
from diffusers_ext.training.text_and_image.clip_networks import new_clip, new_image_processor, noisy_clip_from
from diffusers_ext.training.text_and_image.contrastive_recipe import ContrastiveConfig, ContrastiveRecipe


MAX_LOGIT_SCALE = 100.0  # Radford et al. 2021, section 2.5
SIGLIP_LENGTH = 64  # tokens, which transformers' pipeline fills all texts for SigLIP up to
NOISE_LEVELS = (0.0, 0.25, 0.5, 0.75)  # as fractions of all timesteps


class CLIPRecipe(ContrastiveRecipe):
    """Radford et al. 2021, figure 3: each image picks its caption, and each caption its image, in the global batch."""

    def networks(self) -> dict[str, torch.nn.Module]:
        """The pretrained network, or a new one that fits the images and captions."""
        if self.config.pretrained_model_name_or_path is None:
            return {"clip": self._new()}
        clip = load_clip(self.config)
        self.check_texts(clip, self.config.pretrained_model_name_or_path)
        return {"clip": clip}

    def step(self, batch, draw):
        pixels = self.normalised(batch["pixel_values"])
        output = self.clip(**self.text_inputs(*self.tokens(batch)), pixel_values=pixels)
        self.minimise("clip", self.losses(output.image_embeds, output.text_embeds))

    def losses(self, images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """The loss of each pair of embeddings (N, D) among those of all processes, of shape (N,)."""
        clip, context, first_row = self.network("clip"), self.context, self.context.process_index * len(images)
        scale, all_texts = clip.logit_scale.exp(), context.all_rows(texts)
        self.log(logit_scale=scale.detach())
        if self.config.loss == "sigmoid":
            return sigmoid_contrastive_loss(images, texts, scale, clip.logit_bias, all_texts, first_row)
        return contrastive_loss(images, texts, scale, context.all_rows(images), all_texts, first_row)

    @torch.no_grad()
    def after_update(self):
        self.network("clip").logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Images (N, C, H, W) in [-1, 1] as the network sees them."""
        mean, std = (torch.tensor(v, device=pixels.device).view(-1, 1, 1) for v in (self.mean, self.std))
        return ((pixels + 1) / 2 - mean) / std

    def image_features(self, clip: CLIPModel, clean: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        return clip.get_image_features(pixel_values=self.normalised(clean))

    def text_features(self, clip: CLIPModel, texts: list[str]) -> torch.Tensor:
        return clip.get_text_features(**self.text_inputs(*self.token_ids(texts)))

    def text_inputs(self, input_ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the network is told about texts: a CLIPModel needs no mask, since its tokens see only earlier ones."""
        looks_back = isinstance(self.network("clip"), CLIPModel)
        return {"input_ids": input_ids} if looks_back else {"input_ids": input_ids, "attention_mask": mask}

    # What stands around the algorithm

    def __init__(self, config: CLIPConfig, context: TrainingContext):
        super().__init__(config, context)
        name = config.pretrained_model_name_or_path
        if name is None:
            self.tokenizer, self.max_length = self._tokenizer_of_captions()
            self.image_processor = new_image_processor(config.size[0], config.channels)
        else:
            self.tokenizer = load_tokenizer(
                config.tokenizer_name_or_path or name, config.cache_dir, "--tokenizer_name_or_path"
            )
            self.max_length = load_clip(config).config.text_config.max_position_embeddings
            self.image_processor = CLIPImageProcessor.from_pretrained(name, cache_dir=config.cache_dir)
        self.mean, self.std = self.image_processor.image_mean, self.image_processor.image_std

    def _tokenizer_of_captions(self):
        config, captions = self.config, self.dataset.captions
        if config.tokenizer_name_or_path is not None:
            tokenizer = load_tokenizer(config.tokenizer_name_or_path, config.cache_dir, "--tokenizer_name_or_path")
        elif config.streaming:
            raise ValueError("The captions of a stream are not known before: give a --tokenizer_name_or_path.")
        else:
            tokenizer = make_caption_tokenizer(captions, config.vocabulary_size)
        length = config.max_caption_length
        if length is None and config.loss == "sigmoid":
            length = SIGLIP_LENGTH
        elif length is None:
            if config.streaming:
                raise ValueError("The captions of a stream are not known before: give their --max_caption_length.")
            length = longest_caption(tokenizer, captions)
        tokenizer.model_max_length = length
        return tokenizer, length

    def _new(self):
        config = self.config
        clip = new_clip(
            sigmoid=config.loss == "sigmoid",
            text_config=config.text_config,
            vision_config=config.vision_config,
            projection_dim=config.projection_dim,
            size=config.size[0],
            channels=config.channels,
            max_length=self.max_length,
            tokenizer=self.tokenizer,
        )
        self.check_texts(clip, "the network")
        return clip

    def identity(self) -> dict:
        return {**super().identity(), "loss": self.config.loss}

    def describe(self) -> dict:
        names = list((self.dataset.id2label or {0: "cat", 1: "dog"}).values())[:2]
        return {
            "task": "Images and texts in one space: zero-shot classification, retrieval, and guidance by text.",
            "loading": "from transformers import pipeline\n\n"
            'classify = pipeline("zero-shot-image-classification", model="{address}")\n'
            f"scores = classify(image, candidate_labels={names}, "
            f"hypothesis_template={self.config.zero_shot_templates[0]!r})",
            "base_model": self.config.pretrained_model_name_or_path,
            "tags": ["clip", "zero-shot-image-classification"],
            "pipeline_tag": "zero-shot-image-classification",
        }


class NoisyCLIPRecipe(ContrastiveRecipe):
    """Nichol et al. 2021, section 3.2: the image tower learns to see through the noise of a diffusion model.

    The text tower and the scale stay as they are, so that the embeddings of texts are those of the clean CLIP.
    """

    def networks(self) -> dict[str, torch.nn.Module]:
        """The clean CLIP with an embedding of the timestep in place of its class token."""
        clip, processor = load_clip(self.config), self.image_processor
        steps = self.scheduler.config.num_train_timesteps
        noisy = noisy_clip_from(clip, processor.image_mean, processor.image_std, steps)
        noisy.text_tower.requires_grad_(False)
        noisy.logit_scale.requires_grad_(False)
        self.check_texts(clip, self.config.pretrained_model_name_or_path)
        return {"clip": noisy}

    def step(self, batch, draw):
        clean, (input_ids, mask) = batch["pixel_values"], self.tokens(batch)
        noisy, timesteps = noised_images(clean, draw.uniform(), draw.normal_like(clean), self.scheduler)
        output = self.clip(noisy, timesteps, input_ids, mask)
        images, texts, context = output.image_embeds, output.text_embeds, self.context
        scale, first_row = self.network("clip").logit_scale.exp(), context.process_index * len(images)
        all_images, all_texts = context.all_rows(images), context.all_rows(texts)
        self.minimise("clip", contrastive_loss(images, texts, scale, all_images, all_texts, first_row))

    def image_features(self, clip: NoisyCLIPModel, clean: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        draw = Draw(self.config.seed, self.context.device).begin(0, rows)
        level = torch.full_like(clean[:, 0, 0, 0], self._measured_level)
        return clip.get_image_features(*noised_images(clean, level, draw.normal_like(clean), self.scheduler))

    def text_features(self, clip: NoisyCLIPModel, texts: list[str]) -> torch.Tensor:
        return clip.get_text_features(*self.token_ids(texts))

    # What stands around the algorithm

    def __init__(self, config: CLIPConfig, context: TrainingContext):
        super().__init__(config, context)
        name = config.pretrained_model_name_or_path
        self.tokenizer = load_tokenizer(name, config.cache_dir, "--pretrained_model_name_or_path")
        self.max_length = load_clip(config).config.text_config.max_position_embeddings
        self.image_processor = CLIPImageProcessor.from_pretrained(name, cache_dir=config.cache_dir)
        self.scheduler = load_process(config.diffusion_model, config.cache_dir)
        self._measured_level = NOISE_LEVELS[0]

    def identity(self) -> dict:
        process = {k: v for k, v in self.scheduler.config.items() if not k.startswith("_")}
        return {**super().identity(), "scheduler": process}

    @torch.no_grad()
    def evaluate(self, generate):
        """The measures without noise, and the zero-shot accuracy at some levels of noise."""
        rows = super().evaluate(generate)
        if self.dataset.id2label is not None:
            embedders = self.embedders(generate.pipeline.clip)
            for level in NOISE_LEVELS[1:]:
                self._measured_level = level
                accuracy = self.evaluator.zero_shot(*embedders, generate.context)
                rows[0][f"zero_shot_accuracy_at_{level:.0%}"] = accuracy
            self._measured_level = NOISE_LEVELS[0]
        return rows

    def describe(self) -> dict:
        return {
            "task": "Noisy images and texts in one space, to guide a diffusion model by text.",
            "loading": "from diffusers_ext import NoisyCLIPModel\n"
            "from transformers import AutoTokenizer\n\n"
            'clip = NoisyCLIPModel.from_pretrained("{address}")\n'
            'tokenizer = AutoTokenizer.from_pretrained("{address}")',
            "base_model": self.config.pretrained_model_name_or_path,
            "tags": ["clip", "clip-guidance", "diffusion"],
        }


def load_clip(config: CLIPConfig) -> CLIPModel:
    """The given CLIP.

    Raises:
        ValueError: if it is none, or is for images of another size.
    """
    name = config.pretrained_model_name_or_path
    clip = CLIPModel.from_pretrained(name, cache_dir=config.cache_dir)
    vision = clip.config.vision_config
    wanted, given = (vision.num_channels, vision.image_size), (config.channels, config.size[0])
    if wanted != given:
        raise ValueError(
            f"{name} sees images of {wanted[0]} channels and {wanted[1]}x{wanted[1]} pixels, but --channels is "
            f"{given[0]} and --resolution {given[1]}."
        )
    return clip


def load_process(name: str | None, cache_dir: str | None) -> SchedulerMixin:
    """The scheduler of a pipeline whose noise the network is to see; by default the cosine process of GLIDE's base.

    Raises:
        ValueError: if its timesteps are not those of a table.
    """
    if name is None:
        return DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    pipeline_class = find_pipeline_class(name, cache_dir, "--diffusion_model")
    scheduler = pipeline_class.from_pretrained(name, cache_dir=cache_dir).scheduler
    if "num_train_timesteps" not in scheduler.config or "sigma_data" in scheduler.config:
        raise ValueError(f"--diffusion_model: {type(scheduler).__name__} has no timesteps from 0 to a last one.")
    return scheduler


def clip_recipe(config: CLIPConfig, context: TrainingContext) -> ContrastiveRecipe:
    """The recipe for clean or for noisy images."""
    return (NoisyCLIPRecipe if config.noisy else CLIPRecipe)(config, context)


@dataclass
class CLIPConfig(ContrastiveConfig):
    """The options of train_clip.py."""

    pretrained_model_name_or_path: str | None = option(
        help="A CLIPModel to continue from, or with --noisy to tune: a local folder or a Hub name."
    )
    loss: Literal["softmax", "sigmoid"] = option(
        "softmax", help="softmax: CLIP's, among the whole batch. sigmoid: SigLIP's, by pairs; trains a SiglipModel."
    )
    text_config: JSONObject = option(
        JSONObject(), help="Arguments of the text tower's configuration, as JSON or a YAML mapping; by default small."
    )
    vision_config: JSONObject = option(
        JSONObject(), help="Arguments of the image tower's configuration, as JSON or a YAML mapping; by default small."
    )
    projection_dim: int = option(64, help="The width of the embeddings.")
    tokenizer_name_or_path: str | None = option(
        help="A tokenizer to use, instead of one that is made from the captions."
    )
    vocabulary_size: int = option(1000, help="At most so many tokens in a tokenizer that is made from the captions.")
    max_caption_length: int | None = option(
        help="The longest text in tokens, those that mark its ends included; by default that of the "
        "longest caption, and for the sigmoid loss 64, as transformers' pipeline expects it."
    )
    noisy: bool = option(
        False, help="Tune --pretrained_model_name_or_path to see noisy images and their timestep, for CLIP guidance."
    )
    diffusion_model: str | None = option(
        help="With --noisy: the pipeline to guide, whose noise is used; by default a cosine schedule of 1000 steps."
    )

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "projection_dim")
        self.require_at_least(3, "max_caption_length")
        self.require_at_least(514, "vocabulary_size")
        given = self.pretrained_model_name_or_path is not None
        self.require(given or not self.noisy, "--noisy tunes a trained CLIP: give --pretrained_model_name_or_path")
        self.require_default(self.noisy, ("diffusion_model",), "is for --noisy, which is not set")
        self.require_default(
            not given,
            ("text_config", "vision_config", "projection_dim", "vocabulary_size", "max_caption_length", "loss"),
            "is for a new network, and not for --pretrained_model_name_or_path",
        )
        self.require_default(
            self.tokenizer_name_or_path is None,
            ("vocabulary_size",),
            "is for a tokenizer that is made from the captions, and not for --tokenizer_name_or_path",
        )


if __name__ == "__main__":
    run(clip_recipe, CLIPConfig)
