"""Train a network that restores images in one pass: super-resolution, deblurring, denoising, inpainting and others.

    accelerate launch training/train_restoration.py --config examples/digits_super_resolution.yaml

SRResNet and SRGAN (Ledig et al. 2017), ESRGAN (Wang et al. 2018), Real-ESRGAN (Wang et al. 2021), DeblurGAN (Kupyn et
al. 2018, 2019), DeepDeblur (Nah et al. 2017) and context encoders (Pathak et al. 2016) differ in the network, in what
is done to the images, and in the losses. Images are made smaller by `--scale`, and degraded by `--tasks`; `--tasks
translation` takes pairs of your own.
The loss is a distance to the truth, with `--perceptual_weight` also in the features of a network, and with
`--adversarial_weight` against a discriminator. The result is a [`RestorationPipeline`].
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from diffusers_ext.hub.card import trained_from
from diffusers_ext.losses import (
    charbonnier_loss,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    l1_loss,
    l2_loss,
    real_loss,
    relative_logits,
)
from diffusers_ext.losses.adversarial import AdversarialLoss
from diffusers_ext.losses.discriminator_outputs import accuracies, has_batch_norm, judge_both, pair_accuracy
from diffusers_ext.metrics.restoration import RESTORATION_METRICS
from diffusers_ext.models.modeling_deepdeblur import halve
from diffusers_ext.pipelines import RestorationPipeline
from diffusers_ext.training.loop.configuration import JSONObject, ValidationConfig, option
from diffusers_ext.training.loop.perceptual import PerceptualConfig
from diffusers_ext.training.loop.recipe import Recipe
from diffusers_ext.training.restoration.one_pass import DegradedImages, OnePassEvaluator
from diffusers_ext.training.restoration.one_pass_networks import (
    RESTORERS,
    GeneratorName,
    build_critic,
    build_restorer,
    pretrained_restorer,
)
from diffusers_ext.training.restoration.tasks import TRANSLATION, TaskConfig


CONTENT_LOSSES = {"l1": l1_loss, "l2": l2_loss, "charbonnier": charbonnier_loss}


class RestorationRecipe(Recipe):
    """Ledig et al. 2017, eq. 3: a generator near to the truth, whose outputs a discriminator takes for the truth."""

    def networks(self) -> dict[str, nn.Module]:
        """The generator, and with an adversarial loss the discriminator."""
        config = self.config
        if config.pretrained_model_name_or_path is None:
            generator = build_restorer(
                config.generator, config.generator_options, config.scale, config.size, config.channels
            )
        else:
            generator = pretrained_restorer(
                config.pretrained_model_name_or_path, config.scale, config.channels, config.cache_dir
            )
        networks = {"generator": generator}
        if self.is_adversarial:
            networks["discriminator"] = build_critic(
                config.discriminator, config.discriminator_options, config.size, config.channels
            )
            if config.gradient_penalty > 0 and has_batch_norm(networks["discriminator"]):
                raise ValueError(
                    "--gradient_penalty is for discriminators without batch norm: choose --discriminator patch."
                )
        return networks

    def step(self, batch, draw):
        truth, shown = batch["pixel_values"], self.degraded.mix(batch, draw)
        output, *coarser = self.restore(shown)
        losses = self.content_losses(output, truth, coarser)
        if self.is_adversarial:
            self.minimise("discriminator", self.discriminator_losses(truth, output.detach(), draw))
            losses = losses + self.config.adversarial_weight * self.fooling_losses(truth, output)
        self.minimise("generator", losses)

    def restore(self, shown: torch.Tensor) -> list[torch.Tensor]:
        """The generator's output for images, and its coarser outputs if it has any, each half as large as the one
        before; all are in [-1, 1], whatever the generator's own range is."""
        black = self.black
        made = self.generator((shown + 1) / 2 * (1 - black) + black)
        return [(output - black) / (1 - black) * 2 - 1 for output in (made.sample, *made.get("coarser", ()))]

    def content_losses(self, output, truth, coarser=()) -> torch.Tensor:
        """The weighted distances to the truth, of shape (N,); that of the pixels is a sum over all sizes."""
        config, distance = self.config, CONTENT_LOSSES[self.config.content_loss]
        content, smaller = distance(output, truth), truth
        for small in coarser:  # Nah et al. 2017, eq. 3
            smaller = halve(smaller)
            content = content + distance(small, smaller)
        self.log(content=content)
        losses = config.content_weight * content
        if config.perceptual_weight > 0:
            perceptual = self.perceptual_loss(output, truth)
            self.log(perceptual=perceptual)
            losses = losses + config.perceptual_weight * perceptual
        return losses

    def discriminator_losses(self, truth, output, draw) -> torch.Tensor:
        """What the discriminator minimises, of shape (N,)."""
        config = self.config
        on_truth, on_output = (judged.logits for judged in judge_both(self.discriminator, truth, output))
        if config.relativistic:
            relative = relative_logits(on_truth, on_output)
            self.log(**pair_accuracy(relative))
            losses = real_loss(config.adversarial_loss, relative)
        else:
            self.log(**accuracies(config.adversarial_loss, on_truth, on_output))
            losses = discriminator_loss(config.adversarial_loss, on_truth, on_output)
        if config.gradient_penalty > 0:
            penalty = gradient_penalty(lambda mixed: self.discriminator(mixed).logits, truth, output, draw.uniform())
            self.log(penalty=penalty)
            losses = losses + config.gradient_penalty * penalty
        return losses

    def fooling_losses(self, truth, output) -> torch.Tensor:
        """What the generator minimises against the discriminator, of shape (N,)."""
        config = self.config
        if config.relativistic:
            on_truth, on_output = (
                judged.logits for judged in judge_both(self.network("discriminator"), truth, output)
            )
            losses = real_loss(config.adversarial_loss, relative_logits(on_output, on_truth))
        else:
            losses = generator_loss(config.adversarial_loss, self.network("discriminator")(output).logits)
        self.log(fooled=losses)
        return losses

    def pipeline(self, generator: nn.Module, discriminator: nn.Module | None = None) -> RestorationPipeline:
        """The pipeline of the generator; the discriminator stays in the checkpoints."""
        return RestorationPipeline(generator, black=self.black)

    # What stands around the algorithm

    def __init__(self, config: RestorationTrainingConfig, context):
        if config.gradient_penalty > 0:
            context.refuse_sharding("--gradient_penalty")
        super().__init__(config, context)
        self.is_adversarial = config.adversarial_weight > 0
        self.black = RESTORERS[config.generator].black
        if config.pretrained_model_name_or_path is not None:
            self.black = RestorationPipeline.load_config(
                config.pretrained_model_name_or_path, cache_dir=config.cache_dir
            )["black"]
        self.degraded = DegradedImages(
            config.tasks or (), config.task_options, config.scale, config.size, config.channels
        )
        self.evaluator = OnePassEvaluator(
            self.degraded,
            config.load_validation_dataset(self.dataset),
            context,
            split=config.validation_split or config.dataset_split,
            seed=config.seed,
            **config.measured(),
        )
        self.perceptual_loss = config.load_perceptual_loss(context.device, (config.channels, *config.size))

    def before_training(self) -> None:
        super().before_training()
        self.evaluator.dataset.prepare()

    def identity(self) -> dict:
        names = ("scale", "tasks", "task_options", "content_loss", "content_weight", "perceptual_weight")
        names += ("adversarial_weight", "adversarial_loss", "relativistic", "gradient_penalty")
        return {name: getattr(self.config, name) for name in names}

    def optimizer_options(self, name):
        rate = self.config.discriminator_learning_rate
        return {"learning_rate": rate} if name == "discriminator" and rate is not None else {}

    def averaged(self, names):
        return ("generator",)

    def sample_grid(self, generate):
        """Inputs, restorations and truth."""
        return self.evaluator.panel(generate)

    def evaluate(self, generate):
        """Two rows per task, input and restoration; nothing without `--metrics` or `--feature_extractor`."""
        return self.evaluator(generate)

    def describe(self) -> dict:
        config, names = self.config, ", ".join(self.degraded.names)
        losses = [f"{config.content_loss} loss"]
        losses += [f"perceptual loss of {config.perceptual_network}"] if config.perceptual_weight > 0 else []
        losses += [f"adversarial loss ({config.adversarial_loss})"] if self.is_adversarial else []
        larger = f", {config.scale} times as high and wide" if config.scale > 1 else ""
        return {
            "task": f"Restored images{larger}, in one pass of a network ({names}; {', '.join(losses)}), "
            f"{trained_from(config.pretrained_model_name_or_path)}.",
            "usage": "image = pipe(image, tile_size=256).images[0]",
            "base_model": config.pretrained_model_name_or_path,
            "tags": ["image-to-image", "restoration", *(name for name in self.degraded.names if ":" not in name)],
        }


