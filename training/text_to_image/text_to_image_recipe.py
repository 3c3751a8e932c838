"""The recipe that all text-to-image recipes extend: the diffusion loss in the latent space of a base."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from diffusers import DiffusionPipeline

from diffusers_ext.data import ImageDataset
from diffusers_ext.data.buckets import Size, aspect_ratio_buckets
from diffusers_ext.training.diffusion.encoding_cache import MomentCache
from diffusers_ext.training.diffusion.objectives import Weighting
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.loop.configuration import TrainingConfig, option
from diffusers_ext.training.loop.context import TrainingContext
from diffusers_ext.training.loop.recipe import Recipe
from diffusers_ext.training.loop.sampling import Generation
from diffusers_ext.training.text_to_image.base_models import load_base_model
from diffusers_ext.training.text_to_image.prompt_lengths import NumTokens, warn_of_cut_prompts
from diffusers_ext.training.text_to_image.prompt_measures import PromptMeasures
from diffusers_ext.training.text_to_image.prompt_sampler import PromptSampler
from diffusers_ext.training.text_to_image.text_cache import TextCache


logger = logging.getLogger(__name__)

DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
LONGEST_TITLE = 40  # letters


class TextToImageRecipe(Recipe):
    """Latent diffusion (Rombach et al. 2022): train a part of a text-to-image model, or a network beside it.

    Subclasses define which networks are trained ([`~TextToImageRecipe.trained_networks`]), and replace single parts of
    the step: the prompts, their encoding, the residuals that are added inside the denoiser, or the losses.
    """

    # Whether the whole pipeline is published; its frozen parts then keep their full precision.
    saves_the_base = False

    def trained_networks(self) -> dict[str, torch.nn.Module]:
        """The networks to train, by name. When this is called, the base is on its device and frozen."""
        raise NotImplementedError

    def step(self, batch, draw):
        self._sampling.close()  # from here on, frozen weights require no gradients
        self.minimise(tuple(self.context.networks), self.losses(batch, draw))

    def losses(self, batch: dict[str, torch.Tensor], draw) -> torch.Tensor:
        """The diffusion loss of each sample, of shape (N,)."""
        latents, text = self.latents(batch, draw), self.text(batch, draw)
        timesteps, noise = self.objective.draw_timesteps(draw), draw.normal_like(latents)
        if self.config.noise_offset > 0:
            noise = noise + self.config.noise_offset * draw.normal(latents.shape[1], 1, 1)
        noisy = self.objective.add_noise(latents, noise, timesteps)

        with self.context.autocast():
            model_timesteps = self.objective.model_timesteps(timesteps)
            residuals = self.residuals(noisy, model_timesteps, text, batch, draw)
            output = self.base.denoise(self.denoiser, noisy, model_timesteps, text, batch.get("time_ids"), residuals)
        return self.objective.losses(output, latents, noisy, noise, timesteps)

    def latents(self, batch: dict[str, torch.Tensor], draw) -> torch.Tensor:
        """A sample of the latents of each image of a batch, (N, C, h, w)."""
        moments = self.moments(batch["pixel_values"])
        return self.base.space.sample(moments, draw.normal_like(moments.chunk(2, dim=1)[0]))

    def text(self, batch: dict[str, torch.Tensor], draw) -> dict[str, torch.Tensor]:
        """The text embeddings of the prompts of a batch; `--prompt_dropout` hides some prompts."""
        prompts, hidden = self.prompts(batch, draw), [False] * len(batch["pixel_values"])
        if self.config.prompt_dropout > 0:
            hidden = (draw.host.uniform() < self.config.prompt_dropout).tolist()
        text = self.encode_prompts(["" if hide else prompt for prompt, hide in zip(prompts, hidden, strict=True)])
        return self.base.hide_text(text, torch.tensor(hidden, device=self.context.device))

    def prompts(self, batch: dict[str, torch.Tensor], draw) -> list[str]:
        """The prompt of each image of a batch."""
        return [self.dataset.captions[index] for index in batch["caption_ids"].tolist()]

    def encode_prompts(self, prompts: list[str]) -> dict[str, torch.Tensor]:
        """The text embeddings of prompts, with gradients if the text encoders are trained."""
        if "text_encoders" not in self.context.networks:
            return self.frozen_text(prompts)
        token_ids = self.base.tokenize(prompts)
        return self.text_encoders({name: ids.to(self.context.device) for name, ids in token_ids.items()})

    def encode(self, token_ids: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The text embeddings of token ids (N, L), by frozen text encoders."""
        with self.context.autocast():
            return self.base.encode_text(token_ids)

    def residuals(self, noisy_latents, timesteps, text, batch, draw) -> dict:
        """Tensors that another network adds inside the denoiser, as keywords of the denoiser's call."""
        return {}

    @property
    def denoiser(self) -> torch.nn.Module:
        """The denoiser to call in a step: if it is trained, the trainer's wrapper around it."""
        return getattr(self, self.base.denoiser_name, self.base.denoiser)

    def pipeline(self, **networks: torch.nn.Module) -> DiffusionPipeline:
        """The base's own pipeline, which contains the trained networks. It can be sampled until the next step."""
        self._sampling.enter_context(self.base.as_loaded())
        return self.base.pipeline

    # What stands around the algorithm

    def __init__(self, config: TextToImageConfig, context: TrainingContext):
        super().__init__(config, context)
        self.base = load_base_model(
            config.pretrained_model_name_or_path, config.revision, config.variant, config.cache_dir
        )
        self.objective = self.base.objective(
            timestep_sampling=config.timestep_sampling,
            weighting=Weighting(config.loss_weighting, snr_gamma=config.snr_gamma),
        )
        self._check_size()
        self.measures = PromptMeasures(config.clip_model, config.dino_model, context.device)
        self.base_fingerprint = self.base.fingerprint()
        self._shown, self._sampling = None, ExitStack()
        self.check_prompt_lengths()

    def check_prompt_lengths(self) -> None:
        """Say which prompts are longer than the text encoders read, or than the model that measures samples reads."""
        warn_of_cut_prompts(self.base, self.dataset.captions or [], "captions", self.num_tokens)
        for name in ("validation_prompts", "prior_prompts"):
            warn_of_cut_prompts(self.base, getattr(self.config, name) or [], f"--{name}", self.num_tokens)
        self.measures.warn_of_cut_prompts(self.config.validation_prompts or [])

    # Counts the tokens of prompts for a text encoder, where the base itself does not know all of them.
    num_tokens: NumTokens | None = None

    def _check_size(self) -> None:
        config, multiple = self.config, self.base.size_multiple
        sides = (config.bucket_step,) if config.aspect_ratio_buckets else config.size
        if any(side % multiple for side in sides):
            option_name = "--bucket_step" if config.aspect_ratio_buckets else "--resolution"
            raise ValueError(f"{option_name} must be a multiple of {multiple} for this base, not {sides}.")

    def load_dataset(self) -> ImageDataset:
        """The images with their captions."""
        return self.config.load_dataset(**self.image_options())

    def image_options(self) -> dict:
        """How images are loaded: keywords of [`DataConfig.load_dataset`]."""
        config = self.config
        return {
            "size": config.size,
            "channels": config.channels,
            "center_crop": config.center_crop,
            "random_flip": config.random_flip,
            "load_size": config.load_size,
            "buckets": config.buckets(),
            "caption_column": config.caption_column,
        }

    def networks(self) -> dict[str, torch.nn.Module]:
        dtype = torch.float32 if self.saves_the_base else DTYPES[self.context.precision]
        self.base.freeze(self.context.device, dtype)
        if self.config.prior_prompts:
            # Before any weight changes: later images of these prompts are compared with these.
            with self.base.as_loaded():
                self.measures.remember_prior(self._prior_images(self._generation(self.base.pipeline)))
        networks = self.trained_networks()
        self._open_caches()
        self._log_memory(networks)
        return networks

    def _open_caches(self) -> None:
        """Set up the encoding of single images and prompts, and its caches."""
        config, context = self.config, self.context
        folder = config.latent_cache_dir or str(Path(config.output_dir) / "cache")
        self.moments = MomentCache(folder if config.cache_latents else None, self.base.space)
        text_folder = folder if config.cache_text_embeddings else None
        self.frozen_text = TextCache(text_folder, self.base, self.encode, context.precision, context.device)

    def _log_memory(self, networks: dict[str, torch.nn.Module]) -> None:
        parts = (self.base.denoiser, self.base.vae, *self.base.text_encoders.values(), *networks.values())
        weights = {weight for part in parts for weight in part.parameters()}
        trained = sum(weight.numel() for weight in weights if weight.requires_grad)
        held = sum(weight.numel() * weight.element_size() for weight in weights)
        # in float32: gradients, the average, and the two moments of AdamW unless they are in 8 bits
        beside = 4 * trained * (1 + self.config.use_ema + (0.5 if self.config.use_8bit_adam else 2))
        logger.info(
            f"Memory: {held / 2**20:.1f} MiB of weights, and {beside / 2**20:.1f} MiB for training {trained:,} of "
            f"{sum(weight.numel() for weight in weights):,} weights; activations come on top."
        )

    def identity(self) -> dict:
        names = ("prompt_dropout", "timestep_sampling", "loss_weighting", "snr_gamma", "noise_offset")
        options = {name: getattr(self.config, name) for name in names}
        return {"base": self.base_fingerprint, **self.objective.identity(), **options}

    # Samples

    def validation_inputs(self) -> dict[str, list]:
        """The arguments of the pipeline's call for each image of the grid, by keyword."""
        prompts = self.config.validation_prompts or self.default_prompts()
        return {"prompt": [prompt for prompt in prompts for _ in range(self.config.num_validation_images)]}

    def default_prompts(self) -> list[str]:
        """The prompts of the grid if `--validation_prompts` is not set."""
        return self.dataset.captions[:4]

    def sample_grid(self, generate):
        """A row of images for each prompt."""
        prompts = self.validation_inputs()["prompt"][:: self.config.num_validation_images]
        count, titles = self.config.num_validation_images, [row_title(prompt) for prompt in prompts]
        return sample_grid(self._shown_images(generate), count, row_titles=titles)

    def evaluate(self, generate):
        if not self.measures.models:
            return []
        references = (batch["pixel_values"] for batch in self.reference_batches())
        values = self.measures(self._shown_images(generate), self.validation_inputs()["prompt"], references)
        if self.config.prior_prompts:
            values |= self.measures.prior_drift(self._prior_images(generate))
        return [{**values, "provenance": {**self._call_arguments(), **self.measures.provenance}}]

    def reference_batches(self):
        """Batches of the images that samples are compared with, uint8 (N, 3, H, W)."""
        config = self.config
        return self.dataset.reference_batches(config.evaluation_batch_size, limit=config.num_evaluation_samples)

    def _shown_images(self, generate: Generation) -> torch.Tensor:
        # The grid and the measures, which follow each other, use the same images.
        if self._shown is None or self._shown[0] is not generate:
            self._shown = (generate, self.generate(generate, self.validation_inputs()))
        return self._shown[1]

    def _prior_images(self, generate: Generation) -> torch.Tensor:
        prompts = [p for p in self.config.prior_prompts for _ in range(self.config.num_validation_images)]
        return self.generate(generate, {"prompt": prompts})

    def generate(self, generate: Generation, inputs: dict[str, list]) -> torch.Tensor:
        """Sample the pipeline: images, uint8 (N, 3, H, W).

        Args:
            generate ([`Generation`]): samples the pipeline.
            inputs (`dict[str, list]`): arguments of the pipeline's call, a value for each image.
        """
        height, width = self.config.size
        sampler = PromptSampler(self.base, self.context, generate.pipeline)
        arguments = {"height": height, "width": width, **self._call_arguments()}
        count = len(inputs["prompt"])
        # Each process has to make at least one: the last image may be made several times, and is kept once.
        made = max(count, self.context.num_processes)
        inputs = {name: [*values, *[values[-1]] * (made - count)] for name, values in inputs.items()}
        return replace(generate, pipeline=sampler).images(made, per_image=inputs, **arguments)[:count]

    def _generation(self, pipeline: DiffusionPipeline) -> Generation:
        pipeline.set_progress_bar_config(disable=True)
        return Generation(pipeline, self.context, self.config.seed, self.config.evaluation_batch_size)

    def _call_arguments(self) -> dict:
        names = ("num_inference_steps", "guidance_scale")
        return {name: getattr(self.config, name) for name in names if getattr(self.config, name) is not None}

    def base_model(self) -> str | None:
        """The Hub name of the base, for the model card; `None` if the base is a local folder."""
        name = self.config.pretrained_model_name_or_path
        return None if Path(name).exists() else name


