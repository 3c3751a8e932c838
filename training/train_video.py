"""Train a text-to-video model of pixels on films with captions.

    accelerate launch training/train_video.py --config examples/mini_video/model.yaml

The base model of Imagen Video (Ho et al. 2022, https://huggingface.co/papers/2210.02303): a U-Net with layers of space
and layers of time, which reads a text by cross-attention and predicts v, or a rectified flow. With `--image_share`, a
part of the films are images to it. The result is a [`TextToVideoPixelPipeline`].
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from dataclasses import dataclass
from typing import Literal

import torch

from diffusers_ext.data import ImageDataset
from diffusers_ext.losses.diffusion import PredictionType
from diffusers_ext.metrics import load_feature_extractor
from diffusers_ext.metrics.compute import check_measurable
from diffusers_ext.pipelines import TextToVideoPixelPipeline
from diffusers_ext.pipelines.prompts import encode_film_tokens, tell_film
from diffusers_ext.training.diffusion.objective_options import ObjectiveConfig
from diffusers_ext.training.evaluation.samples import SamplingConfig
from diffusers_ext.training.loop.configuration import JSONObject, TrainingConfig, option
from diffusers_ext.training.loop.context import TrainingContext
from diffusers_ext.training.loop.recipe import Recipe
from diffusers_ext.training.text_and_image.caption_tokenizer import tokenize, warn_of_cut_captions
from diffusers_ext.training.text_and_image.text_encoders import TextEncoderConfig
from diffusers_ext.training.video.evaluation import film_strips, measure_frames
from diffusers_ext.training.video.networks import build_motion_unet


NO_CAPTIONS = "none"
NUM_SHOWN = 6  # films in the picture of samples


class VideoRecipe(Recipe):
    """Ho et al. 2022 ("Imagen Video"), sections 2.1 to 2.4, for a base model."""

    def networks(self) -> dict[str, torch.nn.Module]:
        """The denoiser, and the text encoder if it is trained with it."""
        config = self.config
        encoder = self.text_encoder = config.build_text_encoder(self.tokenizer, config.cache_dir)
        unet = build_motion_unet(
            size=config.size,
            in_channels=config.channels,
            out_channels=config.channels * self.objective.outputs_per_channel,
            num_frames=config.num_frames,
            text_width=encoder.config.hidden_size,
            arguments=config.unet,
        )
        if any(weight.requires_grad for weight in encoder.parameters()):
            return {"unet": unet, "text_encoder": encoder}
        self.text_encoder = encoder.eval().to(self.context.device)
        return {"unet": unet}

    def step(self, batch, draw):
        films, texts = batch["pixel_values"], self.encode(self.tokens(batch, draw))
        timesteps, noise = self.objective.draw_timesteps(draw), draw.normal_like(films)
        # An image is a film of one frame, of which layers of time see only that frame (section 2.4).
        chosen = draw.integers(films.shape[2]).view(-1, 1, 1, 1, 1)
        images = torch.take_along_dim(films, chosen, dim=2)
        is_image = draw.host.uniform() < self.config.image_share
        parts = ((films, ~is_image), (images, is_image))

        losses = [
            self.losses(clips[rows], select(texts, rows), timesteps[rows], noise[rows, :, : clips.shape[2]])
            for clips, rows in ((clips, which.nonzero()[:, 0].to(films.device)) for clips, which in parts)
            if len(rows)
        ]

        self.minimise(tuple(self.context.networks), torch.cat(losses))

    def losses(
        self, films: torch.Tensor, texts: dict[str, torch.Tensor], timesteps: torch.Tensor, noise: torch.Tensor
    ) -> torch.Tensor:
        """The loss of each film (N, C, F, H, W), whose texts are told as by [`encode_film_tokens`]."""
        # To the noise, which treats all pixels alike, a film is one tall image.
        clean, noise = films.flatten(2, 3), noise.flatten(2, 3)
        noisy = self.objective.add_noise(clean, noise, timesteps)
        output = self.unet(noisy.view_as(films), timesteps, **tell_film(texts, films.shape[2])).sample
        return self.objective.losses(output.flatten(2, 3), clean, noisy, noise, timesteps)

    def tokens(self, batch: dict[str, torch.Tensor], draw) -> tuple[torch.Tensor, torch.Tensor]:
        """The token ids and the attention mask of the captions of a batch, int64 (N, L) each; some are hidden."""
        rows = torch.full((len(batch["pixel_values"]),), len(self.captions))  # the empty text
        if self.captions:
            rows = draw.host.dropout(batch["caption_ids"], self.config.caption_dropout, len(self.captions))
        ids, mask = self.caption_tokens
        return ids[rows].to(self.context.device), mask[rows].to(self.context.device)

    def encode(self, tokens: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the denoiser is told of texts, see [`encode_film_tokens`]."""
        is_trained = "text_encoder" in self.context.networks
        with torch.set_grad_enabled(is_trained), self.context.autocast():
            encoder = self.text_encoder
            return encode_film_tokens(encoder, self.network("unet"), *tokens)

    def pipeline(self, unet, text_encoder=None) -> TextToVideoPixelPipeline:
        """The pipeline with a fast second-order sampler, see [`~Objective.sampling_scheduler`]."""
        return TextToVideoPixelPipeline(
            unet=unet,
            scheduler=self.objective.sampling_scheduler(),
            text_encoder=self.text_encoder if text_encoder is None else text_encoder,
            tokenizer=self.tokenizer,
            default_num_frames=self.config.num_frames,
            default_num_inference_steps=self.config.num_inference_steps,
        )

    # What stands around the algorithm

    def __init__(self, config: VideoConfig, context: TrainingContext):
        super().__init__(config, context)
        self.objective = config.objective()
        self.captions = self.dataset.captions or []
        texts = [*self.captions, ""]
        self.tokenizer = config.load_tokenizer(texts, config.cache_dir)
        warn_of_cut_captions(self.tokenizer, texts, self.tokenizer.model_max_length)
        self.caption_tokens = tokenize(self.tokenizer, texts, self.tokenizer.model_max_length)
        self.extractor = None
        if config.feature_extractor is not None:
            self.extractor = load_feature_extractor(config.feature_extractor, device=context.device)
            shape, num_films = (config.channels, *config.size), config.num_evaluation_samples
            num_real = self.dataset.num_examples * config.num_frames
            check_measurable(self.extractor, shape, config.metrics, num_real, num_films * config.num_frames)

    def identity(self) -> dict:
        options = {"num_frames": self.config.num_frames, "image_share": self.config.image_share}
        return {**self.objective.identity(), **options, "tokenizer": self.tokenizer.get_vocab()}

    @property
    def prompts(self) -> list[str]:
        """What samples are made for: the prompts of the options, or the first captions."""
        return self.config.validation_prompts or self.captions[:NUM_SHOWN] or [""] * NUM_SHOWN

    @property
    def best_scale(self) -> float | None:
        """The guidance scale of samples; `None` where no caption was hidden in training."""
        return max(self.config.guidance_scales) if self.captions and self.config.caption_dropout > 0 else None

    def sample_grid(self, generate):
        """A row of frames for each prompt."""
        return film_strips(generate, self.prompts, {"prompt": self.prompts}, guidance_scale=self.best_scale)

    def evaluate(self, generate):
        """Measures of single frames; nothing without `--feature_extractor`."""
        if self.extractor is None:
            return []
        config, texts, count = self.config, self.captions or [""], self.config.num_evaluation_samples
        scales = config.guidance_scales if self.best_scale is not None else [None]
        rows = []
        for scale in scales:
            batches = self.dataset.reference_batches(config.evaluation_batch_size, **self.context.share)
            measures = measure_frames(
                generate,
                (batch["pixel_values"] for batch in batches),
                count,
                {"prompt": [texts[index % len(texts)] for index in range(count)]},
                extractor=self.extractor,
                metrics=config.metrics,
                split=config.dataset_split,
                guidance_scale=scale,
                num_inference_steps=config.num_inference_steps,
            )
            rows.append({"guidance_scale": scale, **measures})
        return rows

    def describe(self) -> dict:
        config = self.config
        call = repr(self.prompts[0]) if self.captions else "batch_size=1"
        if self.best_scale is not None:
            call += f", guidance_scale={self.best_scale}"
        return {
            "task": f"Text to video: a diffusion model of pixels ({config.prediction_type}), {config.num_frames} "
            "frames, trained from scratch.",
            "usage": f"frames = pipe({call}).frames[0]\n"
            'frames[0].save("film.gif", save_all=True, append_images=frames[1:], duration=100, loop=0)',
            "tags": ["text-to-video", "diffusion"],
        }


