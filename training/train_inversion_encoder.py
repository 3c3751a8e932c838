"""Train an encoder that inverts a GAN: from images to the styles from which its generator makes them again.

    accelerate launch training/train_inversion_encoder.py --config examples/digits_inversion_encoder.yaml

The training of pSp (Richardson et al. 2021, https://huggingface.co/papers/2008.00951) and, with `--delta_weight` and
`--adversarial_weight`, of e4e (Tov et al. 2021, https://huggingface.co/papers/2102.02766): the generator stays as it
is, and the encoder learns from the difference of its images. The result is a [`GANInversionPipeline`].
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from diffusers_ext.losses import discriminator_loss, generator_loss, l2_loss, r1_penalty
from diffusers_ext.models import LatentDiscriminator, StyleEncoder
from diffusers_ext.pipelines import GANInversionPipeline, GANPipeline
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.evaluation.pipeline_classes import load_pipeline
from diffusers_ext.training.loop.configuration import JSONObject, ValidationConfig, option
from diffusers_ext.training.loop.network_options import build_network
from diffusers_ext.training.loop.perceptual import PerceptualConfig
from diffusers_ext.training.loop.recipe import Recipe


class InversionEncoderRecipe(Recipe):
    """Tov et al. 2021, section 5: an encoder for fixed styles of a generator, and a critic of its styles."""

    def networks(self) -> dict[str, nn.Module]:
        """The encoder and, with `--adversarial_weight`, the discriminator that knows styles of the mapping."""
        config, generator = self.config, self.generator
        decided = {
            "in_channels": config.channels,
            "num_styles": generator.num_styles,
            "style_dim": generator.config.style_dim,
        }
        size = config.encoder.get("sample_size", max(32, config.size[0]))

        def trial(encoder: StyleEncoder) -> None:
            encoder(torch.zeros(2, config.channels, size, size))

        encoder = build_network(
            StyleEncoder, "--encoder", {"sample_size": size, **config.encoder}, decided=decided, trial=trial
        )
        encoder.style_average.copy_(generator.style_average)
        networks = {"encoder": encoder}
        if config.adversarial_weight > 0:
            width = generator.config.style_dim
            networks["discriminator"] = LatentDiscriminator(width, width, CRITIC_LAYERS)
        return networks

    def step(self, batch, draw):
        config, real = self.config, batch["pixel_values"]
        styles = self.encoder(self.resized(real), num_deltas=self.num_deltas(draw.step)).styles
        if config.adversarial_weight > 0:
            self.minimise("discriminator", self.critic_losses(styles.detach(), draw))
        losses = self.reconstruction_losses(self.generator(styles=styles).sample, real)
        if config.delta_weight > 0:
            deltas = (styles[:, 1:] - styles[:, :1]).norm(dim=2).sum(dim=1)
            self.log(deltas=deltas)
            losses = losses + config.delta_weight * deltas
        if config.adversarial_weight > 0:
            logits = self.network("discriminator")(styles.flatten(0, 1)).logits
            fooled = generator_loss("nonsaturating", logits).unflatten(0, styles.shape[:2]).mean(dim=1)
            losses = losses + config.adversarial_weight * fooled
        self.minimise("encoder", losses)

    def num_deltas(self, step: int) -> int | None:
        """How many styles may differ from the first one (section 5.1): one more every `--delta_interval` steps."""
        config = self.config
        return None if config.delta_interval is None else max(0, step - config.delta_start) // config.delta_interval

    def reconstruction_losses(self, made, real) -> torch.Tensor:
        """The weighted distances to the images, of shape (N,)."""
        pixels = l2_loss(made, real)
        self.log(pixels=pixels)
        losses = self.config.pixel_weight * pixels
        if self.config.perceptual_weight > 0:
            perceptual = self.perceptual_loss(made, real)
            self.log(perceptual=perceptual)
            losses = losses + self.config.perceptual_weight * perceptual
        return losses

    def critic_losses(self, styles, draw) -> torch.Tensor:
        """What the discriminator of styles minimises (section 5.2), of shape (N,): one layer of each image is seen."""
        generator = self.generator
        layers = (draw.uniform() * styles.shape[1]).long()
        fake = styles[torch.arange(len(styles), device=styles.device), layers]
        latents, labels = draw.normal(generator.config.latent_dim), None
        if generator.config.num_classes is not None:
            labels = (draw.uniform() * generator.config.num_classes).long()
        with torch.no_grad():
            real = generator.map_latents(latents, labels)
        real.requires_grad_(True)
        on_real, on_fake = self.discriminator(real).logits, self.discriminator(fake).logits
        losses = discriminator_loss("nonsaturating", on_real, on_fake)
        return losses + self.config.r1 * r1_penalty(on_real, real)

    def resized(self, images: torch.Tensor) -> torch.Tensor:
        """Images of the encoder's size, as the pipeline resizes them."""
        size = self.network("encoder").config.sample_size
        return images if images.shape[2] == size else F.interpolate(images, (size, size), mode="area")

    def pipeline(self, encoder: nn.Module, discriminator: nn.Module | None = None) -> GANInversionPipeline:
        """The generator with its encoder; the discriminator stays in the checkpoints."""
        return GANInversionPipeline(self.generator, encoder, self.id2label)

    # What stands around the algorithm

    def __init__(self, config: InversionEncoderConfig, context):
        super().__init__(config, context)
        if config.adversarial_weight > 0 and config.r1 > 0:
            context.refuse_sharding("A penalty of gradients (--r1)")
        name = config.pretrained_model_name_or_path
        pipeline = load_pipeline(name, config.cache_dir, "--pretrained_model_name_or_path", GANPipeline)
        if not hasattr(pipeline.generator, "num_styles"):
            raise ValueError(f"The generator of {name} has no styles, which an encoder could find.")
        if pipeline.image_shape != (config.channels, *config.size):
            raise ValueError(
                f"{name} makes images of the shape {pipeline.image_shape}, but --channels and --resolution are "
                f"{config.channels} and {config.size}."
            )
        self.id2label = pipeline.config.id2label
        self.generator = pipeline.generator.to(context.device).requires_grad_(False).eval()
        self.validation_images = config.load_validation_dataset(self.dataset)
        self.perceptual_loss = config.load_perceptual_loss(context.device, (config.channels, *config.size))

    def before_training(self) -> None:
        super().before_training()
        self.validation_images.prepare()

    def identity(self) -> dict:
        names = ("pixel_weight", "perceptual_weight", "delta_weight", "delta_start", "delta_interval")
        names += ("adversarial_weight", "r1")
        return {name: getattr(self.config, name) for name in names}

    def optimizer_options(self, name):
        rate = self.config.discriminator_learning_rate
        return {"learning_rate": rate} if name == "discriminator" and rate is not None else {}

    def averaged(self, names):
        return ("encoder",)

    def sample_grid(self, generate):
        """Images, and below each what the generator makes of its styles."""
        images = next(iter(self.validation_images.reference_batches(SHOWN)))["pixel_values"][:SHOWN]
        made = invert(generate.pipeline, images)
        return sample_grid(torch.cat([images, made]), len(images), row_titles=["image", "inverted"])

    def evaluate(self, generate):
        """The errors on the validation images."""
        config, context = self.config, generate.context
        rows, remaining = [], config.num_evaluation_samples
        for batch in self.validation_images.reference_batches(config.evaluation_batch_size, **context.share):
            images = batch["pixel_values"]
            made = invert(generate.pipeline, images)
            rows.append(((made.float() - images.float()) / 255).square().mean(dim=(1, 2, 3)))
        errors = context.gather_rows(rows)[:remaining]
        split = config.validation_split or config.dataset_split
        return [{"mse": errors.mean().item(), "provenance": {"split": split, "num_images": len(errors)}}]

    def describe(self) -> dict:
        name = self.config.pretrained_model_name_or_path
        return {
            "task": f"GAN inversion: an encoder ({self.network('encoder').config.architecture}) from images to the "
            f"styles of the generator of {name}.",
            "usage": 'found = pipe(image, start="encoder", num_optimization_steps=100)',
            "base_model": name,
            "tags": ["image-to-image", "gan-inversion", "stylegan2"],
        }


