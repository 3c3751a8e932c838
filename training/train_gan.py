"""Train a generative adversarial network: a generator of images from noise, against a discriminator.

    accelerate launch training/train_gan.py --config examples/digits_dcgan.yaml

The GAN of Goodfellow et al. (2014) and DCGAN (Radford et al. 2016), with the losses, penalties, normalizations and
conditionings that came after them: WGAN (`--loss wasserstein --clip_weights 0.01`) and WGAN-GP (`--gradient_penalty
10`), SNGAN (`--spectral_norm`), R1, conditional GANs, AC-GAN and InfoGAN. The result is a [`GANPipeline`].
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from diffusers_ext.losses import (
    clip_weights,
    diff_augment,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    mode_seeking_loss,
    mutual_information_loss,
    r1_penalty,
    r2_penalty,
)
from diffusers_ext.losses.adversarial import LABELLED_LOSSES, AdversarialLoss
from diffusers_ext.losses.diffaugment import check_policy
from diffusers_ext.losses.discriminator_outputs import accuracies, judge_both
from diffusers_ext.training.adversarial.networks import (
    check_batch_norm,
    new_discriminator,
    new_generator,
    pretrained_gan,
)
from diffusers_ext.training.adversarial.recipe import AdversarialConfig, AdversarialRecipe
from diffusers_ext.training.evaluation.grids import CLASS_COLUMNS, CLASS_ROWS, sample_grid
from diffusers_ext.training.loop.configuration import JSONObject, option


class GANRecipe(AdversarialRecipe):
    """Goodfellow et al. 2014, algorithm 1: each batch improves the discriminator, each k-th one the generator too."""

    def networks(self) -> dict[str, nn.Module]:
        """The generator, from latents to images, and the discriminator, from images to logits."""
        config = self.config
        trained_for = {
            "size": config.size,
            "channels": config.channels,
            "num_classes": self.num_classes,
            "num_categories": config.num_categories,
            "num_continuous_codes": config.num_continuous_codes,
        }
        generator = discriminator = None
        if config.pretrained_model_name_or_path is not None:
            generator, discriminator = pretrained_gan(
                config.pretrained_model_name_or_path,
                id2label=self.id2label,
                spectral_norm=config.spectral_norm,
                cache_dir=config.cache_dir,
                **trained_for,
            )
        if generator is None:
            generator = new_generator(
                config.architecture, config.generator, conditioning=config.conditioning, **trained_for
            )
        if discriminator is None:
            discriminator = new_discriminator(
                config.architecture,
                config.discriminator,
                conditioning=config.conditioning,
                spectral_norm=config.spectral_norm,
                normalization=config.discriminator_normalization(),
                **trained_for,
            )
        check_batch_norm(generator, discriminator, batch_size=config.train_batch_size, is_penalised=config.has_penalty)
        return {"generator": generator, "discriminator": discriminator}

    def step(self, batch, draw):
        real, labels = batch["pixel_values"], None if self.id2label is None else batch["class_labels"]
        is_generators_turn = (draw.step + 1) % self.config.discriminator_steps == 0

        latents = self.draw_latents(draw)
        with torch.set_grad_enabled(is_generators_turn):
            fake = self.generator(latents, labels).sample
        self.minimise("discriminator", self.discriminator_losses(real, fake.detach(), latents, labels, draw))
        if self.config.clip_weights is not None:
            clip_weights(self.network("discriminator"), self.config.clip_weights)

        if is_generators_turn:
            self.minimise("generator", self.generator_losses(fake, latents, labels, draw))

    def draw_latents(self, draw) -> torch.Tensor:
        """The generator's input, (N, latent_dim): noise, and at its end InfoGAN's code."""
        generator = self.network("generator").config
        num_codes = generator.num_categories + generator.num_continuous_codes
        shape = generator.latent_dim - num_codes
        latents = [draw.normal(shape) if generator.latent_distribution == "normal" else 2 * draw.uniform(shape) - 1]
        if generator.num_categories > 0:
            category = draw.integers(generator.num_categories)
            latents.append(F.one_hot(category, generator.num_categories).float())
        if generator.num_continuous_codes > 0:
            latents.append(2 * draw.uniform(generator.num_continuous_codes) - 1)
        return torch.cat(latents, dim=1)

    def discriminator_losses(self, real, fake, latents, labels, draw) -> torch.Tensor:
        """What the discriminator minimises, of shape (N,)."""
        config, interval = self.config, self.config.regularization_interval
        is_penalised = config.has_penalty and draw.step % interval == 0
        real = self.augment(real, draw).requires_grad_(is_penalised)
        fake = self.augment(fake, draw).requires_grad_(is_penalised)
        on_real, on_fake = judge_both(self.discriminator, real, fake, self.shown_labels(labels))

        self.log(real_logits=on_real.logits, fake_logits=on_fake.logits)
        self.log(**accuracies(config.loss, on_real.logits, on_fake.logits))
        losses = discriminator_loss(config.loss, on_real.logits, on_fake.logits, real_label=config.real_label)
        losses = losses + self.auxiliary_losses(on_real, labels) + self.auxiliary_losses(on_fake, labels, latents)
        if is_penalised:
            losses = losses + interval * self.penalties(real, on_real, fake, on_fake, labels, draw)
        return losses

    def penalties(self, real, on_real, fake, on_fake, labels, draw) -> torch.Tensor:
        """The weighted penalties of the discriminator's gradients at images, of shape (N,)."""
        config, penalties = self.config, []
        if config.gradient_penalty > 0:
            shown_labels = self.shown_labels(labels)
            penalty = gradient_penalty(
                lambda mixed: self.discriminator(mixed, shown_labels).logits, real, fake, draw.uniform()
            )
            penalties.append(config.gradient_penalty * penalty)
        if config.r1 > 0:
            penalties.append(config.r1 * r1_penalty(on_real.logits, real))
        if config.r2 > 0:
            penalties.append(config.r2 * r2_penalty(on_fake.logits, fake))
        penalty = torch.stack(penalties).sum(dim=0)
        self.log(penalty=penalty)
        return penalty

    def generator_losses(self, fake, latents, labels, draw) -> torch.Tensor:
        """What the generator minimises, of shape (N,)."""
        config = self.config
        on_fake = self.network("discriminator")(self.augment(fake, draw), self.shown_labels(labels))
        losses = generator_loss(config.loss, on_fake.logits) + self.auxiliary_losses(on_fake, labels, latents)
        if config.mode_seeking > 0:
            other_latents = self.draw_latents(draw)
            other = self.generator(other_latents, labels).sample
            seeking = mode_seeking_loss((fake, other), (latents, other_latents))
            self.log(mode_seeking=seeking)
            losses = losses + config.mode_seeking * seeking
        return losses

    def auxiliary_losses(self, judged, labels, latents=None) -> torch.Tensor | float:
        """AC-GAN's classification (Odena et al. 2017, L_C) and, for generated images, InfoGAN's mutual information."""
        losses = 0.0
        if judged.class_logits is not None:
            cross_entropy = F.cross_entropy(judged.class_logits.float(), labels, reduction="none")
            self.log(**{f"{'real' if latents is None else 'fake'}_classification": cross_entropy})
            losses = losses + self.config.auxiliary_weight * cross_entropy
        if judged.code is not None and latents is not None:
            code, num_categories = latents[:, -judged.code.shape[1] :], self.network("generator").config.num_categories
            information = mutual_information_loss(judged.code, code, num_categories)
            self.log(mutual_information_loss=information)
            losses = losses + self.config.mutual_information * information
        return losses

    def augment(self, images, draw) -> torch.Tensor:
        """Images as the discriminator sees them."""
        return diff_augment(images, self.config.augmentations, draw)

    def shown_labels(self, labels) -> torch.Tensor | None:
        """The labels, if the discriminator sees them: an auxiliary classifier predicts them instead."""
        return None if self.network("discriminator").config.conditioning is None else labels

    # What stands around the algorithm

    def __init__(self, config: GANConfig, context):
        if config.has_penalty:
            context.refuse_sharding("A penalty of gradients (--gradient_penalty, --r1, --r2)")
        super().__init__(config, context)

    def identity(self) -> dict:
        names = ("loss", "real_label", "discriminator_steps", "diffaugment", "mode_seeking", "clip_weights")
        names += ("gradient_penalty", "r1", "r2", "regularization_interval")
        names += ("auxiliary_weight", "mutual_information")
        return {name: getattr(self.config, name) for name in names}

    def sample_grid(self, generate):
        """A column per class (the first ten) or per category of InfoGAN's code; otherwise a square of samples."""
        num_categories = self.network("generator").config.num_categories
        if self.id2label is None and num_categories > 0:
            shown = range(min(CLASS_COLUMNS, num_categories))
            by_category = torch.stack([generate.images(CLASS_ROWS, categories=category) for category in shown], dim=1)
            return sample_grid(by_category.flatten(0, 1), columns=len(shown), titles=[str(i) for i in shown])
        return super().sample_grid(generate)

    def describe(self) -> dict:
        method = f"a generative adversarial network ({self.config.loss} loss)"
        return self.description(method, base_model=self.config.pretrained_model_name_or_path)