def select(texts: dict[str, torch.Tensor], rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """What is told of some of the films."""
    return {name: values[rows] for name, values in texts.items()}


@dataclass
class VideoConfig(TextEncoderConfig, ObjectiveConfig, SamplingConfig, TrainingConfig):
    """The options of train_video.py."""

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
    image_share: float = option(
        0.0,
        help="The share of the films of a batch of which one random frame is taken as an image: more captions and "
        "scenes for the same time, which layers of space learn from.",
    )

    unet: JSONObject = option(
        JSONObject(),
        help="Arguments of diffusers' UNetMotionModel, as JSON or a YAML mapping; by default those that suit the "
        "size of the frames.",
        group="network",
    )
    prediction_type: Literal[PredictionType, "edm"] = option("v_prediction", help="What the network predicts.")
    validation_prompts: list[str] | None = option(
        help="What the films in the picture of samples show; by default the first captions.", group="evaluation"
    )

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "num_frames", "frame_stride")
        self.require(0 <= self.image_share <= 1, f"--image_share must be in [0, 1], not {self.image_share}")
        self.require(not self.streaming, "--streaming is not for films: leave it out")
        named = self.conditioning_options()
        self.require(not named, f"{' and '.join(named)} can't be used: films have no conditioning images")

    def load_dataset(self, size: tuple[int, int], channels: int, *augmentations, **options) -> ImageDataset:
        """The films that these options name, with their captions."""
        captions = {} if self.caption_column == NO_CAPTIONS else {"caption_column": self.caption_column}
        films = {"num_frames": self.num_frames, "frame_stride": self.frame_stride}
        return super().load_dataset(size, channels, *augmentations, **captions, **films, **options)


if __name__ == "__main__":
    run(VideoRecipe, VideoConfig)
