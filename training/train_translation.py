"""Train a generative adversarial network that translates images: pix2pix from pairs, CycleGAN and DualGAN without.

    accelerate launch training/train_translation.py --config examples/digits_pix2pix.yaml

Isola et al. (2017), Zhu et al. (2017) and Yi et al. (2017). Domain A is translated to domain B. Pairs are images with
a conditioning image (`--conditioning_image_column`: A), files with A and B side by side (`--side_by_side`), or images
from which inputs are made (`--inputs edges`). Domains without pairs are two classes of a data set (`--domains horse
zebra`), the folders `trainA` and `trainB` of one folder, or two sets (`--target_data_dir`, `--target_dataset_name`,
`--target_split`). The result is an [`ImageTranslationPipeline`].
"""

from dataclasses import dataclass
from typing import Literal

import torch
from accelerate import PartialState
from torch import nn

from diffusers_ext.losses import (
    clip_weights,
    cycle_loss,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    identity_loss,
    l1_loss,
)
from diffusers_ext.losses.adversarial import AdversarialLoss
from diffusers_ext.losses.perceptual import load_perceptual_loss
from diffusers_ext.pipelines import ImageTranslationPipeline
from diffusers_ext.training.adversarial.judging import accuracies, judge_both
from diffusers_ext.training.loop.command import run
from diffusers_ext.training.loop.configuration import JSONObject, LRScheduler, option
from diffusers_ext.training.loop.recipe import Recipe
from diffusers_ext.training.translation.domains import TranslationDataConfig
from diffusers_ext.training.translation.evaluation import TranslationEvaluator
from diffusers_ext.training.translation.image_pool import ImagePool
from diffusers_ext.training.translation.inputs import MadeInputs
from diffusers_ext.training.translation.networks import (
    PATCH_LAYERS,
    build_discriminator,
    build_generator,
    pretrained_generators,
)