@dataclass
class GANConfig(AdversarialConfig):
    """The options of train_gan.py."""

    architecture: Literal["dcgan", "mlp"] = option(
        "dcgan",
        help="Convolutions (Radford et al. 2016) or dense layers (Goodfellow et al. 2014).",
        group="network",
        essential=True,
    )
    generator: JSONObject = option(
        JSONObject(), help="Arguments of DCGANGenerator or MLPGenerator, as JSON or a YAML mapping.", group="network"
    )
    discriminator: JSONObject = option(
        JSONObject(),
        help="Arguments of DCGANDiscriminator or MLPDiscriminator. The default normalization of a DCGAN is batch, but "
        "layer with --gradient_penalty, and none with --spectral_norm, --r1 or --r2.",
        group="network",
    )
    pretrained_model_name_or_path: str | None = option(
        help="A GANPipeline to start from, instead of random weights: from its generator, and from its discriminator "
        "if it has one.",
        group="network",
    )

    # Conditions
    conditioning: Literal["concat", "embedding", "projection", "auxiliary"] = option(
        "projection",
        help="How classes enter the discriminator: as one-hot vectors (concat), as learned vectors (embedding), by "
        "projection (Miyato and Koyama 2018), or not at all, because it predicts them (auxiliary: AC-GAN). They enter "
        "the generator as one-hot vectors with concat, and as learned vectors otherwise.",
        group="network",
    )
    auxiliary_weight: float = option(1.0, help="The weight of AC-GAN's classification.")
    num_categories: int = option(
        0, help="InfoGAN: the number of categories of the code at the end of the latents.", group="network"
    )
    num_continuous_codes: int = option(0, help="InfoGAN: how many numbers in [-1, 1] follow them.", group="network")
    mutual_information: float = option(1.0, help="The weight of InfoGAN's mutual information.")

    # The game
    loss: AdversarialLoss = option("nonsaturating", help="The adversarial loss.")
    real_label: float = option(
        1.0, help="The discriminator's target for real images: 0.9 is one-sided label smoothing."
    )
    discriminator_steps: int = option(
        1,
        help="Steps of the discriminator for each step of the generator (n_critic). --max_train_steps counts steps of "
        "the discriminator.",
        group="optimisation",
    )

    # Regularization: of the discriminator, and for a diverse generator
    spectral_norm: bool = option(
        False, help="Divide the discriminator's weights by their largest singular values.", group="network"
    )
    clip_weights: float | None = option(help="Clamp the discriminator's weights to this size after each step.")
    gradient_penalty: float = option(
        0.0,
        help="The weight of WGAN-GP's penalty on gradients between real and generated images; 10 in the paper.",
    )
    r1: float = option(0.0, help="The weight gamma of the penalty on gradients at real images, gamma/2 |gradient|^2.")
    r2: float = option(0.0, help="The same weight at generated images.")
    regularization_interval: int = option(
        1, help="Compute penalties only every so many steps, with as many times their weight."
    )
    diffaugment: str | None = option(
        help="Augment the images that the discriminator sees: any of color,translation,cutout, joined by commas."
    )
    mode_seeking: float = option(
        0.0, help="The weight of MSGAN's loss, which pushes images of different latents apart; 1 in the paper."
    )

    # Usual for GANs
    learning_rate: float = option(2e-4, help="The learning rate after the warm-up.")
    adam_beta1: float = option(0.5, help="AdamW's decay of the gradient's mean.")
    ema_decay: float = option(0.999, help="The decay of the generator's average.")
    train_batch_size: int = option(64, help="Images per process and step.")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "discriminator_steps", "regularization_interval")
        self.require_at_least(0, "gradient_penalty", "r1", "r2", "mode_seeking", "num_categories")
        self.require_at_least(0, "num_continuous_codes", "mutual_information", "auxiliary_weight")
        bound = self.clip_weights
        self.require(bound is None or bound > 0, f"--clip_weights must be positive, not {bound}")
        self.require(
            self.real_label == 1 or self.loss in LABELLED_LOSSES,
            f"--real_label is for {', '.join(LABELLED_LOSSES)}, not for --loss {self.loss}",
        )
        self.require(
            self.class_conditional or self.conditioning == "projection",
            f"--conditioning {self.conditioning} needs --class_conditional",
        )
        self.require_default(
            self.num_categories + self.num_continuous_codes > 0,
            ("mutual_information",),
            "is for the codes of --num_categories and --num_continuous_codes, which are not set",
        )
        self.require_default(
            self.conditioning == "auxiliary",
            ("auxiliary_weight",),
            f"is for --conditioning auxiliary, not {self.conditioning}",
        )
        check_policy(self.augmentations)
        self.require(
            not (self.compile and self.has_penalty),
            "--compile can't differentiate twice, as --gradient_penalty, --r1 and --r2 need it",
        )
        self.require(
            self.has_penalty or self.regularization_interval == 1,
            "--regularization_interval is for --gradient_penalty, --r1 and --r2, and none of them is set",
        )
        self.require(
            not ((self.generator or self.discriminator) and self.pretrained_model_name_or_path),
            "--generator and --discriminator exclude --pretrained_model_name_or_path: pretrained networks have their "
            "shape",
        )

    @property
    def has_penalty(self) -> bool:
        """Whether the discriminator's gradients are penalised."""
        return max(self.gradient_penalty, self.r1, self.r2) > 0

    def discriminator_normalization(self) -> str:
        """The usual normalization of a DCGAN's discriminator with these options."""
        if self.gradient_penalty > 0:
            return "layer"  # Gulrajani et al. 2017, section 4
        return "none" if self.spectral_norm or self.has_penalty else "batch"

    @property
    def augmentations(self) -> list[str]:
        """The names in `diffaugment`."""
        return [name.strip() for name in (self.diffaugment or "").split(",") if name.strip()]


if __name__ == "__main__":
    run(GANRecipe, GANConfig)
