"""Train a class-conditional or unconditional diffusion model in pixel space.

    accelerate launch training/train_diffusion.py --config examples/digits.yaml

Denoising diffusion (Ho et al. 2020) with the parametrisations, weightings and guidance that came after it, or a
rectified flow (Liu et al. 2022). The result is a [`ClassConditionalPipeline`].
"""

from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UNet2DModel,
    UniPCMultistepScheduler,
)

from diffusers_ext.losses import diffusion_loss, loss_weights, noise_levels, prediction_target
from diffusers_ext.pipelines import ClassConditionalPipeline
from diffusers_ext.training.command import run
from diffusers_ext.training.configuration import JSONObject, TrainingConfig, option
from diffusers_ext.training.evaluate import Evaluator, SamplingConfig
from diffusers_ext.training.grids import sample_grid
from diffusers_ext.training.recipe import Recipe


GRID_ROWS = 8


@dataclass
class DiffusionConfig(SamplingConfig, TrainingConfig):
    """The options of train_diffusion.py."""

    unet: JSONObject = option(
        JSONObject(),
        help="Arguments of diffusers' UNet2DModel, as JSON or a YAML mapping; by default one to suit the resolution.",
    )
    pretrained_model_name_or_path: str | None = option(help="A pipeline to start from, instead of random weights.")
    prediction_type: Literal["epsilon", "sample", "v_prediction", "flow_prediction"] = option(
        "flow_prediction", help="What the network predicts."
    )
    beta_schedule: str = option("squaredcos_cap_v2", help="The noise schedule, as in DDPMScheduler; not for flows.")
    num_train_timesteps: int = option(1000, help="The number of noise levels; a flow has them all.")
    timestep_sampling: Literal["uniform", "logit_normal"] = option(
        "uniform", help="How noise levels are drawn; logit_normal (Esser et al. 2024) prefers the middle ones."
    )
    loss_weighting: Literal["none", "min_snr", "p2"] = option("none", help="How errors are weighted by noise level.")
    snr_gamma: float = option(5.0, help="min_snr: the largest weight.")
    p2_gamma: float = option(1.0, help="p2: the exponent.")
    p2_k: float = option(1.0, help="p2: the constant beside the signal-to-noise ratio.")
    label_dropout: float = option(0.1, help="How often a label is hidden in training, so that guidance works.")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "num_train_timesteps")
        self.require_at_least(0, "snr_gamma", "p2_gamma", "p2_k")
        self.require(0 <= self.label_dropout < 1, f"--label_dropout must be in [0, 1), not {self.label_dropout}")
        self.require(
            not (self.unet and self.pretrained_model_name_or_path),
            "--unet and --pretrained_model_name_or_path exclude each other: a pretrained network has its shape",
        )