# What the papers have, for options that are not set.
METHODS = {
    "pix2pix": {"generator": "unet", "adversarial_loss": "nonsaturating", "cycle_weight": 0.0, "pool_size": 0},
    "cyclegan": {"generator": "resnet", "adversarial_loss": "least_squares", "cycle_weight": 10.0, "pool_size": 50},
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
class TranslationConfig(TranslationDataConfig):
    """The options of train_translation.py."""

    method: Literal["pix2pix", "cyclegan", "dualgan"] = option(
        "pix2pix", help="From pairs (pix2pix), or without: CycleGAN, or DualGAN, its Wasserstein relative."
    )

    # Networks
    generator: Literal["unet", "resnet"] | None = option(
        help="U-Nets (Isola et al. 2017) or residual networks (Zhu et al. 2017); by default as in the method's paper."
    )
    generator_channels: int = option(64, help="The channels of a generator's first layer.")
    generator_options: JSONObject = option(
        JSONObject(), help="Further arguments of UNetGenerator or ResnetGenerator, as JSON or a YAML mapping."
    )
    normalization: Literal["batch", "instance", "none"] | None = option(
        help="Of all networks; by default batch for pix2pix with several images per step, and instance elsewhere."
    )
    patch_size: int | None = option(
        help="The side of what a discriminator judges, in pixels: 1, 16, 34, 70, 142 or 286; by default 70, or less "
        "for small images."
    )
    num_scales: int = option(1, help="Discriminators on the image at so many sizes, each half of the one before.")
    discriminator_channels: int = option(64, help="The channels of a discriminator's first layer.")
    spectral_norm: bool = option(False, help="Divide a discriminator's weights by their largest singular values.")
    conditional_discriminator: bool = option(
        True, help="pix2pix: show the discriminator the input beside the output (cGAN)."
    )
    pretrained_model_name_or_path: str | None = option(
        help="An ImageTranslationPipeline whose generators to start from, instead of random weights."
    )

    # What is minimised
    adversarial_loss: AdversarialLoss | None = option(
        help="By default what the method's paper has: nonsaturating for pix2pix, least_squares for CycleGAN, "
        "wasserstein for DualGAN."
    )
    adversarial_weight: float = option(1.0, help="Its weight; 0 trains without discriminators.")
    l1_weight: float = option(100.0, help="pix2pix: the weight of the distance to the truth.")
    perceptual_weight: float = option(0.0, help="pix2pix: the weight of the perceptual distance to the truth.")
    perceptual_network: str = option("lpips", help="lpips, or a local folder or Hub name of an image model.")
    cycle_weight: float | None = option(help="The weight of the way there and back; by default 10, for DualGAN 100.")
    identity_weight: float = option(
        0.0, help="How much generators shall keep of their target domain; CycleGAN's code has 5 (0.5 * 10)."
    )
    pool_size: int | None = option(
        help="How many earlier images a discriminator is shown again; by default 50 for CycleGAN, else none."
    )
    gradient_penalty: float = option(0.0, help="The weight of WGAN-GP's penalty of discriminators; 10 in its paper.")
    clip_weights: float | None = option(
        help="Clamp the discriminators' weights to this size after each step; by default 0.01 for DualGAN."
    )
    discriminator_steps: int | None = option(
        help="Steps of the discriminators for each of the generators; by default 1, for DualGAN 3."
    )
    discriminator_learning_rate: float | None = option(help="The discriminators' learning rate, if it is another.")

    # Usual for these methods
    train_batch_size: int = option(1, help="Images per process and step.")
    learning_rate: float = option(2e-4, help="The learning rate after the warm-up.")
    lr_scheduler: LRScheduler = option("linear", help="warmup_stable_decay is that of the papers.")
    lr_warmup_steps: int = option(0, help="Updates until the learning rate is reached.")
    adam_beta1: float = option(0.5, help="AdamW's decay of the gradient's mean.")
    adam_weight_decay: float = option(0.0, help="AdamW's weight decay.")
    max_grad_norm: float = option(0.0, help="Gradients are scaled down to this norm; 0 never scales.")
    use_ema: bool = option(False, help="Average the generators' weights; the average is what is published.")
    ema_decay: float = option(0.999, help="The decay of that average, min(decay, (1 + step) / (10 + step)).")
    evaluation_batch_size: int = option(16, help="Images per process and call of the pipeline.")

    def __post_init__(self):
        super().__post_init__()
        for name, value in {"discriminator_steps": 1, **METHODS[self.method]}.items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        if self.normalization is None:
            with_batch = self.method == "pix2pix" and self.train_batch_size > 1 and self.gradient_penalty == 0
            self.normalization = "batch" if with_batch else "instance"
        self.require_at_least(1, "num_scales", "discriminator_steps", "generator_channels", "discriminator_channels")
        self.require_at_least(0, "adversarial_weight", "l1_weight", "perceptual_weight", "cycle_weight")
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
            "--method pix2pix learns from pairs: name the column of the inputs as --conditioning_image_column, say "
            "--side_by_side, or make inputs with --inputs; without pairs there is --method cyclegan",
        )
        self.require(
            self.lr_decay_steps is None or self.lr_scheduler == "warmup_stable_decay",
            f"--lr_decay_steps is for --lr_scheduler warmup_stable_decay, not {self.lr_scheduler}",
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
            "--gradient_penalty is of single images, which --normalization batch mixes",
        )


