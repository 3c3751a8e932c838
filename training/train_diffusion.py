"""Train a class-conditional or unconditional diffusion model of pixels, or of latents with `--vae`.

    accelerate launch training/train_diffusion.py --config examples/digits.yaml

Denoising diffusion (Ho et al. 2020) with the parametrisations, variances, weightings and guidance that came after it,
a rectified flow (Liu et al. 2022), or EDM (Karras et al. 2022). With `--vae`, all of this happens in the latents of an
autoencoder (Rombach et al. 2022). The result is a [`ClassConditionalPipeline`].
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from dataclasses import dataclass, replace
from typing import Literal

import torch

from diffusers_ext.hub.card import trained_from
from diffusers_ext.pipelines import ClassConditionalPipeline
from diffusers_ext.training.diffusion.denoiser_classes import build_denoiser, keep_labels
from diffusers_ext.training.diffusion.denoisers import DenoiserConfig, num_labels, pretrained_networks
from diffusers_ext.training.diffusion.latents import LatentConfig, Latents, load_autoencoder
from diffusers_ext.training.diffusion.learning_rates import default_learning_rate
from diffusers_ext.training.diffusion.objective_options import ObjectiveConfig
from diffusers_ext.training.diffusion.objectives import process
from diffusers_ext.training.diffusion.timestep_sampling import LossSecondMoment
from diffusers_ext.training.evaluation.grids import class_grid
from diffusers_ext.training.evaluation.samples import SampleEvaluator, SamplingConfig
from diffusers_ext.training.loop.configuration import LRScheduler, TrainingConfig, option
from diffusers_ext.training.loop.recipe import Recipe


class DiffusionRecipe(Recipe):
    """Ho et al. 2020, algorithm 1, on labelled or unlabelled images."""

    def networks(self) -> dict[str, torch.nn.Module]:
        """The denoiser, with an embedding for each class and for "no class"."""
        config, channels = self.config, self.latents.space.channels
        shape = {
            "size": self.latents.size,
            "in_channels": channels,
            "out_channels": channels * self.objective.outputs_per_channel,
            "num_class_embeds": num_labels(self.dataset.id2label, self.null_class_label),
            "pixels_per_latent": self.latents.space.pixels_per_latent,
        }
        if config.pretrained_model_name_or_path is None:
            return keep_labels(build_denoiser(config.denoiser, arguments=config.unet, **shape))
        networks = pretrained_networks(
            ClassConditionalPipeline,
            config.pretrained_model_name_or_path,
            cache_dir=config.cache_dir,
            vae=self.latents.vae,
            null_class_label=self.null_class_label,
            id2label=self.dataset.id2label,
            **shape,
            **process(self.objective.sampling_scheduler()),
        )
        return keep_labels(networks)

    def step(self, batch, draw):
        clean, labels = self.latents.encode(batch["pixel_values"], draw), batch.get("class_labels")
        if self.null_class_label is not None:
            labels = draw.dropout(labels, self.config.label_dropout, self.null_class_label)
        timesteps, weights = self.draw_timesteps(draw)
        noise = draw.normal_like(clean)
        noisy = self.objective.add_noise(clean, noise, timesteps)

        output = self.denoise(noisy, timesteps, labels)

        losses = self.objective.losses(output, clean, noisy, noise, timesteps)
        self.minimise(tuple(self.context.networks), weights * losses)
        if self.importance is not None:
            self.gather(timesteps=timesteps, losses=losses)

    def denoise(self, noisy: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        """The output of the network, which gets the labels themselves or attends to their embeddings."""
        if "class_embedder" in self.context.networks:
            return self.unet(noisy, timesteps, encoder_hidden_states=self.class_embedder(labels)).sample
        return self.unet(noisy, timesteps, class_labels=labels).sample

    def draw_timesteps(self, draw) -> tuple[torch.Tensor, torch.Tensor | float]:
        """A timestep for each sample, and the weight that makes up for drawing some timesteps more often."""
        if self.importance is not None:
            return self.importance.draw(draw)
        return self.objective.draw_timesteps(draw), 1.0

    def after_update(self, **gathered):
        if self.importance is not None:
            self.importance.record(**gathered)

    def pipeline(self, **networks) -> ClassConditionalPipeline:
        """The pipeline with a fast second-order sampler, see [`~Objective.sampling_scheduler`]."""
        return ClassConditionalPipeline(
            **networks,
            vae=self.latents.vae,
            scheduler=self.objective.sampling_scheduler(),
            id2label=self.dataset.id2label,
            null_class_label=self.null_class_label,
            default_num_inference_steps=self.config.num_inference_steps,
        )

    # What stands around the algorithm

    def __init__(self, config: DiffusionConfig, context):
        super().__init__(config, context)
        vae = load_autoencoder(config.vae, config.cache_dir)
        self.latents = Latents(vae, config.size, config.channels, context)
        self.objective = config.objective(self.latents.size, is_latent=vae is not None)
        self.importance = None
        if config.timestep_sampling == "loss_second_moment":
            self.importance = LossSecondMoment(config.num_train_timesteps)
        self.null_class_label = None
        if self.dataset.id2label is not None and config.label_dropout > 0:
            self.null_class_label = len(self.dataset.id2label)
        # A sampler or a feature extractor that is not available is reported now, and not after the training.
        self.objective.sampling_scheduler()
        self.evaluator = SampleEvaluator(
            self.dataset, split=config.dataset_split, device=context.device, **config.measured()
        )

    def before_training(self):
        super().before_training()
        self.latents.prepare(self.config)
        self.latents.measure_scale(self.dataset, self.config)

    def optimizer_options(self, name):
        config = self.config
        if config.learning_rate is None:
            pretrained = config.pretrained_model_name_or_path is not None
            rate = default_learning_rate(self.context.networks[name], pretrained)
            # So that the results say it.
            self.config = replace(config, learning_rate=rate)
        return {"learning_rate": self.config.learning_rate}

    def identity(self) -> dict:
        options = {"importance_sampling": self.importance is not None, "latent_scale": self.config.latent_scale}
        return {**self.objective.identity(), **options, **self.latents.identity}

    def state_dict(self):
        return {} if self.importance is None else self.importance.state_dict()

    def load_state_dict(self, state):
        if self.importance is not None:
            self.importance.load_state_dict(state)

    def sample_grid(self, generate):
        """A column per class (the first ten), or a square of unlabelled samples; guided where labels were hidden."""
        names, scale = self.dataset.id2label, None
        if self.null_class_label is not None:
            scale = max(self.config.guidance_scales)
        return class_grid(generate, names, guidance_scale=scale)

    def evaluate(self, generate):
        return self.evaluator(generate, self.config.num_inference_steps, self.config.guidance_scales)

    def describe(self) -> dict:
        config, names = self.config, self.dataset.id2label
        kind = "unconditional" if names is None else "class-conditional"
        call = "batch_size=4" if names is None else f"class_labels={list(names.values())[:2]}, num_images_per_label=4"
        return {
            "task": f"{kind.capitalize()} image generation: a denoising diffusion model of {self.latents.kind} "
            f"({config.prediction_type}), {trained_from(config.pretrained_model_name_or_path)}.",
            "usage": f"images = pipe({call}).images",
            "base_model": config.pretrained_model_name_or_path,
            "tags": [f"{kind}-image-generation", "diffusion"],
        }


@dataclass
class DiffusionConfig(DenoiserConfig, LatentConfig, ObjectiveConfig, SamplingConfig, TrainingConfig):
    """The options of train_diffusion.py."""

    denoiser: Literal["UNet2DModel", "UNet2DConditionModel", "DiTTransformer2DModel"] = option(
        "UNet2DModel",
        help="The class of the network: a U-Net that gets the class beside the timestep, a U-Net that attends to an "
        "embedding of the class, or a diffusion transformer.",
        group="network",
    )
    timestep_sampling: Literal["uniform", "logit_normal", "loss_second_moment"] = option(
        "uniform",
        help="How noise levels are drawn: logit_normal (Esser et al. 2024) prefers middle levels; loss_second_moment "
        "(Nichol and Dhariwal 2021) prefers levels with large losses, and weights them less. Not for edm.",
    )
    label_dropout: float = option(0.1, help="How often a label is hidden in training, so that guidance works.")

    learning_rate: float | None = option(
        help="The learning rate after the warm-up; by default 1e-3 for a million weights, falling with the root of "
        "their number, from 2e-3 down to 1e-4, and 1e-4 for a pretrained network."
    )
    lr_scheduler: LRScheduler = option("cosine", help="How the learning rate changes after a linear warm-up.")
    lr_warmup_steps: int | None = option(
        help="Updates until the learning rate is reached; by default a twentieth of the training, at most 500."
    )

    def __post_init__(self):
        super().__post_init__()
        self.require(0 <= self.label_dropout < 1, f"--label_dropout must be in [0, 1), not {self.label_dropout}")
        self.require_default(
            self.pretrained_model_name_or_path is None,
            ("denoiser",),
            "is for new networks, and --pretrained_model_name_or_path has one",
        )
        self.require(
            self.timestep_sampling != "loss_second_moment" or self.prediction_type not in ("flow_prediction", "edm"),
            f"--timestep_sampling loss_second_moment needs discrete timesteps, which {self.prediction_type} does not "
            "have",
        )


if __name__ == "__main__":
    run(DiffusionRecipe, DiffusionConfig)
