"""Train a Progressive GAN on images: both networks grow from 4x4 pixels, a resolution at a time.

    accelerate launch training/train_progressive_gan.py --config examples/digits_progressive_gan.yaml

The training of Karras et al. 2018 (https://huggingface.co/papers/1710.10196): each resolution fades in and is then
trained for a while, by WGAN-GP, with an average of the generator. With classes the discriminator predicts them, too
(AC-GAN, as in the paper's CIFAR-10). The result is a [`GANPipeline`].
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from diffusers_ext.losses import discriminator_loss, generator_loss, gradient_penalty
from diffusers_ext.models import ProgressiveDiscriminator, ProgressiveGenerator
from diffusers_ext.training.adversarial.recipe import AdversarialConfig, AdversarialRecipe
from diffusers_ext.training.loop.configuration import JSONObject, option
from diffusers_ext.training.loop.network_options import build_network


class ProgressiveGANRecipe(AdversarialRecipe):
    """Karras et al. 2018: in each step both networks improve, at a resolution that depends on the step alone."""

    def networks(self) -> dict[str, nn.Module]:
        """The generator, from latents to images, and the discriminator, from images to scores; both of full size."""
        config, (size, _) = self.config, self.config.size
        decided = {"sample_size": size, "num_classes": self.num_classes}

        def trial(network: nn.Module) -> None:
            if isinstance(network, ProgressiveGenerator):
                labels = None if self.id2label is None else torch.zeros(2, dtype=torch.int64)
                network(torch.zeros(2, network.config.latent_dim), labels)
            else:
                network(torch.zeros(2, config.channels, size, size))

        generator = build_network(
            ProgressiveGenerator,
            "--generator",
            config.generator,
            decided={**decided, "out_channels": config.channels},
            trial=trial,
        )
        discriminator = build_network(
            ProgressiveDiscriminator,
            "--discriminator",
            config.discriminator,
            decided={**decided, "in_channels": config.channels},
            trial=trial,
        )
        group = min(discriminator.config.stddev_group_size or config.train_batch_size, config.train_batch_size)
        if config.train_batch_size % group != 0:
            raise ValueError(f"--train_batch_size must be a multiple of the {group} images that are compared.")
        return {"generator": generator, "discriminator": discriminator}

    def step(self, batch, draw):
        self.images_seen = draw.step * self.images_per_step
        resolution, fade = growth(self.images_seen, self.config)
        real = reduce_images(batch["pixel_values"], resolution, fade)
        labels = None if self.id2label is None else batch["class_labels"]

        latents = draw.normal(self.network("generator").config.latent_dim)
        fake = self.generator(latents, labels, resolution, fade).sample
        losses = self.discriminator_losses(real, fake.detach(), labels, fade, draw)
        self.minimise("discriminator", self.with_all_weights("discriminator", losses))

        judged = self.network("discriminator")(fake, fade)
        losses = generator_loss("wasserstein", judged.logits) + self.classification(judged, labels)
        self.minimise("generator", self.with_all_weights("generator", losses))

    def discriminator_losses(self, real, fake, labels, fade, draw) -> torch.Tensor:
        """WGAN-GP, with scores of real images that do not drift away from 0 (appendix A.1), of shape (N,)."""
        config = self.config
        # One after the other, because an image is compared with those of its own kind.
        on_real, on_fake = self.discriminator(real, fade), self.discriminator(fake, fade)
        penalty = gradient_penalty(lambda mixed: self.discriminator(mixed, fade).logits, real, fake, draw.uniform())
        self.log(real_logits=on_real.logits, fake_logits=on_fake.logits, penalty=penalty)
        losses = discriminator_loss("wasserstein", on_real.logits, on_fake.logits)
        losses = losses + config.gradient_penalty * penalty + config.drift * on_real.logits.float().square()
        return losses + self.classification(on_real, labels) + self.classification(on_fake, labels)

    def classification(self, judged, labels) -> torch.Tensor | float:
        """How badly the discriminator recognises classes (AC-GAN, Odena et al. 2017), which both networks lower."""
        if labels is None:
            return 0.0
        return self.config.auxiliary_weight * F.cross_entropy(judged.class_logits.float(), labels, reduction="none")

    def pipeline(self, generator: nn.Module, discriminator: nn.Module):
        """The pipeline, whose generator makes images of the largest resolution that is there completely."""
        return super().pipeline(generator.up_to(self.grown_size), discriminator)

    # What stands around the algorithm

    def __init__(self, config: ProgressiveGANConfig, context):
        context.refuse_sharding("The penalty of gradients (--gradient_penalty)")
        super().__init__(config, context)
        self.images_seen = 0  # before the last step
        self.images_per_step = config.train_batch_size * context.num_processes * config.gradient_accumulation_steps

    @property
    def grown_size(self) -> int:
        """The largest resolution that is there completely."""
        resolution, fade = growth(self.images_seen, self.config)
        return resolution if fade == 1 else resolution // 2

    def identity(self) -> dict:
        names = ("fading_images", "stable_images", "gradient_penalty", "drift", "auxiliary_weight")
        return {name: getattr(self.config, name) for name in names}

    def state_dict(self):
        return {"images_seen": torch.tensor(self.images_seen)}

    def load_state_dict(self, state):
        self.images_seen = int(state["images_seen"])

    def evaluate(self, generate):
        """The measures of samples; nothing before they have the size of the images."""
        return [] if self.grown_size < self.config.size[0] else super().evaluate(generate)

    def describe(self) -> dict:
        return self.description("Progressive GAN", "progressive-gan")


def growth(images_seen: int, config: ProgressiveGANConfig) -> tuple[int, float]:
    """The resolution of a step, and the weight with which it has faded in, in [0, 1], after so many images.

    4x4 is trained for `--stable_images`. Each larger resolution fades in over `--fading_images`, and is trained for
    `--stable_images` more; the last one, until the end.
    """
    num_later = config.size[0].bit_length() - 3  # resolutions after 4x4
    since_first = images_seen - config.stable_images
    if since_first < 0 or num_later == 0:
        return 4, 1.0
    period = config.fading_images + config.stable_images
    number = min(since_first // period, num_later - 1)
    since = since_first - number * period
    return 8 * 2**number, 1.0 if since >= config.fading_images else since / config.fading_images


def reduce_images(images: torch.Tensor, resolution: int, fade: float) -> torch.Tensor:
    """Images of a smaller resolution, in which the finest pixels have faded in (section 2, figure 2)."""
    images = F.adaptive_avg_pool2d(images, resolution)  # the mean of squares of pixels
    if fade == 1:
        return images
    coarse = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2, mode="nearest")
    return torch.lerp(coarse, images, fade)


@dataclass
class ProgressiveGANConfig(AdversarialConfig):
    """The options of train_progressive_gan.py."""

    generator: JSONObject = option(
        JSONObject(),
        help="Arguments of ProgressiveGenerator, as JSON or a YAML mapping, such as block_out_channels.",
        group="network",
    )
    discriminator: JSONObject = option(JSONObject(), help="Arguments of ProgressiveDiscriminator.", group="network")

    # Growth
    fading_images: int = option(800_000, help="Over so many images a new resolution fades in.")
    stable_images: int = option(800_000, help="For so many images a resolution is trained before the next one.")

    # The game
    gradient_penalty: float = option(10.0, help="The weight of WGAN-GP's penalty on gradients.")
    drift: float = option(0.001, help="The weight of the squared scores of real images.")
    auxiliary_weight: float = option(1.0, help="The weight of the classification of AC-GAN.")

    # Usual for Progressive GAN
    learning_rate: float = option(1e-3, help="The learning rate after the warm-up.")
    lr_scheduler: str = option("constant", help="The schedule of the learning rate.")
    adam_beta1: float = option(0.0, help="AdamW's decay of the gradient's mean.")
    adam_beta2: float = option(0.99, help="AdamW's decay of the gradient's square.")
    adam_epsilon: float = option(1e-8, help="AdamW's epsilon.")
    ema_decay: float = option(0.999, help="The decay of the generator's average.")
    train_batch_size: int = option(16, help="Images per process and step.")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(0, "fading_images", "drift", "auxiliary_weight")
        self.require_at_least(1, "stable_images")
        self.require(self.gradient_penalty > 0, f"--gradient_penalty must be positive, not {self.gradient_penalty}")
        self.require_default(
            self.class_conditional, ("auxiliary_weight",), "is for --class_conditional, which is not set"
        )
        height, width = self.size
        self.require(
            height == width >= 4 and height & (height - 1) == 0,
            f"--resolution must be a square of 4, 8, 16 ... pixels, not {height}x{width}",
        )
        self.require(not self.compile, "--compile can't differentiate twice, as --gradient_penalty needs it")


if __name__ == "__main__":
    run(ProgressiveGANRecipe, ProgressiveGANConfig)