class TranslationRecipe(Recipe):
    """Generators between two domains, and a discriminator of each domain that is generated."""

    config_class = TranslationConfig

    def __init__(self, config: TranslationConfig):
        super().__init__(config)
        self.is_cyclic = config.method != "pix2pix"
        self.is_swapped = config.direction == "BtoA"
        self.is_adversarial = config.adversarial_weight > 0
        self.make_inputs = None
        if config.inputs is not None:
            self.make_inputs = MadeInputs(
                config.inputs, config.input_options, config.seed, config.channels, config.size
            )
        self.evaluator = TranslationEvaluator(
            config,
            config.load_validation_dataset(self.dataset),
            self.make_inputs,
            self.is_swapped,
            config.validation_split or config.dataset_split,
        )
        if config.perceptual_weight > 0:
            device = PartialState().device
            self.perceptual_loss = load_perceptual_loss(config.perceptual_network, device)
            # Here, and not in the first step, a network that can't do with such images is found out.
            blank = torch.zeros(1, config.channels, *config.size, device=device)
            self.perceptual_loss(blank, blank)
        self.pools = {
            "discriminator": ImagePool(config.pool_size),
            "reverse_discriminator": ImagePool(config.pool_size),
        }

    def identity(self) -> dict:
        names = ("method", "direction", "adversarial_loss", "adversarial_weight", "l1_weight", "perceptual_weight")
        names += ("cycle_weight", "identity_weight", "pool_size", "gradient_penalty", "clip_weights")
        names += ("discriminator_steps", "conditional_discriminator", "inputs", "input_options")
        return {name: getattr(self.config, name) for name in names}

    def networks(self) -> dict[str, nn.Module]:
        """The generator from A to B and the discriminator of B; with cycles, those of the other direction too."""
        config, count = self.config, 1 + self.is_cyclic
        if config.pretrained_model_name_or_path is None:
            generators = [build_generator(config) for _ in range(count)]
        else:
            generators = pretrained_generators(config, count)
        networks = dict(zip(("generator", "reverse_generator")[:count], generators, strict=True))
        if self.is_adversarial:
            sees_inputs = config.conditional_discriminator and not self.is_cyclic
            for name in ("discriminator", "reverse_discriminator")[:count]:
                networks[name] = build_discriminator(config, config.channels * (2 if sees_inputs else 1))
        return networks

    def optimizer_options(self, name):
        rate = self.config.discriminator_learning_rate
        return {"learning_rate": rate} if name.endswith("discriminator") and rate is not None else {}

    def averaged(self, names):
        return tuple(name for name in names if name.endswith("generator"))

    def step(self, batch, draw):
        second = batch["pixel_values"]
        if self.make_inputs is None:
            first = batch["conditioning_pixel_values"]
        else:
            first = self.make_inputs(second, draw)
        images = (second, first) if self.is_swapped else (first, second)
        is_generators_turn = (draw.step + 1) % self.config.discriminator_steps == 0
        if self.is_cyclic:
            self.step_without_pairs(*images, draw, is_generators_turn)
        else:
            self.step_with_pairs(*images, draw, is_generators_turn)

    def step_with_pairs(self, images, target, draw, is_generators_turn: bool) -> None:
        """Pix2pix (Isola et al. 2017, eq. 4): the discriminator, and then the generator against the new one."""
        config = self.config
        with torch.set_grad_enabled(is_generators_turn):
            output = self.generator(images).sample
        if self.is_adversarial:
            self.improve_discriminator(
                "discriminator", self.shown(images, target), self.shown(images, output.detach()), draw
            )
        if not is_generators_turn:
            return
        losses = self.l1_losses(output, target)
        if config.perceptual_weight > 0:
            perceptual = self.perceptual_loss(output, target)
            self.log(perceptual=perceptual)
            losses = losses + config.perceptual_weight * perceptual
        losses = losses + self.adversarial_losses("discriminator", self.shown(images, output))
        self.minimise("generator", losses)

    def l1_losses(self, output, target) -> torch.Tensor:
        """The weighted distance to the truth, of shape (N,)."""
        l1 = l1_loss(output, target)
        self.log(l1=l1)
        return self.config.l1_weight * l1

    def shown(self, images, outputs) -> torch.Tensor:
        """What pix2pix's discriminator is shown of a pair."""
        return torch.cat([images, outputs], dim=1) if self.config.conditional_discriminator else outputs

    def step_without_pairs(self, first, second, draw, is_generators_turn: bool) -> None:
        """CycleGAN (Zhu et al. 2017, eq. 3) and DualGAN (Yi et al. 2017, algorithm 1): x of A, y of B, G(x), F(y)."""
        with torch.set_grad_enabled(is_generators_turn):
            to_second, to_first = self.generator(first).sample, self.reverse_generator(second).sample
        if is_generators_turn:
            losses = self.adversarial_losses("discriminator", to_second)
            losses = losses + self.adversarial_losses("reverse_discriminator", to_first)
            losses = losses + self.cycle_losses(first, second, to_first, to_second)
            self.minimise(("generator", "reverse_generator"), losses)
        if self.is_adversarial:
            self.improve_discriminator("discriminator", second, to_second.detach(), draw)
            self.improve_discriminator("reverse_discriminator", first, to_first.detach(), draw)

    def cycle_losses(self, first, second, to_first, to_second) -> torch.Tensor:
        """What the generators lose on the way there and back and, if that counts, of their target domain: (N,)."""
        config = self.config
        back_first, back_second = self.reverse_generator(to_second).sample, self.generator(to_first).sample
        cycle = cycle_loss(first, back_first, second, back_second)
        self.log(cycle=cycle)
        losses = config.cycle_weight * cycle
        if config.identity_weight > 0:
            kept_first, kept_second = self.reverse_generator(first).sample, self.generator(second).sample
            identity = identity_loss(first, kept_first, second, kept_second)
            self.log(identity=identity)
            losses = losses + config.identity_weight * identity
        return losses

    def adversarial_losses(self, name: str, fake: torch.Tensor) -> torch.Tensor | float:
        """What a generator minimises against the discriminator `name`, weighted: (N,), or 0 without discriminators."""
        if not self.is_adversarial:
            return 0.0
        losses = generator_loss(self.config.adversarial_loss, self.network(name)(fake).logits)
        self.log(**{f"{name}_fooled": losses})
        return self.config.adversarial_weight * losses

    def improve_discriminator(self, name: str, real: torch.Tensor, fake: torch.Tensor, draw) -> None:
        """Update the discriminator `name`, with earlier fakes in place of some of these."""
        config, pool = self.config, self.pools[name]
        if pool.size > 0:
            new = fake
            fake, places = pool.query(new, draw)
            self.gather(**{f"{name}_images": new, f"{name}_places": places})
        real_logits, fake_logits = judge_both(getattr(self, name), real, fake)
        losses = discriminator_loss(config.adversarial_loss, real_logits, fake_logits)
        rates = accuracies(config.adversarial_loss, real_logits, fake_logits)
        self.log(**{f"{name}_{kind}": rate for kind, rate in rates.items()})
        if config.gradient_penalty > 0:
            penalty = gradient_penalty(lambda mixed: getattr(self, name)(mixed).logits, real, fake, draw.uniform())
            self.log(**{f"{name}_penalty": penalty})
            losses = losses + 2 * config.gradient_penalty * penalty
        # Half, so that the discriminator learns more slowly than the generator (Isola et al. 2017, section 3.3).
        self.minimise(name, losses / 2)
        if config.clip_weights is not None:
            clip_weights(self.network(name), config.clip_weights)

    def after_update(self, **gathered):
        for name, pool in self.pools.items():
            if f"{name}_images" in gathered:
                pool.update(gathered[f"{name}_images"], gathered[f"{name}_places"])

    def state_dict(self):
        return {
            f"{name}.{key}": value for name, pool in self.pools.items() for key, value in pool.state_dict().items()
        }

    def load_state_dict(self, state):
        for name, pool in self.pools.items():
            pool.load_state_dict(
                {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
            )

    def pipeline(self, generator, reverse_generator=None, **discriminators) -> ImageTranslationPipeline:
        """The pipeline of the generators; discriminators stay in the checkpoints."""
        return ImageTranslationPipeline(generator=generator, reverse_generator=reverse_generator)

    def sample_grid(self, generate):
        """Inputs, outputs and truth; without pairs both directions, there and back."""
        return self.evaluator.panel(generate)

    def evaluate(self, generate):
        """A row per direction; nothing without `--metrics` or `--feature_extractor`."""
        return self.evaluator(generate)

    def describe(self) -> dict:
        config = self.config
        names = {"pix2pix": "pix2pix, from pairs of images", "cyclegan": "CycleGAN, without pairs"}
        usage = ["image = pipe(image).images[0]"]
        usage += ["back = pipe(image, reverse=True).images[0]"] if self.is_cyclic else []
        return {
            "task": "Image-to-image translation by a generative adversarial network: "
            f"{names.get(config.method, 'DualGAN, without pairs')}; trained from "
            f"{'random weights' if config.pretrained_model_name_or_path is None else 'its base model'}.",
            "usage": "\n".join(usage),
            "base_model": config.pretrained_model_name_or_path,
            "tags": ["image-to-image", "gan", config.method],
            "pipeline_tag": "image-to-image",
        }


if __name__ == "__main__":
    run(TranslationRecipe)
