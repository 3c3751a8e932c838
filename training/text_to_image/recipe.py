"""What the text-to-image recipes share: the base, the diffusion step, and samples of prompts."""

import logging
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import DiffusionPipeline

from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.loop.recipe import Recipe
from diffusers_ext.training.loop.sampling import Generation
from diffusers_ext.training.text_to_image.base_models import load_base_model
from diffusers_ext.training.text_to_image.caching import MomentCache, TextCache
from diffusers_ext.training.text_to_image.options import TextToImageConfig
from diffusers_ext.training.text_to_image.prompt_measures import PromptMeasures
from diffusers_ext.training.text_to_image.prompt_sampler import PromptSampler


logger = logging.getLogger(__name__)

DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
LONGEST_TITLE = 40  # letters


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
        self._shown, self._sampling = None, ExitStack()

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
            with self.base.as_loaded():
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
        self._sampling.close()
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
                self.denoiser, noisy, self.objective.model_timesteps(timesteps), text, batch.get("time_ids"), residuals
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
        """The pipeline of diffusers to sample from, until the next step: the base's own, with what is trained."""
        self._sampling.enter_context(self.base.as_loaded())
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


def row_title(prompt: str) -> str:
    """As much of a prompt as fits beside its row of images."""
    return prompt if len(prompt) <= LONGEST_TITLE else f"{prompt[: LONGEST_TITLE - 1]}…"