CRITIC_LAYERS = 3  # and one for the logit, as in omertov/encoder4editing
SHOWN = 10


def invert(pipeline: GANInversionPipeline, images: torch.Tensor) -> torch.Tensor:
    """What the encoder alone finds for uint8 images, as uint8 images."""
    made = pipeline(images, start="encoder", num_optimization_steps=0, output_type="pt").images
    return (made * 255).round().byte().cpu()


@dataclass
class InversionEncoderConfig(PerceptualConfig, ValidationConfig):
    """The options of train_inversion_encoder.py."""

    pretrained_model_name_or_path: str | None = option(
        help="The GANPipeline whose generator is to be inverted: a local folder or a Hub name.",
        group="network",
        essential=True,
    )
    encoder: JSONObject = option(
        JSONObject(),
        help="Arguments of StyleEncoder, as JSON or a YAML mapping, such as architecture and block_out_channels.",
        group="network",
    )
    pixel_weight: float = option(1.0, help="The weight of the squared difference of pixels in [-1, 1].")
    delta_weight: float = option(
        0.0, help="The weight of the distances of the styles of an image from its first one; 2e-4 in e4e."
    )
    delta_interval: int | None = option(
        help="One more style may differ from the first one every so many steps (2000 in e4e); by default all from the "
        "beginning."
    )
    delta_start: int = option(0, help="From which step on (20000 in e4e).")
    adversarial_weight: float = option(
        0.0, help="The weight of the loss against a discriminator that knows styles of the mapping; 0.1 in e4e."
    )
    r1: float = option(10.0, help="The weight gamma of the discriminator's R1, gamma/2 |gradient|^2.")
    discriminator_learning_rate: float | None = option(
        help="The discriminator's learning rate; by default --learning_rate.", group="optimisation"
    )

    def __post_init__(self):
        super().__post_init__()
        self.require(self.pretrained_model_name_or_path is not None, "--pretrained_model_name_or_path is required")
        self.require_at_least(0, "pixel_weight", "delta_weight", "delta_start", "adversarial_weight", "r1")
        self.require_at_least(1, "delta_interval")
        self.require(
            self.pixel_weight + self.perceptual_weight > 0, "--pixel_weight or --perceptual_weight must be above 0"
        )
        self.require_default(
            self.adversarial_weight > 0,
            ("r1", "discriminator_learning_rate"),
            "is for --adversarial_weight, which is 0",
        )
        self.require_default(
            self.delta_interval is not None, ("delta_start",), "is for --delta_interval, which is not set"
        )
        is_e4e = self.encoder.get("architecture", "e4e") == "e4e"
        self.require(is_e4e or self.delta_interval is None, "--delta_interval is for the architecture e4e")
        rate = self.discriminator_learning_rate
        self.require(rate is None or rate > 0, f"--discriminator_learning_rate must be above 0, not {rate}")


if __name__ == "__main__":
    run(InversionEncoderRecipe, InversionEncoderConfig)
