"""Train a StyleGAN2, or a StyleGAN, on images: a generator with styles, against a discriminator.

    accelerate launch training/train_stylegan.py --config examples/digits_stylegan2.yaml
    accelerate launch training/train_stylegan.py --config examples/digits_stylegan.yaml

The training of Karras et al. 2020 (https://huggingface.co/papers/1912.04958): the logistic loss, R1 and path length
regularization every few steps, style mixing, and an average of the generator whose half-life is given in images. With
`--augmentations bgc`, the discriminator sees changed images, as many as it needs not to memorise them (ADA,
https://huggingface.co/papers/2006.06676). The first StyleGAN (Karras et al. 2019,
https://huggingface.co/papers/1812.04948) is `--architecture stylegan --path_length 0 --r1_interval 1`. The result is a
[`GANPipeline`].
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from diffusers_ext.losses import discriminator_loss, generator_loss, path_lengths, r1_penalty
from diffusers_ext.models import StyleGAN2Discriminator, StyleGAN2Generator, StyleGANGenerator
from diffusers_ext.pipelines import GANPipeline
from diffusers_ext.training.adversarial.adaptive_augmentation import (
    AdaptiveProbability,
    augment_images,
    check_augmentations,
)
from diffusers_ext.training.adversarial.recipe import AdversarialConfig, AdversarialRecipe
from diffusers_ext.training.loop.configuration import JSONObject, option
from diffusers_ext.training.loop.ema import HalfLifeEMA
from diffusers_ext.training.loop.network_options import build_network


class StyleGANRecipe(AdversarialRecipe):
    """Karras et al. 2020: both networks improve in each step, and are regularized every few steps."""

    def networks(self) -> dict[str, nn.Module]:
        """The generator, from latents to images, and the discriminator, from images to logits."""
        config, (size, _) = self.config, self.config.size
        decided = {"sample_size": size, "num_classes": self.num_classes}
        generator_class, of_discriminator = ARCHITECTURES[config.architecture]

        def trial(network: nn.Module) -> None:
            labels = None if self.id2label is None else torch.zeros(2, dtype=torch.int64)
            is_generator = isinstance(network, generator_class)
            shape = (network.config.latent_dim,) if is_generator else (config.channels, size, size)
            network(torch.zeros(2, *shape), labels)

        generator = build_network(
            generator_class,
            "--generator",
            config.generator,
            decided={**decided, "out_channels": config.channels},
            trial=trial,
        )
        discriminator = build_network(
            StyleGAN2Discriminator,
            "--discriminator",
            config.discriminator,
            usual=of_discriminator,
            decided={**decided, "in_channels": config.channels},
            trial=trial,
        )
        group = min(discriminator.config.stddev_group_size or config.train_batch_size, config.train_batch_size)
        if discriminator.config.num_stddev_channels > 0 and config.train_batch_size % group != 0:
            raise ValueError(f"--train_batch_size must be a multiple of the {group} images that are compared.")
        return {"generator": generator, "discriminator": discriminator}

    def step(self, batch, draw):
        config, real = self.config, batch["pixel_values"]
        labels = None if self.id2label is None else batch["class_labels"]

        fake = self.generate(labels, draw).sample
        self.minimise("discriminator", self.discriminator_losses(real, fake.detach(), labels, draw))

        logits = self.network("discriminator")(self.augment(fake, draw), labels).logits
        self.minimise("generator", generator_loss("nonsaturating", logits))
        if config.path_length > 0 and draw.step % config.path_length_interval == 0:
            losses = self.path_length_losses(labels, draw)  # which the biases of images do not change
            self.minimise("generator", self.with_all_weights("generator", losses))

    def generate(self, labels, draw):
        """Images and styles of random latents, with random noise, and with two latents mixed in some of the images."""
        generator = self.network("generator")
        first, second = draw.normal(2, generator.config.latent_dim).unbind(dim=1)
        crossover = 1 + (draw.uniform() * (generator.num_styles - 1)).long()
        crossover = torch.where(draw.uniform() < self.config.style_mixing, crossover, generator.num_styles)
        is_first = torch.arange(generator.num_styles, device=crossover.device) < crossover[:, None]
        latents = torch.where(is_first[:, :, None], first[:, None], second[:, None])
        noise = [draw.normal(*shape) for shape in generator.noise_shapes]
        return self.generator(latents, labels, noise=noise)

    def discriminator_losses(self, real, fake, labels, draw) -> torch.Tensor:
        """The logistic loss and, every few steps, R1, of shape (N,)."""
        config = self.config
        is_penalised = config.r1 > 0 and draw.step % config.r1_interval == 0
        real = self.augment(real, draw).detach().requires_grad_(is_penalised)
        # One after the other, because an image is compared with those of its own kind.
        real_logits = self.discriminator(real, labels).logits
        fake_logits = self.discriminator(self.augment(fake, draw), labels).logits
        self.log(real_logits=real_logits, fake_logits=fake_logits)
        self.gather(real_logits=real_logits.detach())
        losses = discriminator_loss("nonsaturating", real_logits, fake_logits)
        if is_penalised:
            penalty = r1_penalty(real_logits, real)
            self.log(r1=penalty)
            losses = losses + config.r1_interval * config.r1 * penalty
        return losses

    def path_length_losses(self, labels, draw) -> torch.Tensor:
        """How far path lengths are from their average, for every second image, of shape (N/2,)."""
        rows = range(0, len(draw.generators), 2)
        draw = draw.select(rows)
        images, styles = self.generate(None if labels is None else labels[list(rows)], draw).to_tuple()
        lengths = path_lengths(images, styles, draw.normal_like(images))
        self.log(path_length=lengths)
        self.gather(path_lengths=lengths.detach())
        return self.config.path_length_interval * self.config.path_length * (lengths - self.mean_length).square()

    def augment(self, images, draw) -> torch.Tensor:
        """Images as the discriminator sees them."""
        if not self.config.augmentations:
            return images
        return augment_images(images, self.config.augmentations, self.probability.value, draw)

    def after_update(self, real_logits, path_lengths=None):
        """Adapts the average path length and the probability of augmentations."""
        self.log(real_signs=self.probability.update(real_logits), augmentation_probability=self.probability.value)
        if path_lengths is not None:
            self.mean_length = self.mean_length.lerp(path_lengths.mean(), PATH_LENGTH_DECAY)

    def pipeline(self, generator: nn.Module, discriminator: nn.Module) -> GANPipeline:
        """The pipeline, whose generator knows the average style."""
        generator.measure_style_average()
        return super().pipeline(generator, discriminator)

    # What stands around the algorithm

    def __init__(self, config: StyleGANConfig, context):
        if config.r1 > 0 or config.path_length > 0:
            context.refuse_sharding("A penalty of gradients (--r1, --path_length)")
        super().__init__(config, context)
        self.mean_length = torch.zeros((), device=context.device)
        self.probability = AdaptiveProbability(
            config.augmentation_probability,
            config.ada_target if config.augmentations else None,
            config.ada_images,
            config.ada_interval,
            context.device,
        )

    def identity(self) -> dict:
        names = ("r1", "r1_interval", "path_length", "path_length_interval", "style_mixing", "augmentations")
        names += ("augmentation_probability", "ada_target", "ada_images", "ada_interval", "ema_images", "ema_rampup")
        return {name: getattr(self.config, name) for name in names}

    def state_dict(self):
        return {"mean_length": self.mean_length, **self.probability.state_dict()}

    def load_state_dict(self, state):
        self.mean_length = state["mean_length"].to(self.mean_length.device)
        self.probability.load_state_dict(state)

    def new_average(self, network, batch_size):
        return HalfLifeEMA(network, self.config.ema_images, batch_size, self.config.ema_rampup)

    def describe(self) -> dict:
        augmented = " with adaptive discriminator augmentation" if self.config.augmentations else ""
        name = {"stylegan": "StyleGAN", "stylegan2": "StyleGAN2"}[self.config.architecture]
        return self.description(f"{name}{augmented}", self.config.architecture, call=", truncation_psi=0.7")


# The generator, and what its discriminator usually is: StyleGAN's has plain blocks and a shorter filter.
ARCHITECTURES = {
    "stylegan": (StyleGANGenerator, {"architecture": "orig", "resample_filter": (1, 2, 1)}),
    "stylegan2": (StyleGAN2Generator, {}),
}
PATH_LENGTH_DECAY = 0.01  # how much of the average path length a step replaces


@dataclass
class StyleGANConfig(AdversarialConfig):
    """The options of train_stylegan.py."""

    architecture: Literal["stylegan", "stylegan2"] = option(
        "stylegan2",
        help="Features that styles normalize, scale and shift (2019), or convolutions that styles modulate (2020).",
        group="network",
        essential=True,
    )
    generator: JSONObject = option(
        JSONObject(),
        help="Arguments of StyleGANGenerator or StyleGAN2Generator, as JSON or a YAML mapping, such as "
        "block_out_channels.",
    )
    discriminator: JSONObject = option(JSONObject(), help="Arguments of StyleGAN2Discriminator.")

    # Regularization
    r1: float = option(10.0, help="The weight gamma of R1, gamma/2 |gradient|^2 at real images; 0 for none.")
    r1_interval: int = option(16, help="R1 is computed every so many steps, with as many times its weight.")
    path_length: float = option(2.0, help="The weight of path length regularization; 0 for none.")
    path_length_interval: int = option(4, help="It is computed every so many steps, in an update of its own.")
    style_mixing: float = option(0.9, help="The probability that the layers of an image have styles of two latents.")

    # Adaptive discriminator augmentation
    augmentations: list[str] = option(
        [],
        help="What the discriminator's images are changed by: b (flips, turns, moves), bg (and scales, rotations), "
        "bgc (and colours), or single changes. Without any, there is no augmentation.",
    )
    augmentation_probability: float = option(0.0, help="The probability of each change to begin with.")
    ada_target: float | None = option(
        0.6, help="The probability rises while the mean sign of real logits is above it; none keeps the probability."
    )
    ada_images: int = option(500_000, help="After how many images the probability can rise from 0 to 1.")
    ada_interval: int = option(4, help="It is adapted every so many steps.")

    # Usual for StyleGAN2
    ema_images: int = option(10_000, help="The half-life of the generator's average, in images.")
    ema_rampup: float | None = option(
        help="The half-life is at most this fraction of the images seen, so that the average follows early training."
    )
    learning_rate: float = option(2e-3, help="The learning rate after the warm-up.")
    lr_scheduler: str = option("constant", help="The schedule of the learning rate.")
    adam_beta1: float = option(0.0, help="AdamW's decay of the gradient's mean.")
    adam_beta2: float = option(0.99, help="AdamW's decay of the gradient's square.")
    adam_epsilon: float = option(1e-8, help="AdamW's epsilon.")
    train_batch_size: int = option(32, help="Images per process and step.")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "r1_interval", "path_length_interval", "ada_images", "ada_interval", "ema_images")
        self.require_at_least(0, "r1", "path_length")
        for name in ("style_mixing", "augmentation_probability"):
            value = getattr(self, name)
            self.require(0 <= value <= 1, f"--{name} must be from 0 to 1, not {value}")
        self.require(
            self.ada_target is None or -1 < self.ada_target < 1,
            f"--ada_target must be between -1 and 1, not {self.ada_target}",
        )
        self.require(
            self.ema_rampup is None or self.ema_rampup > 0, f"--ema_rampup must be positive, not {self.ema_rampup}"
        )
        check_augmentations(self.augmentations)
        self.require_default(
            bool(self.augmentations),
            ("augmentation_probability", "ada_target", "ada_images", "ada_interval"),
            "is for --augmentations, which are not set",
        )
        self.require_default(False, ("ema_decay",), "is for other recipes: the average here follows --ema_images")
        height, width = self.size
        self.require(
            height == width >= 8 and height & (height - 1) == 0,
            f"--resolution must be a square of 8, 16, 32 ... pixels, not {height}x{width}",
        )
        self.require(
            self.path_length == 0 or self.train_batch_size % 2 == 0,
            f"--train_batch_size must be even for --path_length, which takes every second image, not "
            f"{self.train_batch_size}",
        )
        self.require(
            not (self.compile and (self.r1 > 0 or self.path_length > 0)),
            "--compile can't differentiate twice, as --r1 and --path_length need it",
        )


if __name__ == "__main__":
    run(StyleGANRecipe, StyleGANConfig)