@dataclass
class RestorationTrainingConfig(PerceptualConfig, TaskConfig, ValidationConfig):
    """The options of train_restoration.py."""

    scale: int = option(
        1,
        help="How many times as high and wide the network makes images: in training they are first made smaller by "
        "this factor, with Pillow's bicubic filter, and then degraded by --tasks.",
        essential=True,
    )

    # Networks
    generator: GeneratorName = option(
        "srresnet",
        help="SRResNet (Ledig et al. 2017), BasicSR's MSRResNet, RRDB (ESRGAN), or for --scale 1 the U-Net of "
        "pix2pix, the residual network of CycleGAN, DeblurGAN's, which adds its output to the image, the feature "
        "pyramid of DeblurGAN-v2 (fpn), Nah's multi-scale network (deepdeblur), DANet's U-Net without normalization, "
        "and for the centre of images a context encoder.",
        group="network",
    )
    generator_options: JSONObject = option(
        JSONObject(), help="Arguments of its class, as JSON or a YAML mapping: {num_blocks: 8}.", group="network"
    )
    discriminator: Literal["patch", "srgan"] = option(
        "patch", help="PatchGAN with spectral norm, or the discriminator of SRGAN.", group="network"
    )
    discriminator_options: JSONObject = option(
        JSONObject(), help="Arguments of its class, as JSON or a YAML mapping.", group="network"
    )
    pretrained_model_name_or_path: str | None = option(
        help="A RestorationPipeline whose network to start from, instead of random weights: SRGAN and ESRGAN start "
        "from a network that was trained without a discriminator.",
        group="network",
    )

    # What is minimised
    content_loss: Literal["l1", "l2", "charbonnier"] = option(
        "l1", help="The distance to the truth, of values in [-1, 1]: absolute, squared, or Charbonnier's mixture."
    )
    content_weight: float = option(1.0, help="The weight of this distance.")
    adversarial_weight: float = option(0.0, help="The weight of the loss against a discriminator; 0: there is none.")
    adversarial_loss: AdversarialLoss = option("nonsaturating", help="The loss against the discriminator.")
    relativistic: bool = option(
        False,
        help="Let the discriminator say how much more real the truth is than the output (Jolicoeur-Martineau 2019).",
    )
    gradient_penalty: float = option(
        0.0, help="The weight of WGAN-GP's penalty on the discriminator; 10 in its paper."
    )
    discriminator_learning_rate: float | None = option(
        help="The discriminator's learning rate; by default --learning_rate.", group="optimisation"
    )

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "scale")
        self.require_at_least(0, "content_weight", "adversarial_weight", "gradient_penalty")
        self.require(
            bool(self.tasks) or self.scale > 1, "--tasks or a --scale above 1 is required: there is nothing to restore"
        )
        self.require(
            self.scale == 1 or TRANSLATION not in (self.tasks or ()),
            f"--tasks {TRANSLATION} takes inputs of the size of the images, so --scale must be 1",
        )
        self.require(
            all(side % self.scale == 0 for side in self.size),
            f"--resolution must be a multiple of --scale, {self.scale}, not {self.resolution}",
        )
        weights = (self.content_weight, self.perceptual_weight, self.adversarial_weight)
        self.require(
            any(weights), "one of --content_weight, --perceptual_weight and --adversarial_weight must be above 0"
        )
        names = ("adversarial_loss", "relativistic", "gradient_penalty", "discriminator_learning_rate")
        names += ("discriminator", "discriminator_options")
        self.require_default(self.adversarial_weight > 0, names, "is for --adversarial_weight, which is 0")
        self.require(
            not self.relativistic or self.adversarial_loss != "minimax",
            "--relativistic is not for --adversarial_loss minimax, which has no other side to compare with",
        )
        rate = self.discriminator_learning_rate
        self.require(rate is None or rate > 0, f"--discriminator_learning_rate must be above 0, not {rate}")

    @property
    def known_metrics(self) -> Sequence[str]:
        return [name for name in RESTORATION_METRICS if name != "diversity"]


if __name__ == "__main__":
    run(RestorationRecipe, RestorationTrainingConfig)
