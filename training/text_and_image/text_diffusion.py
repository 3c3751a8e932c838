"""What recipes have in common that train a denoiser of pixels with captions: GLIDE, Imagen and their relatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import ModelMixin, SchedulerMixin, UNet2DConditionModel

from diffusers_ext.data import ImageDataset
from diffusers_ext.hub.card import trained_from
from diffusers_ext.pipelines import TextToImagePixelPipeline
from diffusers_ext.pipelines.prompts import POOLED_TYPES, encode_tokens
from diffusers_ext.training.diffusion.denoiser_classes import build_attending_unet
from diffusers_ext.training.diffusion.objective_options import ObjectiveConfig
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.evaluation.samples import SampleEvaluator, SamplingConfig
from diffusers_ext.training.loop.configuration import option
from diffusers_ext.training.loop.context import TrainingContext
from diffusers_ext.training.text_and_image.caption_tokenizer import tokenize
from diffusers_ext.training.text_and_image.captioned_denoiser import CaptionedDenoiserRecipe
from diffusers_ext.training.text_and_image.captions import CaptionedImagesConfig, draw_captions
from diffusers_ext.training.text_and_image.imagen_denoiser import build_imagen_unet
from diffusers_ext.training.text_and_image.text_encoders import TextEncoderConfig


POOLED_BY_ATTENTION = {"addition_embed_type": "text", "addition_embed_type_num_heads": 4}
NO_LIMIT = 100.0  # of pixels under dynamic thresholding, far above what a network predicts
GRID_COLUMNS, LONGEST_TITLE = 4, 40


class TextDiffusionRecipe(CaptionedDenoiserRecipe):
    """Subclasses define `step`, perhaps what the denoiser sees beside the noisy image, and `call_inputs`."""

    pipeline_class = TextToImagePixelPipeline
    # For each channel of an image: those of what the denoiser sees beside the noisy image; and those that come once.
    shown_per_channel, shown_once = 0, 0
    tells_noise_level = False  # whether the denoiser is told the level of the noise in a small image

    def new_unet(self, text_width: int) -> ModelMixin:
        """A denoiser of the class `--denoiser` for the states of texts."""
        config = self.config
        if config.denoiser == "UNet2DConditionModel":
            return self.conditional_unet(text_width)
        return build_imagen_unet(
            size=config.size,
            text_width=text_width,
            max_text_length=self.tokenizer.model_max_length,
            takes_noise_level=self.tells_noise_level,
            # instead of timesteps EDM gives a network logarithms of noise levels
            noise_schedule=None if config.prediction_type == "edm" else "linear",
            arguments=config.unet,
            **self.channels(),
        )

    def conditional_unet(self, text_width: int) -> UNet2DConditionModel:
        """A U-Net that attends to the states of all tokens, and adds the text as a whole to the timestep.

        That is the state that the text encoder makes of the whole text, as in GLIDE, by which a denoiser learns to
        read early. Where the encoder has none, it is a mean of the states with learned weights, as in Imagen.
        """
        usual = "simple_projection" if self._has_pooled_state() else None
        if self.config.unet.get("class_embed_type", usual) not in POOLED_TYPES:
            return self.build_unet(text_width, usual=POOLED_BY_ATTENTION)
        unet = self.build_unet(
            text_width,
            usual={"class_embed_type": usual},
            decided={"projection_class_embeddings_input_dim": text_width},
            class_labels=torch.zeros(1, text_width),
        )
        if unet.config.class_embed_type == "simple_projection":
            # Texts are then as far apart as classes are, whose embeddings have unit variance from the start.
            torch.nn.init.normal_(unet.class_embedding.weight, std=text_width**-0.5)
        return unet

    def build_unet(
        self, text_width: int, usual: dict, decided: dict | None = None, **inputs: torch.Tensor
    ) -> UNet2DConditionModel:
        """A U-Net for the states of texts, with further arguments and, for a trial, further inputs."""
        return build_attending_unet(
            size=self.config.size,
            arguments=self.config.unet,
            usual=usual,
            decided={"cross_attention_dim": text_width, **(decided or {})},
            **self.channels(),
            **inputs,
        )

    def _has_pooled_state(self) -> bool:
        ids, mask = tokenize(self.tokenizer, [""], self.tokenizer.model_max_length)
        with torch.no_grad():
            return self.text_encoder(input_ids=ids, attention_mask=mask).get("pooler_output") is not None

    def channels(self) -> dict[str, int]:
        """The numbers of channels of the denoiser's input and output."""
        images = self.config.channels
        return {
            "in_channels": images * (1 + self.shown_per_channel) + self.shown_once,
            "out_channels": images * self.objective.outputs_per_channel,
        }

    def texts(self, batch: dict[str, torch.Tensor], draw) -> dict[str, torch.Tensor]:
        """What the denoiser is told of the captions of a batch, some of which are replaced by the empty text."""
        captions = draw_captions(self.dataset.captions, batch, self.config.caption_dropout, draw)
        ids, mask = tokenize(self.tokenizer, captions, self.tokenizer.model_max_length)
        with torch.set_grad_enabled("text_encoder" in self.context.networks):
            device = self.context.device
            return encode_tokens(self.text_encoder, self.network("unet"), captions, ids.to(device), mask.to(device))

    def pipeline(self, unet: ModelMixin, text_encoder=None) -> TextToImagePixelPipeline:
        """The pipeline with a fast second-order sampler, see [`~Objective.sampling_scheduler`]."""
        return TextToImagePixelPipeline(
            unet=unet,
            text_encoder=self.text_encoder if text_encoder is None else text_encoder,
            tokenizer=self.tokenizer,
            scheduler=self.sampling_scheduler(),
            image_channels=self.config.channels,
            default_num_inference_steps=self.config.num_inference_steps,
            **self.trained_for,
        )

    def sampling_scheduler(self) -> SchedulerMixin:
        """The sampler, with dynamic thresholding if `--dynamic_thresholding` asks for it."""
        scheduler, ratio = self.objective.sampling_scheduler(), self.config.dynamic_thresholding
        if ratio is None:
            return scheduler
        return type(scheduler).from_config(
            scheduler.config, thresholding=True, dynamic_thresholding_ratio=ratio, sample_max_value=NO_LIMIT
        )

    # What stands around the algorithm

    def __init__(self, config: TextDiffusionConfig, context: TrainingContext):
        super().__init__(config, context)
        self.sampling_scheduler()  # one that is not available is reported now, and not after the training
        self.validation_images = config.load_validation_dataset(self.dataset)
        self.evaluator = SampleEvaluator(
            self.validation_images,
            split=config.validation_split or config.dataset_split,
            device=context.device,
            **config.measured(),
        )

    def known_texts(self) -> list[str] | None:
        return None if self.config.streaming else self.dataset.captions

    def load_dataset(self) -> ImageDataset:
        """The images with their captions."""
        config = self.config
        return config.load_dataset(
            config.size, config.channels, config.center_crop, config.random_flip, load_size=config.load_size
        )

    def before_training(self) -> None:
        super().before_training()
        self.validation_images.prepare()

    def identity(self) -> dict:
        config = self.config
        options = {name: getattr(config, name) for name in ("caption_dropout", "text_encoder", "train_text_encoder")}
        return {**self.objective.identity(), **self.trained_for, **options, "tokenizer": self.tokenizer.get_vocab()}

    def call_inputs(self, count: int) -> dict[str, list]:
        """The arguments of the pipeline's call for samples like the first `count` validation images, by keyword."""
        return {"prompt": [self.validation_images.captions[batch["caption_ids"].item()] for batch in self.rows(count)]}

    def rows(self, count: int):
        """The first validation images, again from the start where these are fewer: batches of one image."""
        known = self.validation_images.num_examples
        rows = list(self.validation_images.reference_batches(1, limit=count if known is None else min(count, known)))
        return [rows[i % len(rows)] for i in range(count)]

    def sample_grid(self, generate):
        """A row of images for each of a few captions, guided."""
        inputs = self.call_inputs(self.config.num_shown_captions)
        titles = [text if len(text) <= LONGEST_TITLE else f"{text[: LONGEST_TITLE - 1]}…" for text in inputs["prompt"]]
        repeated = {name: [v for v in values for _ in range(GRID_COLUMNS)] for name, values in inputs.items()}
        count, scale = len(repeated["prompt"]), max(self.config.guidance_scales)
        images = generate.images(count, per_image=repeated, guidance_scale=scale)
        return sample_grid(images, GRID_COLUMNS, row_titles=titles)

    def evaluate(self, generate):
        """The measures of samples of the captions of validation images, by guidance scale."""
        if self.evaluator.extractor is None:
            return []
        inputs = self.call_inputs(self.config.num_evaluation_samples)
        return [
            {"guidance_scale": scale, **self.evaluator.measure(generate, per_image=inputs, guidance_scale=scale)}
            for scale in self.config.guidance_scales
        ]

    # What the model does, for the card, and further arguments of a call.
    task, call = "Text to image", ""

    def describe(self) -> dict:
        config, caption = self.config, next(iter(self.call_inputs(1)["prompt"]))
        encoder = type(self.text_encoder).__name__
        return {
            "task": f"{self.task}: a denoising diffusion model of pixels ({config.prediction_type}) that attends to "
            f"the states of a {encoder}, {trained_from(config.pretrained_model_name_or_path)}.",
            "usage": f"images = pipe({caption!r}{self.call}, guidance_scale={max(config.guidance_scales)}).images",
            "base_model": config.pretrained_model_name_or_path,
            "tags": ["text-to-image", "diffusion"],
            "pipeline_tag": "text-to-image",
        }


