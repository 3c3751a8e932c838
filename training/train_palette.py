"""Train a diffusion model that makes images from images: colorization, inpainting, super-resolution and so on.

    accelerate launch training/train_palette.py --train_data_dir ~/photos --tasks colorization inpainting

Palette (Saharia et al. 2022) for one task or several at once, SR3 (Saharia et al. 2021) with `--tasks
super_resolution`, and any paired translation. The result is a [`PalettePipeline`]. `--prediction_type regression`
trains the same network to predict the image in one step, for comparison.

`--tasks super_resolution --conditioning_augmentation 0.5` trains a super-resolver for a [`CascadePipeline`]: noise is
added to its small images, so that it tolerates the flaws of generated ones (Ho et al. 2022, "CDM").
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import ClassifierFreeGuidance

from diffusers_ext.hub.card import trained_from
from diffusers_ext.losses.diffusion import PredictionType
from diffusers_ext.models import SpatialRescaler
from diffusers_ext.pipelines import PalettePipeline
from diffusers_ext.pipelines.denoising import quiet_guiders
from diffusers_ext.training.diffusion.denoisers import DenoiserConfig, build_unet, num_labels, pretrained_networks
from diffusers_ext.training.diffusion.latents import LatentConfig, Latents, load_autoencoder
from diffusers_ext.training.diffusion.objectives import (
    ContinuousDiffusion,
    DiscreteDiffusion,
    Objective,
    RectifiedFlow,
    Regression,
    WeightingConfig,
    process,
)
from diffusers_ext.training.evaluation.samples import SamplingConfig
from diffusers_ext.training.loop.configuration import JSONObject, ValidationConfig, option
from diffusers_ext.training.loop.network_options import build_network
from diffusers_ext.training.loop.recipe import Recipe
from diffusers_ext.training.restoration.evaluation import RestorationEvaluator
from diffusers_ext.training.restoration.palette_inputs import PaletteInputs, enlargement, hides_pixels, usage
from diffusers_ext.training.restoration.tasks import TRANSLATION, RestorationConfig, Tasks


class PaletteRecipe(Recipe):
    """Saharia et al. 2022, section 3: denoising of images, conditioned on their degraded versions."""

    def networks(self) -> dict[str, torch.nn.Module]:
        """The denoiser, a UNet2DModel whose input is the conditioning image and, behind it, the noisy one.

        Beside it perhaps the network that turns label maps into such conditioning images.
        """
        config, space = self.config, self.latents.space
        conditioner = self.build_conditioner()
        if conditioner is None:
            shown_channels = self.inputs.num_channels(config.channels)
        else:
            shown_channels = conditioner.config.out_channels
        shape = {
            "size": self.latents.size,
            "in_channels": shown_channels + space.channels,
            "out_channels": space.channels,
            "pixels_per_latent": space.pixels_per_latent,
            "num_class_embeds": num_labels(self.id2label, self.null_class_label),
        }
        if config.pretrained_model_name_or_path is None:
            networks = {"unet": build_unet(arguments=config.unet, **shape)}
            return networks if conditioner is None else {**networks, "conditioner": conditioner}
        needed = dict(self.trained_for)
        if config.conditioning_fill != "noise":
            # A network that saw noise where pixels are hidden may learn to use a fill. The reverse is refused, because
            # it is probably a forgotten option.
            del needed["conditioning_fill"]
        networks = pretrained_networks(
            PalettePipeline,
            config.pretrained_model_name_or_path,
            cache_dir=config.cache_dir,
            vae=self.latents.vae,
            null_class_label=self.null_class_label,
            id2label=self.id2label,
            **shape,
            **needed,
            **process(self.scheduler),
        )
        if conditioner is not None and networks["conditioner"].config.in_channels != config.conditioning_num_labels:
            raise ValueError(
                f"{config.pretrained_model_name_or_path} knows {networks['conditioner'].config.in_channels} labels: "
                f"--conditioning_num_labels must be that, not {config.conditioning_num_labels}."
            )
        return networks

    def step(self, batch, draw):
        corruption = self.tasks.mix(batch, draw)
        clean = self.latents.encode(batch["pixel_values"], draw)
        conditioning, mask = self.condition(corruption, draw), self.inputs.made(corruption)
        labels = self.draw_labels(batch, draw)
        timesteps, noise = self.objective.draw_timesteps(draw), self.inputs.draw_noise(corruption, draw)
        noisy = self.objective.add_noise(clean, noise, timesteps)
        if mask is not None:  # known pixels stay clean, as in the pipeline
            noisy = torch.where(mask > 0, noisy, clean)

        sample = torch.cat([conditioning, noisy], dim=1)
        output = self.unet(sample, self.objective.model_timesteps(timesteps), class_labels=labels).sample

        losses = self.objective.losses(output, clean, noisy, noise, timesteps, mask, self.config.loss_norm)
        self.minimise(tuple(self.context.networks), losses)

    def condition(self, corruption, draw) -> torch.Tensor:
        """The conditioning image: hidden pixels filled, noise added, and now and then nothing, for guidance."""
        conditioner = self.conditioner if "conditioner" in self.context.networks else None
        conditioning = self.inputs.show(corruption, draw, conditioner)
        if self.config.conditioning_dropout > 0:
            conditioning = torch.where(draw.uniform(1, 1, 1) < self.config.conditioning_dropout, 0.0, conditioning)
        return conditioning

    def draw_labels(self, batch, draw) -> torch.Tensor | None:
        """The label of each image (N,), some replaced by the label for "no class"."""
        labels = None if self.id2label is None else batch["class_labels"]
        if self.null_class_label is not None:
            labels = draw.dropout(labels, self.config.label_dropout, self.null_class_label)
        return labels

    def build_conditioner(self) -> SpatialRescaler | None:
        """The network of label maps, which is trained with the denoiser (Rombach et al. 2022, section 4.3.2)."""
        config, space = self.config, self.latents.space
        if config.conditioning_encoding != "labels":
            return None
        usual = {"out_channels": space.channels}  # as in the original
        decided = {
            "in_channels": config.conditioning_num_labels,
            "num_stages": int(space.pixels_per_latent).bit_length() - 1,
        }
        return build_network(SpatialRescaler, "--conditioner", config.conditioner, usual=usual, decided=decided)

    def pipeline(self, **networks) -> PalettePipeline:
        """The pipeline with a fast second-order sampler, see [`~Objective.sampling_scheduler`]."""
        config = self.config
        guider, scale_factor = None, None
        if config.conditioning_dropout > 0:  # a scale of 1 does not guide, until a call asks for another
            with quiet_guiders():
                guider = ClassifierFreeGuidance(guidance_scale=1.0)
        if any("super_resolution" in task.split("+") for task in config.tasks):
            scale_factor = enlargement(config.task_options)
        return PalettePipeline(
            **networks,
            scheduler=self.scheduler,
            guider=guider,
            vae=self.latents.vae,
            tasks=config.tasks,
            id2label=self.id2label,
            null_class_label=self.null_class_label,
            default_num_inference_steps=1 if config.prediction_type == "regression" else config.num_inference_steps,
            default_scale_factor=scale_factor,
            conditioning_mask=None if self.latents.vae is None else self.inputs.has_mask,
            **self.trained_for,
        )

    # What stands around the algorithm

    def __init__(self, config: PaletteConfig, context):
        super().__init__(config, context)
        self.tasks = Tasks(config.tasks, config.task_options, config.size, config.channels)
        vae = load_autoencoder(config.vae, config.cache_dir)
        self.latents = Latents(vae, config.size, config.channels, context)
        self.inputs = PaletteInputs(
            self.latents,
            encoding=config.conditioning_encoding,
            has_mask=hides_pixels(config.tasks),
            fill=config.conditioning_fill,
            augmentation=config.conditioning_augmentation,
            source_noise=config.source_noise,
            scale_factor=enlargement(config.task_options),
            num_labels=config.conditioning_num_labels,
        )
        self.objective = config.objective(self.latents.size)
        self.scheduler = self.objective.sampling_scheduler()
        self.id2label = self.dataset.id2label if config.class_conditional else None
        if config.class_conditional and self.id2label is None:
            raise ValueError("--class_conditional needs labels: name the column with --label_column.")
        self.null_class_label = None
        if self.id2label is not None and config.label_dropout > 0:
            self.null_class_label = len(self.id2label)
        self.evaluator = RestorationEvaluator(
            self.tasks,
            config.load_validation_dataset(self.dataset, same_classes=config.class_conditional),
            context,
            split=config.validation_split or config.dataset_split,
            seed=config.seed,
            **config.restored(),
        )

    @property
    def trained_for(self) -> dict:
        """What the network is trained for, beside its tasks and its process: entries of the pipeline's config."""
        names = (
            "noise_conditioning",
            "source_noise",
            "conditioning_fill",
            "conditioning_augmentation",
            "conditioning_encoding",
        )
        return {name: getattr(self.config, name) for name in names}

    def before_training(self) -> None:
        networks = {name: self.network(name).eval() for name in self.context.networks}
        self.evaluator.try_call_options(self.pipeline(**networks))
        for network in networks.values():
            network.train()
        super().before_training()
        self.latents.prepare(self.config)
        self.latents.measure_scale(self.dataset, self.config)

    def identity(self) -> dict:
        config = self.config
        options = {name: getattr(config, name) for name in ("tasks", "conditioning_dropout", "loss_norm")}
        options |= {"task_options": dict(config.task_options), "latent_scale": config.latent_scale}
        return {**self.objective.identity(), **self.trained_for, **self.latents.identity, **options}

    def sample_grid(self, generate):
        """A row per task: input, output and truth."""
        return self.evaluator.panel(generate)

    def evaluate(self, generate):
        """Restorations of each task; nothing without `--metrics` or `--feature_extractor`."""
        is_asked = self.config.metrics is not None or self.config.feature_extractor is not None
        if not is_asked:
            return []
        steps = generate.pipeline.config.default_num_inference_steps
        return self.evaluator(generate, steps, self.config.guidance_scales)

    def describe(self) -> dict:
        config, names = self.config, ", ".join(self.config.tasks)
        kind = "a regression network" if config.prediction_type == "regression" else "a denoising diffusion model"
        return {
            "task": f"Images from images: {kind} of {self.latents.kind} ({config.prediction_type}) for {names}, "
            f"{trained_from(config.pretrained_model_name_or_path)}.",
            "usage": "\n".join(map(usage, config.tasks)),
            "base_model": config.pretrained_model_name_or_path,
            "tags": ["image-to-image", "diffusion", *(task for task in config.tasks if ":" not in task)],
            "pipeline_tag": "image-to-image",
        }


