"""Train a BigGAN or BigGAN-deep on images, class-conditional or not.

    accelerate launch training/train_biggan.py --config examples/digits_biggan.yaml

The training of Brock et al. 2019 (https://huggingface.co/papers/1809.11096): the hinge loss, several steps of the
discriminator for each one of the generator, orthogonal regularization of the generator and its average. At the end
standing statistics are measured for each truncation. The result is a [`GANPipeline`].
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from diffusers_ext.losses import discriminator_loss, generator_loss, orthogonal_penalty
from diffusers_ext.losses.discriminator_outputs import accuracies, judge_both
from diffusers_ext.models import BigGANDiscriminator, BigGANGenerator
from diffusers_ext.pipelines import GANPipeline
from diffusers_ext.training.adversarial.recipe import AdversarialConfig, AdversarialRecipe
from diffusers_ext.training.loop.configuration import JSONObject, option
from diffusers_ext.training.loop.network_options import build_network


class BigGANRecipe(AdversarialRecipe):
    """Brock et al. 2019: each batch improves the discriminator, each second one the generator too."""

    def networks(self) -> dict[str, nn.Module]:
        """The generator, from latents to images, and the discriminator, from images to logits."""
        config, (size, _) = self.config, self.config.size
        usual = {"attention_size": min(64, size // 2)}
        decided = {"sample_size": size, "num_classes": self.num_classes, "deep": config.architecture == "biggan_deep"}

        def trial(network: nn.Module) -> None:
            labels = None if self.id2label is None else torch.zeros(2, dtype=torch.int64)
            is_generator = isinstance(network, BigGANGenerator)
            shape = (network.config.latent_dim,) if is_generator else (config.channels, size, size)
            network(torch.zeros(2, *shape), labels)

        generator = build_network(
            BigGANGenerator,
            "--generator",
            config.generator,
            usual=usual,
            decided={**decided, "out_channels": config.channels, "latent_distribution": "normal"},
            trial=trial,
        )
        discriminator = build_network(
            BigGANDiscriminator,
            "--discriminator",
            config.discriminator,
            usual=usual,
            decided={**decided, "in_channels": config.channels},
            trial=trial,
        )
        return {"generator": generator, "discriminator": discriminator}

    def step(self, batch, draw):
        real, labels = batch["pixel_values"], None if self.id2label is None else batch["class_labels"]
        is_generators_turn = (draw.step + 1) % self.config.discriminator_steps == 0

        latents = draw.normal(self.network("generator").config.latent_dim)
        with torch.set_grad_enabled(is_generators_turn):
            fake = self.generator(latents, labels).sample
        on_real, on_fake = judge_both(self.discriminator, real, fake.detach(), labels)
        self.log(real_logits=on_real.logits, fake_logits=on_fake.logits)
        self.log(**accuracies("hinge", on_real.logits, on_fake.logits))
        self.minimise("discriminator", discriminator_loss("hinge", on_real.logits, on_fake.logits))

        if is_generators_turn:
            losses = generator_loss("hinge", self.network("discriminator")(fake, labels).logits)
            self.minimise("generator", losses + self.regularization())

    def regularization(self) -> torch.Tensor | float:
        """Orthogonal regularization of the layers of the generator, before spectral norm (eq. 3): a single number."""
        if self.config.orthogonal == 0:
            return 0.0
        penalty = orthogonal_penalty(
            weight
            for name, weight in self.network("generator").named_parameters()
            if weight.ndim > 1 and not name.startswith("class_embedding.")
        )
        self.log(orthogonal_penalty=penalty)
        return self.config.orthogonal * penalty

    def pipeline(self, generator: nn.Module, discriminator: nn.Module) -> GANPipeline:
        """The pipeline, whose generator knows the statistics of each truncation."""
        generator.measure_statistics(self.config.statistics_batches)
        return super().pipeline(generator, discriminator)

    # What stands around the algorithm

    def identity(self) -> dict:
        return {name: getattr(self.config, name) for name in ("discriminator_steps", "orthogonal")}

    def describe(self) -> dict:
        name = {"biggan": "BigGAN", "biggan_deep": "BigGAN-deep"}[self.config.architecture]
        return self.description(name, "biggan", call=", truncation=1.0")


@dataclass
class BigGANConfig(AdversarialConfig):
    """The options of train_biggan.py."""

    architecture: Literal["biggan_deep", "biggan"] = option(
        "biggan_deep",
        help="Blocks of four convolutions, which see the whole latent, or of two, which see a part of it each.",
        group="network",
        essential=True,
    )
    generator: JSONObject = option(
        JSONObject(),
        help="Arguments of BigGANGenerator, as JSON or a YAML mapping, such as block_out_channels.",
        group="network",
    )
    discriminator: JSONObject = option(JSONObject(), help="Arguments of BigGANDiscriminator.", group="network")

    # The game
    discriminator_steps: int = option(
        2,
        help="Steps of the discriminator for each step of the generator. --max_train_steps counts steps of the "
        "discriminator.",
        group="optimisation",
    )
    orthogonal: float = option(1e-4, help="The weight of orthogonal regularization of the generator; 0 for none.")
    statistics_batches: int = option(
        16, help="From how many batches of 64 latents the statistics of each truncation are measured."
    )

    # Usual for BigGAN
    learning_rate: float = option(5e-5, help="The generator's learning rate after the warm-up.")
    discriminator_learning_rate: float | None = option(
        2e-4, help="The discriminator's learning rate; none for --learning_rate.", group="optimisation"
    )
    lr_scheduler: str = option("constant", help="The schedule of the learning rate.")
    adam_beta1: float = option(0.0, help="AdamW's decay of the gradient's mean.")
    ema_decay: float = option(0.9999, help="The decay of the generator's average.")
    train_batch_size: int = option(64, help="Images per process and step.")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "discriminator_steps", "statistics_batches")
        self.require_at_least(0, "orthogonal")
        self.require_at_least(2, "train_batch_size")
        height, width = self.size
        self.require(
            height == width >= 8 and height & (height - 1) == 0,
            f"--resolution must be a square of 8, 16, 32 ... pixels, not {height}x{width}",
        )


if __name__ == "__main__":
    run(BigGANRecipe, BigGANConfig)
