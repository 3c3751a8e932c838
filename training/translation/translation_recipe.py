"""The recipe that pix2pix, CycleGAN and DualGAN extend: generators between two domains, against discriminators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from diffusers_ext.losses import clip_weights, discriminator_loss, generator_loss, gradient_penalty
from diffusers_ext.losses.adversarial import AdversarialLoss
from diffusers_ext.losses.discriminator_outputs import accuracies, judge_both
from diffusers_ext.pipelines import ImageTranslationPipeline
from diffusers_ext.training.loop.configuration import JSONObject, LRScheduler, option
from diffusers_ext.training.loop.perceptual import PerceptualConfig
from diffusers_ext.training.translation.domains import TranslationDataConfig
from diffusers_ext.training.translation.domains_recipe import DomainsRecipe
from diffusers_ext.training.translation.image_pool import ImagePool
from diffusers_ext.training.translation.networks import (
    PATCH_LAYERS,
    build_discriminator,
    build_generator,
    pretrained_generators,
)


class TranslationRecipe(DomainsRecipe):
    """Generators between domain A and domain B, and a discriminator for the outputs of each generator.

    Subclasses define the directions and the step.
    """

    generator_names: tuple[str, ...]
    discriminator_names: tuple[str, ...]
    judges_pairs = False  # whether discriminators see an input beside its output

    def networks(self) -> dict[str, nn.Module]:
        """The generators, and with an adversarial loss the discriminators."""
        config, count = self.config, len(self.generator_names)
        images = {"size": config.size, "channels": config.channels}
        if config.pretrained_model_name_or_path is not None:
            generators = pretrained_generators(
                config.pretrained_model_name_or_path, count, cache_dir=config.cache_dir, **images
            )
        else:
            generators = [
                build_generator(
                    config.generator,
                    config.generator_options,
                    base_channels=config.generator_channels,
                    normalization=config.normalization,
                    **images,
                )
                for _ in range(count)
            ]
        networks = dict(zip(self.generator_names, generators, strict=True))
        for name in self.discriminator_names if self.is_adversarial else ():
            networks[name] = build_discriminator(
                size=config.size,
                in_channels=config.channels * (1 + self.judges_pairs),
                base_channels=config.discriminator_channels,
                normalization=config.normalization,
                patch_size=config.patch_size,
                num_scales=config.num_scales,
                spectral_norm=config.spectral_norm,
            )
        return networks

    def is_generators_turn(self, draw) -> bool:
        """Whether generators are updated too: in each k-th step, for k = `--discriminator_steps`."""
        return (draw.step + 1) % self.config.discriminator_steps == 0

    def adversarial_losses(self, name: str, fake: torch.Tensor) -> torch.Tensor | float:
        """The weighted losses of outputs against the discriminator `name`: (N,), or 0 without discriminators."""
        if not self.is_adversarial:
            return 0.0
        losses = generator_loss(self.config.adversarial_loss, self.network(name)(fake).logits)
        self.log(**{f"{name}_fooled": losses})
        return self.config.adversarial_weight * losses

    def improve_discriminator(self, name: str, real: torch.Tensor, fake: torch.Tensor, draw) -> None:
        """Update the discriminator `name`; the pool replaces some of the outputs `fake` by earlier ones."""
        if not self.is_adversarial:
            return
        config, discriminator, fake = self.config, getattr(self, name), self.pooled(name, fake.detach(), draw)
        on_real, on_fake = judge_both(discriminator, real, fake)
        losses = discriminator_loss(config.adversarial_loss, on_real.logits, on_fake.logits)
        rates = accuracies(config.adversarial_loss, on_real.logits, on_fake.logits)
        self.log(**{f"{name}_{kind}": rate for kind, rate in rates.items()})
        if config.gradient_penalty > 0:
            penalty = gradient_penalty(lambda mixed: discriminator(mixed).logits, real, fake, draw.uniform())
            self.log(**{f"{name}_penalty": penalty})
            losses = losses + 2 * config.gradient_penalty * penalty
        # Half, so that the discriminator learns more slowly than the generator (Isola et al. 2017, section 3.3).
        self.minimise(name, losses / 2)
        if config.clip_weights is not None:
            clip_weights(self.network(name), config.clip_weights)

    def pooled(self, name: str, fake: torch.Tensor, draw) -> torch.Tensor:
        """The outputs that the discriminator `name` sees: new ones, or earlier ones from its pool."""
        if self.pools[name].size == 0:
            return fake
        shown, places = self.pools[name].query(fake, draw)
        self.gather(**{f"{name}_images": fake, f"{name}_places": places})
        return shown

    def after_update(self, **gathered):
        for name, pool in self.pools.items():
            if f"{name}_images" in gathered:
                pool.update(gathered[f"{name}_images"], gathered[f"{name}_places"])

    def pipeline(self, generator, reverse_generator=None, **discriminators) -> ImageTranslationPipeline:
        """The pipeline of the generators; discriminators stay in the checkpoints."""
        return ImageTranslationPipeline(generator=generator, reverse_generator=reverse_generator)

    # What stands around the algorithm

    def __init__(self, config: TranslationConfig, context):
        if config.gradient_penalty > 0:
            context.refuse_sharding("--gradient_penalty")
        super().__init__(config, context)
        self.is_adversarial = config.adversarial_weight > 0
        self.pools = {name: ImagePool(config.pool_size) for name in self.discriminator_names}

    def identity(self) -> dict:
        names = ("method", "direction", "adversarial_loss", "adversarial_weight", "l1_weight", "perceptual_weight")
        names += ("cycle_weight", "identity_weight", "pool_size", "gradient_penalty", "clip_weights")
        names += ("discriminator_steps", "conditional_discriminator", "inputs", "input_options")
        # The checkpoints of all methods have this name, whichever class trains them.
        return {"class": "TranslationRecipe", **{name: getattr(self.config, name) for name in names}}

    def optimizer_options(self, name):
        rate = self.config.discriminator_learning_rate
        return {"learning_rate": rate} if name.endswith("discriminator") and rate is not None else {}

    def averaged(self, names):
        return self.generator_names

    def state_dict(self):
        return {
            f"{name}.{key}": value for name, pool in self.pools.items() for key, value in pool.state_dict().items()
        }

    def load_state_dict(self, state):
        for name, pool in self.pools.items():
            pool.load_state_dict(
                {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
            )

    def describe(self) -> dict:
        config = self.config
        titles = {
            "pix2pix": "pix2pix, from pairs of images",
            "cyclegan": "CycleGAN, without pairs",
            "dualgan": "DualGAN, without pairs",
        }
        usage = ["image = pipe(image).images[0]", "back = pipe(image, reverse=True).images[0]"]
        return {
            "task": f"Image-to-image translation by a generative adversarial network: {titles[config.method]}; "
            f"trained from {'random weights' if config.pretrained_model_name_or_path is None else 'its base model'}.",
            "usage": "\n".join(usage[: len(self.generator_names)]),
            "base_model": config.pretrained_model_name_or_path,
            "tags": ["image-to-image", "gan", config.method],
        }


# The options of each paper, if they are not set.
METHOD_OPTIONS = {
    "pix2pix": {
        "generator": "unet",
        "adversarial_loss": "nonsaturating",
        "cycle_weight": 0.0,
        "pool_size": 0,
        "discriminator_steps": 1,
    },
    "cyclegan": {
        "generator": "resnet",
        "adversarial_loss": "least_squares",
        "cycle_weight": 10.0,
        "pool_size": 50,
        "discriminator_steps": 1,
    },
    "dualgan": {
        "generator": "unet",
        "adversarial_loss": "wasserstein",
        "cycle_weight": 100.0,
        "pool_size": 0,
        "clip_weights": 0.01,
        "discriminator_steps": 3,
    },
}


@dataclass
class TranslationConfig(PerceptualConfig, TranslationDataConfig):
    """The options of train_translation.py."""

    method: Literal["pix2pix", "cyclegan", "dualgan"] = option(
        "pix2pix",
        help="pix2pix learns from pairs; cyclegan, and dualgan with a Wasserstein loss, learn without pairs.",
        essential=True,
    )

    # Networks
    generator: Literal["unet", "resnet"] | None = option(
        help="U-Nets (Isola et al. 2017) or residual networks (Zhu et al. 2017); by default as in the method's paper.",
        group="network",
    )
    generator_channels: int = option(64, help="The channels of a generator's first layer.", group="network")
    generator_options: JSONObject = option(
        JSONObject(),
        help="Further arguments of UNetGenerator or ResnetGenerator, as JSON or a YAML mapping.",
        group="network",
    )
    normalization: Literal["batch", "instance", "none"] | None = option(
        help="The normalization of all networks; by default batch for pix2pix with several images per step, otherwise "
        "instance.",
        group="network",
    )
    patch_size: int | None = option(
        help="The side of the patches that a discriminator judges, in pixels: 1, 16, 34, 70, 142 or 286; by default "
        "70, or less for small images.",
        group="network",
    )
    num_scales: int = option(
        1, help="How many sizes of the image discriminators judge, each half of the one before.", group="network"
    )
    discriminator_channels: int = option(64, help="The channels of a discriminator's first layer.", group="network")
    spectral_norm: bool = option(
        False, help="Divide a discriminator's weights by their largest singular values.", group="network"
    )
    conditional_discriminator: bool = option(
        True, help="pix2pix: show the discriminator the input beside the output (cGAN).", group="network"
    )
    pretrained_model_name_or_path: str | None = option(
        help="An ImageTranslationPipeline whose generators to start from, instead of random weights.", group="network"
    )

    # What is minimised
    adversarial_loss: AdversarialLoss | None = option(
        help="The loss of the generators against the discriminators; by default the loss of the method's paper: "
        "nonsaturating for pix2pix, least_squares for CycleGAN, wasserstein for DualGAN."
    )
    adversarial_weight: float = option(
        1.0, help="The weight of the adversarial loss; 0 trains without discriminators."
    )
    l1_weight: float = option(100.0, help="pix2pix: the weight of the distance to the truth.")
    cycle_weight: float | None = option(
        help="The weight of the error after a translation there and back; by default 10, for DualGAN 100."
    )
    identity_weight: float = option(
        0.0,
        help="The weight of the changes that generators make to images of their target domain; 5 (0.5 * 10) in the "
        "code of CycleGAN.",
    )
    pool_size: int | None = option(
        help="How many earlier outputs a discriminator may see again; by default 50 for CycleGAN, otherwise none."
    )
    gradient_penalty: float = option(0.0, help="The weight of WGAN-GP's penalty on discriminators; 10 in its paper.")
    clip_weights: float | None = option(
        help="Clamp the discriminators' weights to this size after each step; by default 0.01 for DualGAN."
    )
    discriminator_steps: int | None = option(
        help="Steps of the discriminators for each step of the generators; by default 1, for DualGAN 3.",
        group="optimisation",
    )
    discriminator_learning_rate: float | None = option(
        help="The discriminators' learning rate; by default --learning_rate.", group="optimisation"
    )

    # Usual for these methods
    train_batch_size: int = option(1, help="Images per process and step.")
    learning_rate: float = option(2e-4, help="The learning rate after the warm-up.")
    lr_scheduler: LRScheduler = option("linear", help="The papers use warmup_stable_decay.")
    lr_warmup_steps: int = option(0, help="Updates until the learning rate is reached.")
    adam_beta1: float = option(0.5, help="AdamW's decay of the gradient's mean.")
    adam_weight_decay: float = option(0.0, help="AdamW's weight decay.")
    max_grad_norm: float = option(0.0, help="Gradients are scaled down to this norm; 0 never scales.")
    use_ema: bool = option(False, help="Average the generators' weights; the average is what is published.")
    ema_decay: float = option(0.999, help="The decay of that average, min(decay, (1 + step) / (10 + step)).")
    evaluation_batch_size: int = option(16, help="Images per process and call of the pipeline.")

    def __post_init__(self):
        super().__post_init__()
        for name, value in METHOD_OPTIONS[self.method].items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        if self.normalization is None:
            with_batch = self.method == "pix2pix" and self.train_batch_size > 1 and self.gradient_penalty == 0
            self.normalization = "batch" if with_batch else "instance"
        self.require_at_least(1, "num_scales", "discriminator_steps", "generator_channels", "discriminator_channels")
        self.require_at_least(0, "adversarial_weight", "l1_weight", "cycle_weight")
        self.require_at_least(0, "identity_weight", "pool_size", "gradient_penalty", "lr_decay_steps")
        rate, bound = self.discriminator_learning_rate, self.clip_weights
        self.require(rate is None or rate > 0, f"--discriminator_learning_rate must be positive, not {rate}")
        self.require(bound is None or bound > 0, f"--clip_weights must be positive, not {bound}")
        self.require(
            not (self.generator_options and self.pretrained_model_name_or_path),
            "--generator_options exclude --pretrained_model_name_or_path: pretrained generators have their shape",
        )
        self.require(
            self.patch_size in (None, *PATCH_LAYERS),
            f"--patch_size must be one of {', '.join(map(str, PATCH_LAYERS))}, not {self.patch_size}",
        )
        self.require(
            self.is_paired or self.method != "pix2pix",
            "--method pix2pix learns from pairs: name the inputs by --conditioning_image_column or "
            "--conditioning_image_dir, give --side_by_side, or make inputs with --inputs; without pairs use --method "
            "cyclegan",
        )
        self.require(
            self.lr_decay_steps is None or self.lr_scheduler == "warmup_stable_decay",
            f"--lr_decay_steps is for --lr_scheduler warmup_stable_decay, not {self.lr_scheduler}",
        )
        self.require_default(
            self.method == "pix2pix",
            ("l1_weight", "conditional_discriminator"),
            f"is for --method pix2pix, not {self.method}",
        )
        self._check_losses()

    def _check_losses(self) -> None:
        weights = ("l1_weight", "perceptual_weight") if self.method == "pix2pix" else ("cycle_weight",)
        self.require(
            self.adversarial_weight > 0 or any(getattr(self, name) > 0 for name in weights),
            f"with --adversarial_weight 0, one of {', '.join('--' + name for name in weights)} must be above 0",
        )
        self.require(
            self.method != "pix2pix" or self.cycle_weight == self.identity_weight == 0,
            "--cycle_weight and --identity_weight are for --method cyclegan and dualgan",
        )
        self.require(
            self.method == "pix2pix" or self.perceptual_weight == 0,
            "--perceptual_weight compares with the truth, which only --method pix2pix has",
        )
        self.require(
            self.gradient_penalty == 0 or self.normalization != "batch",
            "--gradient_penalty is about single images, which --normalization batch mixes",
        )