@dataclass
class TextDiffusionConfig(TextEncoderConfig, ObjectiveConfig, SamplingConfig, CaptionedImagesConfig):
    """Options that all of these recipes have."""

    denoiser: Literal["UNet2DConditionModel", "ImagenUNet"] = option(
        "UNet2DConditionModel",
        help="The class of the network: a U-Net of diffusers that attends to all tokens of a text, or the U-Net of "
        "imagen-pytorch, which reads them by a resampler; `--unet` has its arguments.",
        group="network",
    )
    dynamic_thresholding: float | None = option(
        help="Samples are divided by this quantile of their absolute pixels, such as 0.995, where that is above 1 "
        "(Saharia et al. 2022, section 2.3); by default they are clipped, or in flows left alone.",
        group="evaluation",
    )
    num_shown_captions: int = option(6, help="The number of captions in grids of samples.", group="evaluation")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "num_shown_captions")
        self.require_default(
            self.pretrained_model_name_or_path is None,
            ("denoiser",),
            "is for a new model, and --pretrained_model_name_or_path has one",
        )
        ratio = self.dynamic_thresholding
        self.require(ratio is None or 0 < ratio <= 1, f"--dynamic_thresholding must be in (0, 1], not {ratio}")
        self.require(
            ratio is None or self.prediction_type != "edm", "--dynamic_thresholding is not for --prediction_type edm"
        )