def row_title(prompt: str) -> str:
    """As much of a prompt as fits beside its row of images."""
    return prompt if len(prompt) <= LONGEST_TITLE else f"{prompt[: LONGEST_TITLE - 1]}…"


@dataclass
class TextToImageConfig(TrainingConfig):
    """Options that all text-to-image recipes have."""

    # The base
    pretrained_model_name_or_path: str | None = option(
        help="The text-to-image pipeline to build on, a local folder or a Hub name: Stable Diffusion 1.x, 2.x, XL, 3.",
        group="network",
        essential=True,
    )
    revision: str | None = option(help="The commit, tag or branch of the base on the Hub.", group="network")
    variant: str | None = option(help="The variant of the base's weight files, such as fp16.", group="network")
    resolution: list[int] = option([512], help="Image size in pixels: one number, or height and width.")

    # Images
    caption_column: str = option(
        "text",
        help="The column with one caption or several for each image. A folder of images has its captions in a "
        "metadata file, or in text files beside the images.",
        group="data",
    )
    aspect_ratio_buckets: bool = option(
        False,
        help="Crop each image to the nearest of several aspect ratios, of about as many pixels as --resolution. All "
        "images of a batch have the same one.",
        group="data",
    )
    bucket_step: int = option(64, help="The sides of these sizes are multiples of this.", group="data")

    # The diffusion step
    prompt_dropout: float = option(0.0, help="How often a prompt is hidden in training, so that guidance works.")
    timestep_sampling: Literal["uniform", "logit_normal"] | None = option(
        help="How noise levels are drawn: uniform, or logit_normal (Esser et al. 2024), which prefers the middle "
        "ones. By default logit_normal for Stable Diffusion 3, and uniform for the others."
    )
    loss_weighting: Literal["none", "min_snr"] = option(
        "none", help="How squared errors are weighted by noise level: min_snr as in Hang et al. (2023)."
    )
    snr_gamma: float = option(5.0, help="min_snr: the largest signal-to-noise ratio that counts.")
    noise_offset: float = option(
        0.0, help="The standard deviation of noise that is added to whole channels, for darker and brighter images."
    )

    # Caches
    cache_latents: bool = option(False, help="Encode each image once, and keep the result on the disk.", group="speed")
    cache_text_embeddings: bool = option(
        False,
        help="Encode each prompt once, and keep the result on the disk; not if text encoders are trained.",
        group="speed",
    )
    latent_cache_dir: str | None = option(
        help="The folder of these caches; by default in --output_dir.", group="speed"
    )

    # Samples and measures
    validation_prompts: list[str] | None = option(
        help="The prompts of the sample grids and of the measures; by default the first captions.", group="evaluation"
    )
    num_validation_images: int = option(4, help="The number of images of each of these prompts.", group="evaluation")
    num_inference_steps: int | None = option(
        help="Steps of the sampler; by default as in the pipeline.", group="evaluation"
    )
    guidance_scale: float | None = option(
        help="The guidance scale of samples; by default as in the pipeline.", group="evaluation"
    )
    clip_model: str | None = option(
        help="A CLIP model (a folder or Hub name): measures how similar samples and training images are (clip_i), and "
        "how well samples match their prompts (clip_t).",
        group="evaluation",
    )
    dino_model: str | None = option(
        help="An image model such as facebook/dino-vits16: measures how similar samples and training images are "
        "(dino).",
        group="evaluation",
    )
    prior_prompts: list[str] | None = option(
        help="Prompts whose images should not change: measures how far they drift (prior_drift, from 0).",
        group="evaluation",
    )

    def __post_init__(self):
        # Before the checks of TrainingConfig, which are about the measures of other recipes.
        self.require(
            self.feature_extractor is None and self.metrics is None,
            "--feature_extractor and --metrics are not for text-to-image models: use --clip_model or --dino_model",
        )
        super().__post_init__()
        self.require(self.pretrained_model_name_or_path is not None, "--pretrained_model_name_or_path is required")
        self.require(self.channels == 3, f"--channels must be 3 for text-to-image models, not {self.channels}")
        self.require_at_least(1, "num_validation_images", "num_inference_steps")
        self.require_at_least(0, "snr_gamma", "noise_offset")
        self.require(0 <= self.prompt_dropout < 1, f"--prompt_dropout must be in [0, 1), not {self.prompt_dropout}")
        self.require(
            not self.prior_prompts or bool(self.clip_model or self.dino_model),
            "--prior_prompts need an image model to compare images: set --clip_model or --dino_model",
        )
        self.require(
            not self.streaming or bool(self.validation_prompts),
            "--streaming knows no captions before they are read: set --validation_prompts",
        )

    def buckets(self) -> list[Size] | None:
        """The sizes (H, W) that images are cropped to, instead of `--resolution`; `None` without buckets.

        Raises:
            ValueError: if `--resolution` is not a single number.
        """
        if not self.aspect_ratio_buckets:
            return None
        height, width = self.size
        self.require(height == width, f"--aspect_ratio_buckets need one number as --resolution, not {self.resolution}")
        return aspect_ratio_buckets(height, self.bucket_step)