@dataclass
class PaletteConfig(
    RestorationConfig, DenoiserConfig, LatentConfig, WeightingConfig, SamplingConfig, ValidationConfig
):
    """The options of train_palette.py."""

    prediction_type: Literal[PredictionType, "regression"] = option(
        "flow_prediction",
        help="What the network predicts; regression predicts the image in one step, and is no generative model.",
    )
    noise_conditioning: Literal["timestep", "gamma", "sqrt_gamma"] = option(
        "timestep",
        help="How the network gets the noise level: as a timestep, or as a continuous level, alpha_bar (gamma: "
        "Palette) or its root (sqrt_gamma: SR3); a flow's timesteps are continuous anyway.",
        group="network",
    )
    beta_schedule: str = option(
        "squaredcos_cap_v2", help="The noise schedule, as in DDPMScheduler; not for flows and regression."
    )
    num_train_timesteps: int = option(1000, help="The number of noise levels; a flow is continuous.")
    timestep_sampling: Literal["uniform", "logit_normal"] = option(
        "uniform", help="How noise levels are drawn: logit_normal (Esser et al. 2024) prefers middle levels."
    )
    source_noise: float | None = option(
        help="Let a flow start from the degraded image, its hidden pixels filled smoothly, with Gaussian noise of "
        "this standard deviation, instead of from noise alone. Try 0.3 for slight damage such as JPEG.",
    )
    conditioning_fill: Literal["noise", "black", "smooth", "mirror"] | None = option(
        help="The conditioning image where pixels are hidden: noise (Palette, and the default for pixels), black (the "
        "default for latents), a smooth continuation of the visible pixels, or their mirror image, which continues "
        "textures.",
    )
    conditioning_encoding: Literal["latents", "pixels", "resized", "labels"] = option(
        "latents",
        help="With --vae, what the network is shown of conditioning images: their latents, all of their pixels as "
        "more channels (for label maps of colours), the images resized to the size of the latents (for "
        "super-resolution), or the --conditioning_num_labels labels of label maps, which a small network, trained "
        "with the denoiser, brings to the size of the latents.",
        group="network",
    )
    conditioner: JSONObject = option(
        JSONObject(),
        help="Arguments of that small network, SpatialRescaler, such as its out_channels.",
        group="network",
    )
    loss_norm: Literal["l2", "l1"] = option(
        "l2", help="Squared or absolute errors: l1 gives less diverse samples (Palette, section 4)."
    )
    conditioning_dropout: float = option(
        0.0, help="How often the conditioning image is hidden in training, so that guidance works."
    )
    conditioning_augmentation: float = option(
        0.0,
        help="The highest level of Gaussian noise in the small images of super_resolution, from 0 to less than 1. The "
        "network gets the level as an input, and can be a stage of a cascade (Ho et al. 2022).",
    )
    guidance_scales: list[float] = option(
        [1.0], help="The guidance scales to measure, where conditioning images were hidden."
    )
    class_conditional: bool = option(False, help="Condition the network on the class too.", group="network")
    label_dropout: float = option(
        0.1, help="How often a label is hidden in training; with 0, the pipeline always needs a label."
    )

    def __post_init__(self):
        super().__post_init__()
        kind = self.prediction_type
        if self.conditioning_fill is None:
            self.conditioning_fill = "noise" if self.vae is None else "black"
        self.require_default(self.vae is not None, ("conditioning_encoding",), "is for --vae, which is not set")
        self._check_label_maps()
        self.require(self.vae is None or self.source_noise is None, "--source_noise is for pixels, and not for --vae")
        self.require(self.vae is None or kind != "regression", "--prediction_type regression is not for --vae")
        self.require(bool(self.tasks), "--tasks is required: one or several, see --help")
        self.require_at_least(1, "num_train_timesteps")
        for name in ("conditioning_dropout", "label_dropout", "conditioning_augmentation"):
            value = getattr(self, name)
            self.require(0 <= value < 1, f"--{name} must be in [0, 1), not {value}")
        self.require(
            self.noise_conditioning == "timestep" or kind not in ("flow_prediction", "regression"),
            f"--noise_conditioning {self.noise_conditioning} is for epsilon, sample and v_prediction, not for "
            f"--prediction_type {kind}",
        )
        self.require_default(
            kind not in ("flow_prediction", "regression"),
            ("beta_schedule",),
            f"is for epsilon, sample and v_prediction, not for --prediction_type {kind}",
        )
        self.require(
            kind != "regression" or (self.timestep_sampling == "uniform" and self.conditioning_dropout == 0),
            "--prediction_type regression has no noise levels and no guidance: leave out --timestep_sampling and "
            "--conditioning_dropout",
        )
        self.require(
            self.loss_weighting == "none" or (kind != "regression" and self.loss_norm == "l2"),
            f"--loss_weighting {self.loss_weighting} is for squared errors at many noise levels: leave out "
            "--loss_norm l1 and --prediction_type regression",
        )
        self.require(
            self.source_noise is None or (self.source_noise > 0 and kind == "flow_prediction"),
            "--source_noise must be above 0, and is only for --prediction_type flow_prediction",
        )
        self.require(
            self.source_noise is None or self.conditioning_augmentation == 0,
            "--source_noise and --conditioning_augmentation exclude each other: a cascade starts from noise alone",
        )
        parts = [task.split("+") for task in self.tasks]
        self.require(
            self.conditioning_augmentation == 0
            or all("super_resolution" in names and not {"inpainting", "uncropping"} & set(names) for names in parts),
            "--conditioning_augmentation is noise in small images: --tasks must be super_resolution, alone or joined "
            f"with tasks that hide nothing, not {' '.join(self.tasks)}",
        )
        self.require(
            self.conditioning_dropout > 0 or set(self.guidance_scales) == {1.0},
            "--guidance_scales other than 1 need a --conditioning_dropout above 0",
        )

    def _check_label_maps(self) -> None:
        is_of_labels = self.conditioning_encoding == "labels"
        self.require(
            is_of_labels or not self.conditioner,
            "--conditioner is for --conditioning_encoding labels, which is not set",
        )
        self.require(
            not is_of_labels or (self.conditioning_num_labels is not None and list(self.tasks or ()) == [TRANSLATION]),
            "--conditioning_encoding labels needs --conditioning_num_labels and, as its only task, "
            f"--tasks {TRANSLATION}",
        )
        self.require(
            self.conditioner.get("out_channels", 1) is not None,
            "--conditioner needs out_channels: without them it has nothing to learn",
        )
        self.require(
            not is_of_labels or self.conditioning_augmentation == 0,
            "--conditioning_augmentation is noise in small images, and not for --conditioning_encoding labels",
        )

    def objective(self, size: tuple[int, int] | None = None) -> Objective:
        """The process that `--prediction_type` and `--noise_conditioning` name, for images or latents of this size."""
        if self.prediction_type == "regression":
            return Regression(num_train_timesteps=self.num_train_timesteps)
        common = {
            "num_train_timesteps": self.num_train_timesteps,
            "timestep_sampling": self.timestep_sampling,
            "weighting": self.weighting(),
        }
        if self.prediction_type == "flow_prediction":
            return RectifiedFlow(size=size or self.size, **common)
        common |= {"prediction_type": self.prediction_type, "beta_schedule": self.beta_schedule}
        common |= {"clips": self.vae is None}
        if self.noise_conditioning == "timestep":
            return DiscreteDiffusion(**common)
        return ContinuousDiffusion(noise_conditioning=self.noise_conditioning, **common)


if __name__ == "__main__":
    run(PaletteRecipe, PaletteConfig)