class DiffusionRecipe(Recipe):
    """Ho et al. 2020, algorithm 1, on labelled or unlabelled images."""

    config_class = DiffusionConfig

    def __init__(self, config: DiffusionConfig):
        super().__init__(config)
        self.is_flow = config.prediction_type == "flow_prediction"
        self.noise_scheduler = self._noise_scheduler()
        self.null_class_label = None
        if self.dataset.id2label is not None and config.label_dropout > 0:
            self.null_class_label = len(self.dataset.id2label)
        # Here, and not after the training, a sampler or an extractor that can't be had is found out.
        sampling_scheduler(self.noise_scheduler)
        self.evaluator = Evaluator(config, self.dataset)

    def _noise_scheduler(self):
        config = self.config
        if self.is_flow:
            return FlowMatchEulerDiscreteScheduler(num_train_timesteps=config.num_train_timesteps)
        return DDPMScheduler(
            num_train_timesteps=config.num_train_timesteps,
            beta_schedule=config.beta_schedule,
            prediction_type=config.prediction_type,
        )

    def identity(self) -> dict:
        return {
            "prediction_type": self.config.prediction_type,
            "beta_schedule": None if self.is_flow else self.config.beta_schedule,
            "num_train_timesteps": self.config.num_train_timesteps,
        }

    def networks(self) -> dict[str, torch.nn.Module]:
        """The denoiser: a UNet2DModel, with an embedding for each class and for none."""
        unet = self._new_unet() if self.config.pretrained_model_name_or_path is None else self._pretrained_unet()
        multiple = 2 ** (len(unet.config.block_out_channels) - 1)
        if any(side % multiple for side in self.config.size):
            raise ValueError(
                f"--resolution must be a multiple of {multiple} for this network, not {self.config.size}."
            )
        return {"unet": unet}

    def _shape(self) -> dict:
        num_class_embeds = None
        if self.dataset.id2label is not None:
            num_class_embeds = len(self.dataset.id2label) + (self.null_class_label is not None)
        channels = self.config.channels
        return {"in_channels": channels, "out_channels": channels, "num_class_embeds": num_class_embeds}

    def _new_unet(self) -> UNet2DModel:
        config = self.config
        return UNet2DModel(
            **{**(config.unet or default_unet(config.size)), **self._shape(), "sample_size": config.size}
        )

    def _pretrained_unet(self) -> UNet2DModel:
        name = self.config.pretrained_model_name_or_path
        pipeline = ClassConditionalPipeline.from_pretrained(name, cache_dir=self.config.cache_dir)
        needed = {**self._shape(), "null_class_label": self.null_class_label, "id2label": self.dataset.id2label}
        found = {**pipeline.unet.config, **pipeline.config, "prediction_type": prediction_type(pipeline.scheduler)}
        for key, value in {**needed, "prediction_type": self.config.prediction_type}.items():
            if found[key] != value:
                raise ValueError(f"{name} has {key}={found[key]}, but this run needs {value}.")
        pipeline.unet.register_to_config(sample_size=self.config.size)
        return pipeline.unet

    def step(self, batch, draw):
        clean, labels = batch["pixel_values"], batch.get("class_labels")
        if self.null_class_label is not None:
            labels = draw.dropout(labels, self.config.label_dropout, self.null_class_label)
        timesteps = self.draw_timesteps(draw)
        noise = draw.normal_like(clean)
        alpha, sigma = noise_levels(self.noise_scheduler, timesteps)

        prediction = self.unet(alpha * clean + sigma * noise, timesteps, class_labels=labels).sample

        kind, config = self.config.prediction_type, self.config
        target = prediction_target(kind, clean, noise, alpha, sigma)
        weights = loss_weights(
            config.loss_weighting,
            kind,
            alpha,
            sigma,
            snr_gamma=config.snr_gamma,
            p2_gamma=config.p2_gamma,
            p2_k=config.p2_k,
        )
        self.minimise("unet", diffusion_loss(prediction, target, weights))

    def draw_timesteps(self, draw) -> torch.Tensor:
        """A noise level for each sample: an index, or for a flow any number below num_train_timesteps."""
        fraction = draw.uniform() if self.config.timestep_sampling == "uniform" else draw.normal().sigmoid()
        timesteps = fraction * self.config.num_train_timesteps
        # A sigmoid can round up to 1.
        return timesteps if self.is_flow else timesteps.long().clamp(max=self.config.num_train_timesteps - 1)

    def pipeline(self, unet: UNet2DModel) -> ClassConditionalPipeline:
        """The pipeline with a fast second-order sampler, see [`sampling_scheduler`]."""
        return ClassConditionalPipeline(
            unet=unet,
            scheduler=sampling_scheduler(self.noise_scheduler),
            id2label=self.dataset.id2label,
            null_class_label=self.null_class_label,
            default_num_inference_steps=self.config.num_inference_steps,
        )

    def sample_grid(self, generate):
        """A column per class (the first ten), or a square of unlabelled samples; with guidance where there is some."""
        names = self.dataset.id2label
        if names is None:
            return sample_grid(generate.images(64), columns=8)
        shown = list(names)[:10]
        labels = shown * GRID_ROWS
        scale = max(self.config.guidance_scales) if self.null_class_label is not None else None
        images = generate.images(len(labels), labels, guidance_scale=scale)
        return sample_grid(images, columns=len(shown), titles=[names[label] for label in shown])

    def evaluate(self, generate):
        return self.evaluator(generate)

    def describe(self) -> dict:
        config, names = self.config, self.dataset.id2label
        kind = "unconditional" if names is None else "class-conditional"
        call = "batch_size=4" if names is None else f"class_labels={list(names.values())[:2]}, num_images_per_label=4"
        return {
            "task": f"{kind.capitalize()} image generation: a denoising diffusion model of pixels "
            f"({config.prediction_type}), trained from random weights or those of its base model.",
            "usage": f"images = pipe({call}).images",
            "base_model": config.pretrained_model_name_or_path,
            "tags": [f"{kind}-image-generation", "diffusion"],
        }


def sampling_scheduler(noise_scheduler):
    """A second-order sampler that comes nearer to the exact solution in 8 to 10 steps than DDIM or Euler in 20.

    Chosen by the distance to each network's own 200-step result; `tests/benchmarks/bench_solvers.py` measures it.
    """
    if isinstance(noise_scheduler, FlowMatchEulerDiscreteScheduler):
        return DPMSolverMultistepScheduler(
            num_train_timesteps=noise_scheduler.config.num_train_timesteps,
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=0.5,
        )
    return UniPCMultistepScheduler.from_config(noise_scheduler.config, final_sigmas_type="sigma_min")


def prediction_type(scheduler) -> str:
    """What a network predicts, by the scheduler of its pipeline; flow-matching schedulers leave it unsaid."""
    return scheduler.config.get("prediction_type", "flow_prediction")


def default_unet(size: tuple[int, int]) -> dict:
    """A UNet2DModel of the usual width for a size in pixels: down to 4 to 8 pixels, attention from 16 pixels down."""
    smallest = min(size)
    levels = max(2, smallest.bit_length() - 3)
    while levels > 1 and any(side % 2 ** (levels - 1) for side in size):
        levels -= 1
    widths = [128, 256, 256, 256, 512, 512, 512][:levels]
    has_attention = [smallest >> level <= 16 for level in range(levels)]
    return {
        "block_out_channels": tuple(widths),
        "down_block_types": tuple("AttnDownBlock2D" if has else "DownBlock2D" for has in has_attention),
        "up_block_types": tuple("AttnUpBlock2D" if has else "UpBlock2D" for has in reversed(has_attention)),
        "layers_per_block": 2,
        "attention_head_dim": 64,
    }


if __name__ == "__main__":
    run(DiffusionRecipe)
