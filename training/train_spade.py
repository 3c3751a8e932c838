"""Train SPADE (GauGAN): a network that makes images of label maps, which say what each pixel shows.

    accelerate launch training/train_spade.py --config examples/digits_spade.yaml

Park et al. (2019). The label maps are the conditioning images: pictures whose gray levels or palette indices are the
labels, in `--conditioning_image_column` or with the names of the images in `--conditioning_image_dir`. With
`--latent_dim`, an encoder learns the styles of images, and a label map can have many images. With instance maps
(`--instance_map_column` or `--instance_map_dir`), the networks see the edges of objects too. The result is a
[`SemanticSynthesisPipeline`].
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from diffusers_ext.data import ImageDataset
from diffusers_ext.losses import discriminator_loss, feature_matching_loss, generator_loss
from diffusers_ext.losses.adversarial import AdversarialLoss
from diffusers_ext.losses.discriminator_outputs import accuracies, judge_both
from diffusers_ext.metrics.restoration import RESTORATION_METRICS
from diffusers_ext.pipelines import SemanticSynthesisPipeline
from diffusers_ext.pipelines.label_maps import instance_edges, one_hot_labels
from diffusers_ext.training.loop.configuration import JSONObject, LRScheduler, ValidationConfig, option
from diffusers_ext.training.loop.perceptual import PerceptualConfig
from diffusers_ext.training.loop.recipe import Recipe
from diffusers_ext.training.translation.networks import PATCH_LAYERS, build_discriminator
from diffusers_ext.training.translation.semantic_evaluation import SemanticEvaluator
from diffusers_ext.training.translation.semantic_networks import build_spade_encoder, build_spade_generator


STYLES = 4  # how many images of a label map are measured and shown, if it can have several


class SPADERecipe(Recipe):
    """Park et al. 2019, section 3: a generator under label maps, against discriminators of pairs at two scales."""

    def networks(self) -> dict[str, nn.Module]:
        config = self.config
        images = {"size": config.size, "channels": config.channels}
        networks = {
            "generator": build_spade_generator(
                config.generator_options,
                num_labels=config.conditioning_num_labels,
                instance_edges=config.has_instance_maps,
                base_channels=config.generator_channels,
                latent_dim=config.latent_dim,
                normalization=config.normalization,
                **images,
            ),
            "discriminator": build_discriminator(
                size=config.size,
                in_channels=config.conditioning_num_labels + config.has_instance_maps + config.channels,
                base_channels=config.discriminator_channels,
                normalization="instance",
                patch_size=config.patch_size,
                num_scales=config.num_scales,
                spectral_norm="blocks",
                padding=2,
            ),
        }
        if config.latent_dim is not None:
            networks["style_encoder"] = build_spade_encoder(
                base_channels=config.generator_channels, latent_dim=config.latent_dim, **images
            )
        return networks

    def step(self, batch, draw):
        real = batch["pixel_values"]
        segmentation = self.segmentation(batch)
        latents, divergence = self.encode(real, draw)
        fake = self.generator(segmentation, latents).sample
        real_pair, fake_pair = torch.cat([segmentation, real], dim=1), torch.cat([segmentation, fake], dim=1)

        self.improve_discriminator(real_pair, fake_pair.detach())

        on_real, on_fake = judge_both(self.network("discriminator"), real_pair, fake_pair)
        fooled = generator_loss(self.config.adversarial_loss, on_fake.logits)
        matching = feature_matching_loss(on_fake.hidden_states, on_real.hidden_states)
        self.log(fooled=fooled, feature_matching=matching)
        losses = fooled + self.config.feature_matching_weight * matching + self.config.kl_weight * divergence
        self.minimise(self.generating, losses + self.perceptual_losses(fake, real))

    def segmentation(self, batch) -> torch.Tensor:
        """One-hot label maps, and after them the edges of objects if there are instance maps: (N, K, H, W)."""
        labels = one_hot_labels(batch["conditioning_pixel_values"], self.config.conditioning_num_labels)
        if not self.config.has_instance_maps:
            return labels
        return torch.cat([labels, instance_edges(batch["instance_pixel_values"])], dim=1)

    def encode(self, images: torch.Tensor, draw) -> tuple[torch.Tensor | None, torch.Tensor | float]:
        """The styles of images, and their divergences from a standard normal distribution in nats, (N,)."""
        if self.config.latent_dim is None:
            return None, 0.0
        posterior = self.style_encoder(images).latent_dist
        divergence = posterior.kl()
        self.log(kl=divergence)
        return posterior.mean + posterior.std * draw.normal_like(posterior.mean), divergence

    def improve_discriminator(self, real_pair: torch.Tensor, fake_pair: torch.Tensor) -> None:
        on_real, on_fake = judge_both(self.discriminator, real_pair, fake_pair)
        kind = self.config.adversarial_loss
        self.log(**accuracies(kind, on_real.logits, on_fake.logits))
        self.minimise("discriminator", discriminator_loss(kind, on_real.logits, on_fake.logits))

    def perceptual_losses(self, fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor | float:
        """The weighted perceptual distances to the truth, (N,)."""
        if self.perceptual_loss is None:
            return 0.0
        perceptual = self.perceptual_loss(fake, real)
        self.log(perceptual=perceptual)
        return self.config.perceptual_weight * perceptual

    def pipeline(self, generator, style_encoder=None, **discriminator) -> SemanticSynthesisPipeline:
        """The pipeline of the generator and the encoder; the discriminator stays in the checkpoints."""
        return SemanticSynthesisPipeline(generator=generator, style_encoder=style_encoder)

    # What stands around the algorithm

    def __init__(self, config: SPADEConfig, context):
        super().__init__(config, context)
        self.generating = ("generator",) if config.latent_dim is None else ("generator", "style_encoder")
        self.perceptual_loss = config.load_perceptual_loss(context.device, (config.channels, *config.size))
        self.evaluator = SemanticEvaluator(
            config.load_validation_dataset(self.dataset),
            context,
            num_styles=1 if config.latent_dim is None else STYLES,
            split=config.validation_split or config.dataset_split,
            **config.measured(),
        )

    def before_training(self) -> None:
        super().before_training()
        self.evaluator.dataset.prepare()

    def identity(self) -> dict:
        names = ("adversarial_loss", "feature_matching_weight", "kl_weight", "perceptual_weight")
        return {name: getattr(self.config, name) for name in names}

    def optimizer_options(self, name):
        return {"learning_rate": self.config.discriminator_learning_rate} if name == "discriminator" else {}

    def averaged(self, names):
        return self.generating

    def sample_grid(self, generate):
        """Label maps, images of them, and the true images."""
        return self.evaluator.panel(generate)

    def evaluate(self, generate):
        """One row; nothing without `--metrics` or `--feature_extractor`."""
        return self.evaluator(generate)

    def describe(self) -> dict:
        maps = "label_map, instance_map" if self.config.has_instance_maps else "label_map"
        usage = [f"image = pipe({maps}).images[0]"]
        if self.config.latent_dim is not None:
            usage += [
                f"images = pipe({maps}, num_images_per_input=4).images",
                f"image = pipe({maps}, style_image=photo).images[0]",
            ]
        return {
            "task": f"Images from label maps of {self.config.conditioning_num_labels} labels: SPADE (GauGAN), trained "
            "from random weights.",
            "usage": "\n".join(usage),
            "tags": ["image-to-image", "gan", "spade", "semantic-image-synthesis"],
        }


@dataclass
class SPADEConfig(PerceptualConfig, ValidationConfig):
    """The options of train_spade.py."""

    takes_conditioning_images = True

    # Data
    instance_map_column: str | None = option(
        help="The column of instance maps, in which each object has a value or a colour of its own: the networks see "
        "the edges of objects. In a folder, a metadata file names them as `instance_map_file_name`.",
        group="data",
    )
    instance_map_dir: str | None = option(
        help="A folder of instance maps with the names of the images in --train_data_dir, instead of "
        "--instance_map_column.",
        group="data",
    )

    # Networks
    generator_channels: int = option(64, help="The generator's channels at full size.", group="network")
    latent_dim: int | None = option(
        help="The length of the style, which an encoder learns (256 in the paper); by default a label map has one "
        "image.",
        group="network",
    )
    normalization: Literal["batch", "instance"] = option(
        "batch", help="What the label maps scale and shift in the generator.", group="network"
    )
    generator_options: JSONObject = option(
        JSONObject(),
        help="Further arguments of SPADEGenerator, as JSON or a YAML mapping: num_upsamplings, modulation_channels.",
        group="network",
    )
    discriminator_channels: int = option(64, help="The channels of a discriminator's first layer.", group="network")
    patch_size: int | None = option(
        help="The side of the patches that a discriminator judges, in pixels: 1, 16, 34, 70, 142 or 286; by default "
        "70, or less for small images.",
        group="network",
    )
    num_scales: int = option(
        2, help="How many sizes of the image discriminators judge, each half of the one before.", group="network"
    )

    # What is minimised
    adversarial_loss: AdversarialLoss = option("hinge", help="The loss of the generator against the discriminators.")
    feature_matching_weight: float = option(
        10.0, help="The weight of the difference between the discriminators' features of an image and of the true one."
    )
    kl_weight: float = option(
        0.05, help="The weight of the divergence of the styles from a normal distribution, for --latent_dim."
    )
    discriminator_learning_rate: float = option(4e-4, help="The discriminators' learning rate.", group="optimisation")

    # Usual for this method
    train_batch_size: int = option(16, help="Images per process and step.")
    learning_rate: float = option(1e-4, help="The learning rate of the generator and the encoder.")
    lr_scheduler: LRScheduler = option("linear", help="The paper uses warmup_stable_decay.")
    lr_warmup_steps: int = option(0, help="Updates until the learning rate is reached.")
    adam_beta1: float = option(0.0, help="AdamW's decay of the gradient's mean.")
    adam_beta2: float = option(0.9, help="AdamW's decay of the gradient's square.")
    adam_weight_decay: float = option(0.0, help="AdamW's weight decay.")
    max_grad_norm: float = option(0.0, help="Gradients are scaled down to this norm; 0 never scales.")
    use_ema: bool = option(False, help="Average the generator's weights; the average is what is published.")
    ema_decay: float = option(0.999, help="The decay of that average, min(decay, (1 + step) / (10 + step)).")
    evaluation_batch_size: int = option(16, help="Label maps per process and call of the pipeline.")

    def __post_init__(self):
        self.conditioning_label_maps = self.conditioning_label_maps or "levels"
        super().__post_init__()
        self.require(
            self.conditioning_label_maps == "levels",
            "--conditioning_label_maps must be levels: train_spade.py needs the numbers of the labels",
        )
        self.require(
            self.conditioning_num_labels is not None,
            "--conditioning_num_labels is required: how many labels there are",
        )
        self.require(
            self.instance_map_column is None or self.instance_map_dir is None,
            "--instance_map_column and --instance_map_dir are two ways to name instance maps: give one",
        )
        self.require_at_least(1, "latent_dim", "generator_channels", "discriminator_channels")
        self.require_at_least(2, "num_scales")
        self.require_at_least(0, "feature_matching_weight", "kl_weight")
        rate = self.discriminator_learning_rate
        self.require(rate > 0, f"--discriminator_learning_rate must be positive, not {rate}")
        self.require(
            self.patch_size in (None, *PATCH_LAYERS),
            f"--patch_size must be one of {', '.join(map(str, PATCH_LAYERS))}, not {self.patch_size}",
        )
        self.require_default(self.latent_dim is not None, ("kl_weight",), "is for --latent_dim, which is not set")

    @property
    def has_instance_maps(self) -> bool:
        """Whether the networks see the edges of objects."""
        return self.instance_map_column is not None or self.instance_map_dir is not None

    def load_dataset(
        self, size: tuple[int, int], channels: int, center_crop: bool = False, random_flip: bool = False, **options
    ) -> ImageDataset:
        """Images with label maps, and with instance maps if these options name them."""
        maps = {"instance_map_column": self.instance_map_column, "instance_map_dir": self.instance_map_dir}
        return super().load_dataset(size, channels, center_crop, random_flip, **maps, **options)

    @property
    def known_metrics(self) -> Sequence[str]:
        return RESTORATION_METRICS


if __name__ == "__main__":
    run(SPADERecipe, SPADEConfig)
