"""What the text-to-image recipes share: the options, the diffusion step, and samples of prompts."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import torch
from accelerate import Accelerator
from diffusers import DiffusionPipeline

from diffusers_ext.data.buckets import aspect_ratio_buckets
from diffusers_ext.training.base_models import BaseModel, load_base_model
from diffusers_ext.training.caching import MomentCache, TextCache
from diffusers_ext.training.configuration import TrainingConfig, option
from diffusers_ext.training.generation import Generation
from diffusers_ext.training.grids import sample_grid
from diffusers_ext.training.prompt_measures import PromptMeasures
from diffusers_ext.training.recipe import Recipe


logger = logging.getLogger(__name__)

DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
LONGEST_TITLE = 40  # letters of a prompt beside its row of images


@dataclass
class TextToImageConfig(TrainingConfig):
    """Options that all text-to-image recipes have."""

    # The base
    pretrained_model_name_or_path: str | None = option(
        help="The text-to-image pipeline to build on, a local folder or a Hub name: Stable Diffusion 1.x, 2.x, XL, 3."
    )
    revision: str | None = option(help="The commit, tag or branch of the base on the Hub.")
    variant: str | None = option(help="The variant of the base's weight files, such as fp16.")
    resolution: list[int] = option([512], help="Image size in pixels: one number, or height and width.")

    # Images
    caption_column: str = option(
        "text",
        help="The column of captions, or of several for each image; a folder of images has them in a metadata file, "
        "or in text files beside the images.",
    )
    aspect_ratio_buckets: bool = option(
        False,
        help="Crop each image to the nearest of several aspect ratios, of about as many pixels as --resolution; each "
        "batch has images of one.",
    )
    bucket_step: int = option(64, help="What the sides of those sizes are multiples of.")

    # The diffusion step
    prompt_dropout: float = option(0.0, help="How often a prompt is hidden in training, so that guidance works.")
    timestep_sampling: Literal["uniform", "logit_normal"] | None = option(
        help="How noise levels are drawn: logit_normal (Esser et al. 2024) prefers the middle ones, and is the "
        "default of flows; that of the others is uniform."
    )
    loss_weighting: Literal["none", "min_snr"] = option(
        "none", help="How squared errors are weighted by noise level: min_snr is that of Hang et al. (2023)."
    )
    snr_gamma: float = option(5.0, help="min_snr: the largest signal-to-noise ratio that counts.")
    noise_offset: float = option(
        0.0, help="The standard deviation of noise that is added to a whole channel, for darker and brighter images."
    )

    # Caches
    cache_latents: bool = option(False, help="Encode each image once, and keep that on the disk.")
    cache_text_embeddings: bool = option(
        False, help="Encode each prompt once, and keep that on the disk; not where text encoders learn."
    )
    latent_cache_dir: str | None = option(help="Where the caches are kept; by default in --output_dir.")

    # Samples and measures
    validation_prompts: list[str] | None = option(
        help="The prompts of the grids and of the measures; by default the first captions."
    )
    num_validation_images: int = option(4, help="Images of each of them.")
    num_inference_steps: int | None = option(help="Steps of the sampler; by default as many as the pipeline makes.")
    guidance_scale: float | None = option(help="The guidance scale of samples; by default the pipeline's own.")
    clip_model: str | None = option(
        help="A CLIP model (a folder or Hub name): measures how alike samples and training images are (clip_i), and "
        "how well samples fit their prompts (clip_t)."
    )
    dino_model: str | None = option(
        help="An image model such as facebook/dino-vits16: measures how alike samples and training images are (dino)."
    )
    prior_prompts: list[str] | None = option(
        help="Prompts whose images shall stay what they were: measures how far they drift (prior_drift), from 0."
    )

    def __post_init__(self):
        # Before the checks of TrainingConfig, which name the measures of other recipes.
        self.require(
            self.feature_extractor is None and self.metrics is None,
            "--feature_extractor and --metrics are not for text-to-image models: name --clip_model or --dino_model",
        )
        super().__post_init__()
        self.require(self.pretrained_model_name_or_path is not None, "--pretrained_model_name_or_path is required")
        self.require(self.channels == 3, f"--channels must be 3 for text-to-image models, not {self.channels}")
        self.require_at_least(1, "num_validation_images", "num_inference_steps")
        self.require_at_least(0, "snr_gamma", "noise_offset")
        self.require(0 <= self.prompt_dropout < 1, f"--prompt_dropout must be in [0, 1), not {self.prompt_dropout}")
        self.require(
            not self.prior_prompts or bool(self.clip_model or self.dino_model),
            "--prior_prompts need an image model to compare images: name --clip_model or --dino_model",
        )
        self.require(
            not self.streaming or bool(self.validation_prompts),
            "--streaming has no captions to show before it is read: name --validation_prompts",
        )

    def load_dataset(self, size, channels, center_crop=False, random_flip=False, **options):
        """The images with their captions; see [`DataConfig.load_dataset`]."""
        options = {"caption_column": self.caption_column, **options}
        if self.aspect_ratio_buckets:
            self.require(
                size[0] == size[1], f"--aspect_ratio_buckets need one number as --resolution, not {self.resolution}"
            )
            options["buckets"] = aspect_ratio_buckets(size[0], self.bucket_step)
        return super().load_dataset(size, channels, center_crop, random_flip, **options)


class TextToImageRecipe(Recipe):
    """Training of a part of a text-to-image model, or of a part beside it, with the diffusion loss.

    Subclasses say what learns ([`~TextToImageRecipe.trained_networks`]), and replace single parts of the step: the
    prompts, their encoding, what is added to the denoiser, or the losses.
    """

    config_class = TextToImageConfig
    # Whether the base is published as a whole: then its frozen parts keep their full precision.
    saves_the_base = False

    def __init__(self, config: TextToImageConfig):
        super().__init__(config)
        self.base = load_base_model(
            config.pretrained_model_name_or_path, config.revision, config.variant, config.cache_dir
        )
        self.objective = self.base.objective(config)
        multiple = self.base.size_multiple
        sides = (config.bucket_step,) if config.aspect_ratio_buckets else config.size
        if any(side % multiple for side in sides):
            option_name = "--bucket_step" if config.aspect_ratio_buckets else "--resolution"
            raise ValueError(f"{option_name} must be a multiple of {multiple} for this base, not {sides}.")
        self.measures = PromptMeasures(config)
        self.base_fingerprint = self.base.fingerprint()
        self._shown = None

    def identity(self) -> dict:
        names = ("prompt_dropout", "timestep_sampling", "loss_weighting", "snr_gamma", "noise_offset")
        options = {name: getattr(self.config, name) for name in names}
        return {"base": self.base_fingerprint, **self.objective.identity(), **options}

    # Networks

    @property
    def accelerator(self) -> Accelerator:
        return self._trainer.accelerator

    def trained_networks(self) -> dict[str, torch.nn.Module]:
        """What learns, by name; called when the base is in its place and frozen."""
        raise NotImplementedError

    def networks(self) -> dict[str, torch.nn.Module]:
        dtype = torch.float32 if self.saves_the_base else DTYPES[self.accelerator.mixed_precision]
        self.base.freeze(self.accelerator.device, dtype)
        if self.config.prior_prompts:
            # Before anything is changed: what the images of these prompts shall stay.
            self.measures.remember_prior(self._prior_images(self._generation(self.base.pipeline)))
        networks = self.trained_networks()
        self._open_caches()
        self._log_memory(networks)
        return networks

    def _open_caches(self) -> None:
        """Set up what is encoded row by row, and once only if it is kept."""
        config, accelerator = self.config, self.accelerator
        folder = config.latent_cache_dir or str(Path(config.output_dir) / "cache")
        self.moments = MomentCache(folder if config.cache_latents else None, self.base)
        self.frozen_text = TextCache(
            folder if config.cache_text_embeddings else None,
            self.base,
            self.encode,
            accelerator.mixed_precision,
            accelerator.device,
        )

    @property
    def denoiser(self) -> torch.nn.Module:
        """The denoiser to call in a step: the trainer's wrapper around it, if it learns."""
        return getattr(self, self.base.denoiser_name, self.base.denoiser)

    def _log_memory(self, networks: dict[str, torch.nn.Module]) -> None:
        parts = (self.base.denoiser, self.base.vae, *self.base.text_encoders.values(), *networks.values())
        weights = {weight for part in parts for weight in part.parameters()}
        trained = sum(weight.numel() for weight in weights if weight.requires_grad)
        held = sum(weight.numel() * weight.element_size() for weight in weights)
        # in float32: gradients, the average, and the two moments of AdamW if they aren't kept in 8 bits
        beside = 4 * trained * (1 + self.config.use_ema + (0.5 if self.config.use_8bit_adam else 2))
        logger.info(
            f"Memory: {held / 2**20:.1f} MiB of weights, and {beside / 2**20:.1f} MiB for training {trained:,} of "
            f"{sum(weight.numel() for weight in weights):,} weights; activations come on top."
        )

    # The step

    def step(self, batch, draw):
        self.minimise(tuple(self._trainer.networks), self.losses(batch, draw))

    def losses(self, batch: dict[str, torch.Tensor], draw) -> torch.Tensor:
        """The diffusion loss of each sample, of shape (N,)."""
        latents, text = self.latents(batch, draw), self.text(batch, draw)
        timesteps, noise = self.objective.draw_timesteps(draw), draw.normal_like(latents)
        if self.config.noise_offset > 0:
            noise = noise + self.config.noise_offset * draw.normal(latents.shape[1], 1, 1)
        noisy = self.objective.add_noise(latents, noise, timesteps)
        with self.accelerator.autocast():
            residuals = self.residuals(noisy, timesteps, text, batch, draw)
            output = self.base.denoise(
                self.denoiser, noisy, self.objective.told(timesteps), text, batch.get("time_ids"), residuals
            )
        return self.objective.losses(output, latents, noisy, noise, timesteps)

    def residuals(self, noisy_latents, timesteps, text, batch, draw) -> dict:
        """What is added inside of the denoiser, as keywords of its call."""
        return {}

    def latents(self, batch: dict[str, torch.Tensor], draw) -> torch.Tensor:
        """The latents of the images of a batch, (N, C, h, w): a sample of what the encoder leaves open."""
        moments = self.moments(batch["pixel_values"])
        return self.base.sample_latents(moments, draw.normal_like(moments.chunk(2, dim=1)[0]))

    def text(self, batch: dict[str, torch.Tensor], draw) -> dict[str, torch.Tensor]:
        """What the denoiser reads of the prompts of a batch, some of them hidden."""
        prompts, hidden = self.prompts(batch, draw), torch.zeros(len(batch["pixel_values"]), dtype=torch.bool)
        if self.config.prompt_dropout > 0:
            hidden = (draw.uniform() < self.config.prompt_dropout).cpu()
        text = self.encode_prompts(["" if hide else prompt for prompt, hide in zip(prompts, hidden, strict=True)])
        return self.base.hide_text(text, hidden.to(self.accelerator.device))

    def prompts(self, batch: dict[str, torch.Tensor], draw) -> list[str]:
        """The prompt of each image of a batch."""
        return [self.dataset.captions[index] for index in batch["caption_ids"].tolist()]

    def encode_prompts(self, prompts: list[str]) -> dict[str, torch.Tensor]:
        """What the denoiser reads of prompts: with gradients, where text encoders learn."""
        if "text_encoders" not in self._trainer.networks:
            return self.frozen_text(prompts)
        token_ids = self.base.tokenize(prompts)
        return self.text_encoders({name: ids.to(self.accelerator.device) for name, ids in token_ids.items()})

    def encode(self, token_ids: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the denoiser reads of token ids (N, L), by text encoder, from encoders that don't learn."""
        with self.accelerator.autocast():
            return self.base.encode_text(token_ids)

    # Samples

    def pipeline(self, **networks: torch.nn.Module) -> DiffusionPipeline:
        """The pipeline of diffusers to sample from: the base's own, whose parts are what is trained."""
        return self.base.pipeline

    def validation_inputs(self) -> dict[str, list]:
        """What the pipeline is called with for each image of the grid, by keyword."""
        prompts = self.config.validation_prompts or self.default_prompts()
        return {"prompt": [prompt for prompt in prompts for _ in range(self.config.num_validation_images)]}

    def default_prompts(self) -> list[str]:
        """The prompts of the grid if the user names none."""
        return self.dataset.captions[:4]

    def sample_grid(self, generate):
        """A row of images for each prompt."""
        prompts = self.validation_inputs()["prompt"][:: self.config.num_validation_images]
        titles = [p if len(p) <= LONGEST_TITLE else f"{p[: LONGEST_TITLE - 1]}…" for p in prompts]
        return sample_grid(self._shown_images(generate), self.config.num_validation_images, row_titles=titles)

    def evaluate(self, generate):
        if not self.measures.models:
            return []
        references = (batch["pixel_values"] for batch in self.reference_batches())
        values = self.measures(self._shown_images(generate), self.validation_inputs()["prompt"], references)
        if self.config.prior_prompts:
            values |= self.measures.prior_drift(self._prior_images(generate))
        return [{**values, "provenance": {**self._call_arguments(), **self.measures.provenance}}]

    def reference_batches(self):
        """The images, uint8 (N, 3, H, W), that samples are compared with."""
        config = self.config
        return self.dataset.reference_batches(config.evaluation_batch_size, limit=config.num_evaluation_samples)

    def _shown_images(self, generate: Generation) -> torch.Tensor:
        # Once for the grid and the measures, which follow each other.
        if self._shown is None or self._shown[0] is not generate:
            self._shown = (generate, self.generate(generate, self.validation_inputs()))
        return self._shown[1]

    def _prior_images(self, generate: Generation) -> torch.Tensor:
        prompts = [p for p in self.config.prior_prompts for _ in range(self.config.num_validation_images)]
        return self.generate(generate, {"prompt": prompts})

    def generate(self, generate: Generation, inputs: dict[str, list]) -> torch.Tensor:
        """Images of the pipeline, uint8 (N, 3, H, W), for a list of values of each keyword in `inputs`."""
        height, width = self.config.size
        sampler = PromptSampler(self.base, self.accelerator, generate.pipeline)
        arguments = {"height": height, "width": width, **self._call_arguments()}
        count = len(inputs["prompt"])
        # Each process has to make one at least: the last ones are made twice if need be, and left out.
        made = max(count, self.accelerator.num_processes)
        inputs = {name: [*values, *[values[-1]] * (made - count)] for name, values in inputs.items()}
        return replace(generate, pipeline=sampler).images(made, per_image=inputs, **arguments)[:count]

    def _generation(self, pipeline: DiffusionPipeline) -> Generation:
        pipeline.set_progress_bar_config(disable=True)
        return Generation(pipeline, self.accelerator, self.config.seed, self.config.evaluation_batch_size)

    def _call_arguments(self) -> dict:
        names = ("num_inference_steps", "guidance_scale")
        return {name: getattr(self.config, name) for name in names if getattr(self.config, name) is not None}

    def base_model(self) -> str | None:
        """The base as a model card names it: its Hub name."""
        name = self.config.pretrained_model_name_or_path
        return None if Path(name).exists() else name


@dataclass
class PromptSampler:
    """Calls a pipeline in the precision of the training, and decodes its latents in float32.

    Args:
        base (`BaseModel`): decodes.
        accelerator (`Accelerator`): knows the precision.
        pipeline (`DiffusionPipeline`): the base's, or another around its parts.
    """

    base: BaseModel
    accelerator: Accelerator
    pipeline: DiffusionPipeline

    def __call__(self, output_type: str, **arguments) -> SimpleNamespace:
        with self.accelerator.autocast():
            latents = self.pipeline(output_type="latent", **arguments).images
        return SimpleNamespace(images=(self.base.decode(latents) / 2 + 0.5).clamp(0, 1))
