"""Train a network that translates an image in many ways: pix2pix with mode seeking (MSGAN), or BicycleGAN.

    accelerate launch training/train_multimodal_translation.py --config examples/coloured_digits_msgan.yaml

Mao et al. (2019) and Zhu et al. (2017, "Toward Multimodal Image-to-Image Translation"). Pairs are given as to
train_translation.py: by `--conditioning_image_column` or `--conditioning_image_dir`, `--side_by_side`, or `--inputs`.
A latent decides which of the possible translations the generator makes. The result is an
[`ImageTranslationPipeline`] that takes `num_images_per_input`, `latents`, and after BicycleGAN a `style_image`.
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from diffusers_ext.losses import discriminator_loss, generator_loss, l1_loss, mode_seeking_loss
from diffusers_ext.losses.adversarial import AdversarialLoss
from diffusers_ext.losses.discriminator_outputs import accuracies, judge_both
from diffusers_ext.metrics.restoration import RESTORATION_METRICS
from diffusers_ext.pipelines import ImageTranslationPipeline
from diffusers_ext.training.loop.configuration import JSONObject, LRScheduler, option
from diffusers_ext.training.translation.domains import TranslationDataConfig
from diffusers_ext.training.translation.domains_recipe import DomainsRecipe
from diffusers_ext.training.translation.networks import PATCH_LAYERS, build_discriminator, build_generator
from diffusers_ext.training.translation.semantic_networks import build_spade_encoder


class MultimodalRecipe(DomainsRecipe):
    """A generator from A to B that also takes latents, and discriminators of its outputs.

    Subclasses define the step.
    """

    num_outputs = 4
    discriminator_names: tuple[str, ...]
    judges_pairs: bool  # whether discriminators see an input beside its output

    def networks(self) -> dict[str, nn.Module]:
        config = self.config
        images = {"size": config.size, "channels": config.channels}
        generator = build_generator(
            "unet",
            config.generator_options,
            base_channels=config.generator_channels,
            normalization=config.normalization,
            latent_dim=config.latent_dim,
            **images,
        )
        networks = {"generator": generator}
        for name in self.discriminator_names:
            networks[name] = build_discriminator(
                size=config.size,
                in_channels=config.channels * (1 + self.judges_pairs),
                base_channels=config.discriminator_channels,
                normalization=config.normalization,
                patch_size=config.patch_size,
                num_scales=config.num_scales,
            )
        return networks

    def translate_twice(self, images, latents, other_latents) -> tuple[torch.Tensor, torch.Tensor]:
        """The outputs for both latents of each image, from one batch."""
        outputs = self.generator(torch.cat([images, images]), torch.cat([latents, other_latents])).sample
        return outputs.chunk(2)

    def improve_discriminator(self, name: str, real: torch.Tensor, fake: torch.Tensor) -> None:
        on_real, on_fake = judge_both(getattr(self, name), real, fake.detach())
        kind = self.config.adversarial_loss
        rates = accuracies(kind, on_real.logits, on_fake.logits)
        self.log(**{f"{name}_{rate}": values for rate, values in rates.items()})
        self.minimise(name, discriminator_loss(kind, on_real.logits, on_fake.logits) / 2)

    def adversarial_losses(self, name: str, fake: torch.Tensor) -> torch.Tensor:
        losses = generator_loss(self.config.adversarial_loss, self.network(name)(fake).logits)
        self.log(**{f"{name}_fooled": losses})
        return losses

    def identity(self) -> dict:
        names = ("method", "direction", "inputs", "input_options", "adversarial_loss", "l1_weight")
        names += ("mode_seeking_weight", "latent_weight", "kl_weight")
        return {name: getattr(self.config, name) for name in names}

    def averaged(self, names):
        return ("generator",)

    def describe(self) -> dict:
        method = {"msgan": "pix2pix with mode seeking (MSGAN)", "bicyclegan": "BicycleGAN"}[self.config.method]
        return {
            "task": f"Image-to-image translation with several results per image: {method}, from pairs of images; "
            "trained from random weights.",
            "usage": "images = pipe(image, num_images_per_input=4).images",
            "tags": ["image-to-image", "gan", self.config.method],
        }


class MSGANRecipe(MultimodalRecipe):
    """Mao et al. 2019, eq. 4, with pix2pix: images of two latents differ as far as the latents do."""

    discriminator_names = ("discriminator",)
    judges_pairs = True

    def step(self, batch, draw):
        config, (images, target) = self.config, self.domains(batch, draw)
        latents, other_latents = draw.normal(config.latent_dim), draw.normal(config.latent_dim)
        output, other = self.translate_twice(images, latents, other_latents)

        real = torch.cat([images, target], dim=1)
        fake = torch.cat([torch.cat([images, output], dim=1), torch.cat([images, other], dim=1)])
        self.improve_discriminator("discriminator", torch.cat([real, real]), fake)

        fooled, other_fooled = self.adversarial_losses("discriminator", fake).chunk(2)
        l1 = l1_loss(output, target)
        seeking = mode_seeking_loss((output, other), (latents, other_latents))
        self.log(l1=l1, mode_seeking=seeking)
        losses = fooled + other_fooled + config.l1_weight * l1 + config.mode_seeking_weight * seeking
        self.minimise("generator", losses)

    def pipeline(self, generator, **discriminators) -> ImageTranslationPipeline:
        """The pipeline of the generator; the discriminator stays in the checkpoints."""
        return ImageTranslationPipeline(generator=generator)


class BicycleGANRecipe(MultimodalRecipe):
    """Zhu et al. 2017, section 3.4: latents of true images give these images, and random latents are found in theirs.

    As in https://github.com/junyanz/BicycleGAN, discriminators see no inputs, and only the generator learns from the
    latents that are found in its images.
    """

    discriminator_names = ("encoded_discriminator", "random_discriminator")
    judges_pairs = False

    def networks(self) -> dict[str, nn.Module]:
        config = self.config
        # Without normalization, which would hide how bright and colourful an image is.
        encoder = build_spade_encoder(
            size=config.size,
            channels=config.channels,
            base_channels=config.generator_channels,
            latent_dim=config.latent_dim,
            normalization="none",
        )
        return {**super().networks(), "style_encoder": encoder}

    def step(self, batch, draw):
        config, (images, target) = self.config, self.domains(batch, draw)
        posterior = self.style_encoder(target).latent_dist
        encoded = posterior.mean + posterior.std * draw.normal_like(posterior.mean)
        latents = draw.normal(config.latent_dim)
        of_encoded, of_latents = self.translate_twice(images, encoded, latents)

        self.improve_discriminator("encoded_discriminator", target, of_encoded)
        self.improve_discriminator("random_discriminator", target, of_latents)

        # cVAE-GAN, and the adversarial loss of cLR-GAN
        fooled = self.adversarial_losses("encoded_discriminator", of_encoded)
        fooled = fooled + self.adversarial_losses("random_discriminator", of_latents)
        l1, divergence = l1_loss(of_encoded, target), posterior.kl()
        self.log(l1=l1, kl=divergence)
        self.minimise(("generator", "style_encoder"), fooled + config.l1_weight * l1 + config.kl_weight * divergence)

        # cLR-GAN: an encoder that learned from this too could agree with the generator on a hidden code.
        found = self.network("style_encoder")(self.generator(images, latents).sample).latent_dist.mean
        error = (found - latents).abs().mean(dim=1)
        self.log(latent_error=error)
        self.minimise("generator", config.latent_weight * error)

    def averaged(self, names):
        return ("generator", "style_encoder")

    def pipeline(self, generator, style_encoder, **discriminators) -> ImageTranslationPipeline:
        """The pipeline of the generator and the encoder; discriminators stay in the checkpoints."""
        return ImageTranslationPipeline(generator=generator, style_encoder=style_encoder)

    def describe(self) -> dict:
        described = super().describe()
        return {**described, "usage": f"{described['usage']}\nimage = pipe(image, style_image=photo).images[0]"}


METHODS = {"msgan": MSGANRecipe, "bicyclegan": BicycleGANRecipe}


def multimodal_translation_recipe(config: MultimodalConfig, context) -> MultimodalRecipe:
    """The recipe of `--method`."""
    return METHODS[config.method](config, context)


@dataclass
class MultimodalConfig(TranslationDataConfig):
    """The options of train_multimodal_translation.py."""

    method: Literal["msgan", "bicyclegan"] = option(
        "msgan",
        help="pix2pix with mode seeking (msgan), or an encoder of latents and a generator that learn each from the "
        "other (bicyclegan).",
        essential=True,
    )

    # Networks
    generator_channels: int = option(64, help="The channels of the first layer of the U-Net.", group="network")
    latent_dim: int = option(8, help="The length of the latents.", group="network")
    generator_options: JSONObject = option(
        JSONObject(), help="Further arguments of UNetGenerator, as JSON or a YAML mapping.", group="network"
    )
    normalization: Literal["batch", "instance", "none"] = option(
        "batch", help="The normalization of the generator and the discriminators.", group="network"
    )
    discriminator_channels: int = option(64, help="The channels of a discriminator's first layer.", group="network")
    patch_size: int | None = option(
        help="The side of the patches that a discriminator judges, in pixels: 1, 16, 34, 70, 142 or 286; by default "
        "70, or less for small images.",
        group="network",
    )
    num_scales: int = option(
        1, help="How many sizes of the image discriminators judge, each half of the one before.", group="network"
    )

    # What is minimised
    adversarial_loss: AdversarialLoss = option(
        "least_squares", help="The loss of the generator against the discriminators."
    )
    l1_weight: float = option(10.0, help="The weight of the distance to the truth.")
    mode_seeking_weight: float = option(
        1.0, help="msgan: the weight of the mode-seeking loss; 0 is pix2pix with latents."
    )
    latent_weight: float = option(
        0.5, help="bicyclegan: the weight of the error of the latents that the encoder finds in generated images."
    )
    kl_weight: float = option(
        0.01, help="bicyclegan: the weight of the divergence of encoded latents from a normal distribution."
    )

    # Usual for these methods
    train_batch_size: int = option(4, help="Images per process and step.")
    learning_rate: float = option(2e-4, help="The learning rate after the warm-up.")
    lr_scheduler: LRScheduler = option("linear", help="The papers use warmup_stable_decay.")
    lr_warmup_steps: int = option(0, help="Updates until the learning rate is reached.")
    adam_beta1: float = option(0.5, help="AdamW's decay of the gradient's mean.")
    adam_weight_decay: float = option(0.0, help="AdamW's weight decay.")
    max_grad_norm: float = option(0.0, help="Gradients are scaled down to this norm; 0 never scales.")
    use_ema: bool = option(False, help="Average the generator's weights; the average is what is published.")
    ema_decay: float = option(0.999, help="The decay of that average, min(decay, (1 + step) / (10 + step)).")
    evaluation_batch_size: int = option(16, help="Images per process and call of the pipeline.")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "latent_dim", "num_scales", "generator_channels", "discriminator_channels")
        self.require_at_least(0, "l1_weight", "mode_seeking_weight", "latent_weight", "kl_weight")
        self.require(
            self.is_paired,
            "train_multimodal_translation.py learns from pairs: name the inputs by --conditioning_image_column or "
            "--conditioning_image_dir, give --side_by_side, or make inputs with --inputs",
        )
        self.require(
            self.patch_size in (None, *PATCH_LAYERS),
            f"--patch_size must be one of {', '.join(map(str, PATCH_LAYERS))}, not {self.patch_size}",
        )
        self.require_default(
            self.method == "msgan", ("mode_seeking_weight",), f"is for --method msgan, not {self.method}"
        )
        self.require_default(
            self.method == "bicyclegan",
            ("latent_weight", "kl_weight"),
            f"is for --method bicyclegan, not {self.method}",
        )

    @property
    def known_metrics(self) -> Sequence[str]:
        return RESTORATION_METRICS


if __name__ == "__main__":
    run(multimodal_translation_recipe, MultimodalConfig)
