"""What recipes have in common that train a denoiser of films with captions: the models of Imagen Video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import ModelMixin

from diffusers_ext.data import ImageDataset
from diffusers_ext.hub.card import trained_from
from diffusers_ext.losses.diffusion import PredictionType
from diffusers_ext.pipelines import TextToVideoPixelPipeline
from diffusers_ext.pipelines.prompts import encode_film_tokens, film_inputs
from diffusers_ext.training.diffusion.denoisers import check_size, sample_size
from diffusers_ext.training.diffusion.objective_options import ObjectiveConfig
from diffusers_ext.training.evaluation.films import film_strips, measure_frames
from diffusers_ext.training.evaluation.measurable import load_measuring_extractor
from diffusers_ext.training.evaluation.samples import SamplingConfig
from diffusers_ext.training.loop.configuration import JSONObject, TrainingConfig, option
from diffusers_ext.training.loop.context import TrainingContext
from diffusers_ext.training.text_and_image.caption_tokenizer import tokenize
from diffusers_ext.training.text_and_image.captioned_denoiser import CaptionedDenoiserRecipe
from diffusers_ext.training.text_and_image.film_denoisers import build_film_denoiser
from diffusers_ext.training.text_and_image.text_encoders import TextEncoderConfig


NO_CAPTIONS = "none"
NUM_SHOWN = 6  # films in the picture of samples


class FilmDiffusionRecipe(CaptionedDenoiserRecipe):
    """Subclasses define `step`, and perhaps what the denoiser sees beside the noisy film, and `call_inputs`."""

    pipeline_class = TextToVideoPixelPipeline
    examples = "films"
    enlarges = False  # whether the denoiser sees an enlarged small film, and is told the level of its noise

    def new_unet(self, text_width: int) -> ModelMixin:
        """A denoiser with random weights for the states of texts."""
        return build_film_denoiser(
            self.config.denoiser,
            size=self.config.size,
            num_frames=self.config.num_frames,
            text_width=text_width,
            takes_noise_level=self.enlarges,
            arguments=self.config.unet,
            **self.channels(),
        )

    def channels(self) -> dict[str, int]:
        """The numbers of channels of the denoiser's input and output."""
        of_frames = self.config.channels
        return {
            "in_channels": of_frames * (2 if self.enlarges else 1),
            "out_channels": of_frames * self.objective.outputs_per_channel,
        }

    def losses(
        self,
        clean: torch.Tensor,
        texts: dict[str, torch.Tensor],
        timesteps: torch.Tensor,
        noise: torch.Tensor,
        shown: torch.Tensor | None = None,
        noise_levels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The loss of each film (N, C, F, H, W).

        Args:
            clean, noise (`torch.Tensor` of shape `(N, C, F, H, W)`): the films, and their noise.
            texts (`dict`): of [`encode_film_tokens`].
            timesteps (`torch.Tensor` of shape `(N,)`): when they are.
            shown (`torch.Tensor` of shape `(N, C, F, H, W)`, *optional*): what a super-resolver sees.
            noise_levels (`torch.Tensor` of shape `(N,)`, *optional*): of the noise in that.
        """
        # To the noise, which treats all pixels alike, a film is one tall image.
        films, clean, noise = clean, clean.flatten(2, 3), noise.flatten(2, 3)
        noisy = self.objective.add_noise(clean, noise, timesteps)
        sample = noisy.view_as(films) if shown is None else torch.cat([noisy.view_as(films), shown], dim=1)
        inputs = film_inputs(self.network("unet"), texts, films.shape[2], noise_levels)
        output = self.unet(sample, timesteps, **inputs).sample
        return self.objective.losses(output.flatten(2, 3), clean, noisy, noise, timesteps)

    def texts(self, batch: dict[str, torch.Tensor], draw) -> dict[str, torch.Tensor]:
        """What the denoiser is told of the captions of a batch, see [`encode_film_tokens`]."""
        ids, mask = self.tokens(batch, draw)
        with torch.set_grad_enabled("text_encoder" in self.context.networks), self.context.autocast():
            return encode_film_tokens(self.text_encoder, ids, mask)

    def tokens(self, batch: dict[str, torch.Tensor], draw) -> tuple[torch.Tensor, torch.Tensor]:
        """The token ids and the attention mask of the captions of a batch, int64 (N, L) each; some are hidden."""
        rows = torch.full((len(batch["pixel_values"]),), len(self.captions))  # the empty text
        if self.captions:
            rows = draw.host.dropout(batch["caption_ids"], self.config.caption_dropout, len(self.captions))
        ids, mask = self.caption_tokens
        return ids[rows].to(self.context.device), mask[rows].to(self.context.device)

    def pipeline(self, unet, text_encoder=None) -> TextToVideoPixelPipeline:
        """The pipeline with a fast second-order sampler, see [`~Objective.sampling_scheduler`]."""
        return TextToVideoPixelPipeline(
            unet=unet,
            scheduler=self.objective.sampling_scheduler(),
            text_encoder=self.text_encoder if text_encoder is None else text_encoder,
            tokenizer=self.tokenizer,
            image_channels=self.config.channels,
            default_num_frames=self.config.num_frames,
            default_num_inference_steps=self.config.num_inference_steps,
            **self.trained_for,
        )

    # What stands around the algorithm

    def __init__(self, config: FilmDiffusionConfig, context: TrainingContext):
        super().__init__(config, context)
        self.caption_tokens = tokenize(self.tokenizer, self.known_texts(), self.tokenizer.model_max_length)
        self.extractor = load_measuring_extractor(
            config.feature_extractor,
            config.metrics,
            shape=(config.channels, *config.size),
            num_real=self.dataset.num_examples * config.num_frames,
            num_generated=config.num_evaluation_samples * config.num_frames,
            device=context.device,
        )

    @property
    def captions(self) -> list[str]:
        """Those of the films; none in a training without texts."""
        return self.dataset.captions or []

    def known_texts(self) -> list[str]:
        return [*self.captions, ""]

    def pretrained_unet(self) -> ModelMixin:
        unet, size = super().pretrained_unet(), self.config.size
        longest = unet.config.get("motion_max_seq_length")
        if longest is not None and longest < self.config.num_frames:
            raise ValueError(
                f"--num_frames must be at most {longest} for {self.config.pretrained_model_name_or_path}, whose "
                f"network can order no more, not {self.config.num_frames}."
            )
        check_size(unet, size)
        unet.register_to_config(sample_size=sample_size(size))
        return unet

    def describe_data(self) -> str:
        return f"{super().describe_data()}, in {self.config.num_frames} frames"

    def identity(self) -> dict:
        config = self.config
        options = {name: getattr(config, name) for name in ("num_frames", "caption_dropout", "text_encoder")}
        return {**self.objective.identity(), **self.trained_for, **options, "tokenizer": self.tokenizer.get_vocab()}

    @property
    def best_scale(self) -> float | None:
        """The guidance scale of samples; `None` where no caption was hidden in training."""
        return max(self.config.guidance_scales) if self.captions and self.config.caption_dropout > 0 else None

    def call_inputs(self, count: int) -> dict[str, list]:
        """Arguments of the pipeline's call for so many films, a value for each."""
        texts = self.captions or [""]
        return {"prompt": [texts[index % len(texts)] for index in range(count)]}

    def shown_inputs(self) -> dict[str, list]:
        """The same for the films in the picture of samples."""
        return self.call_inputs(NUM_SHOWN)

    def sample_grid(self, generate):
        """A row of frames for each prompt."""
        inputs = self.shown_inputs()
        return film_strips(generate, inputs["prompt"], inputs, guidance_scale=self.best_scale)

    def evaluate(self, generate):
        """Measures of single frames; nothing without `--feature_extractor`."""
        if self.extractor is None:
            return []
        config, count = self.config, self.config.num_evaluation_samples
        scales = config.guidance_scales if self.best_scale is not None else [None]
        rows = []
        for scale in scales:
            batches = self.dataset.reference_batches(config.evaluation_batch_size, **self.context.share)
            measures = measure_frames(
                generate,
                (batch["pixel_values"] for batch in batches),
                count,
                self.call_inputs(count),
                extractor=self.extractor,
                metrics=config.metrics,
                split=config.dataset_split,
                guidance_scale=scale,
                num_inference_steps=config.num_inference_steps,
            )
            rows.append({"guidance_scale": scale, **measures})
        return rows

    # What the model does, for the card, and further arguments of a call.
    task, call = "Text to video", ""

    def describe(self) -> dict:
        config, prompt = self.config, self.shown_inputs()["prompt"][0]
        call = (repr(prompt) if self.captions or self.call else "batch_size=1") + self.call
        if self.best_scale is not None:
            call += f", guidance_scale={self.best_scale}"
        return {
            "task": f"{self.task}: a diffusion model of pixels ({config.prediction_type}), {config.num_frames} "
            f"frames, {trained_from(config.pretrained_model_name_or_path)}.",
            "usage": f"frames = pipe({call}).frames[0]\n"
            'frames[0].save("film.gif", save_all=True, append_images=frames[1:], duration=100, loop=0)',
            "base_model": config.pretrained_model_name_or_path,
            "tags": ["text-to-video", "diffusion"],
        }


@dataclass
class FilmDiffusionConfig(TextEncoderConfig, ObjectiveConfig, SamplingConfig, TrainingConfig):
    """Options that these recipes have."""

    num_frames: int = option(8, help="The frames of a clip that is trained on and made.", group="data", essential=True)
    frame_stride: int = option(
        1,
        help="Every so many-th frame of a film is a frame of the clip: 3 makes 8 frames per second of 24.",
        group="data",
    )
    caption_column: str = option(
        "text",
        help="The column with one caption or several for each film, or with classes, whose names are the captions; "
        "`none` for a model without texts. A folder of films has its captions in a metadata file, or in text files "
        "beside the films.",
        group="data",
    )

    denoiser: Literal["UNetMotionModel", "UNet3DConditionModel"] = option(
        "UNetMotionModel",
        help="The network's class in diffusers: layers of time are attention, or convolutions, with attention where "
        "the layers of space attend.",
        group="network",
    )
    unet: JSONObject = option(
        JSONObject(),
        help="Arguments of this class, as JSON or a YAML mapping; by default those that suit the size of the frames.",
        group="network",
    )
    prediction_type: Literal[PredictionType, "edm"] = option("v_prediction", help="What the network predicts.")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "num_frames", "frame_stride")
        self.require(not self.streaming, "--streaming is not for films: leave it out")
        self.require_default(
            self.pretrained_model_name_or_path is None,
            ("denoiser",),
            "is for a new model, and --pretrained_model_name_or_path has one",
        )

    def load_dataset(self, size: tuple[int, int], channels: int, *augmentations, **options) -> ImageDataset:
        """The films that these options name, with their captions."""
        captions = {} if self.caption_column == NO_CAPTIONS else {"caption_column": self.caption_column}
        films = {"num_frames": self.num_frames, "frame_stride": self.frame_stride}
        return super().load_dataset(size, channels, *augmentations, **captions, **films, **options)
