"""Train StarGAN: one network that translates images to any of several domains, such as day, night, fog and dusk.

    accelerate launch training/train_attribute_translation.py --config examples/digit_scenes_stargan.yaml

Choi et al. (2018). The domains are the classes of a data set: a folder of images for each, or a column of labels
(`--label_column`). No image needs a partner in another domain. The result is an [`AttributeTranslationPipeline`].
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from diffusers_ext.losses import discriminator_loss, generator_loss, gradient_penalty, l1_loss
from diffusers_ext.losses.discriminator_outputs import judge_both
from diffusers_ext.models import StarGANDiscriminator, StarGANGenerator
from diffusers_ext.pipelines import AttributeTranslationPipeline
from diffusers_ext.training.loop.configuration import JSONObject, LRScheduler, ValidationConfig, option
from diffusers_ext.training.loop.network_options import build_network
from diffusers_ext.training.loop.recipe import Recipe
from diffusers_ext.training.translation.attribute_evaluation import AttributeEvaluator
from diffusers_ext.training.translation.networks import check_size


class AttributeTranslationRecipe(Recipe):
    """Choi et al. 2018, eq. 5-8: translated images look real, are of the target domain, and lead back to the input."""

    def networks(self) -> dict[str, nn.Module]:
        config = self.config
        images = {"sample_size": config.size, "channels": config.channels, "num_domains": self.num_domains}
        shape = (1, config.channels, *config.size)

        def trial(network: StarGANGenerator) -> None:
            check_size(network, config.size)
            network(torch.zeros(shape), torch.zeros(1, self.num_domains))

        generator = build_network(
            StarGANGenerator,
            "--generator_options",
            config.generator_options,
            usual={"base_channels": config.generator_channels},
            decided=images,
            trial=trial,
        )
        check_size(generator, config.size)
        discriminator = build_network(
            StarGANDiscriminator,
            "--discriminator_options",
            config.discriminator_options,
            usual={"base_channels": config.discriminator_channels, "num_layers": default_layers(config.size)},
            decided=images,
            trial=lambda network: network(torch.zeros(shape)),
        )
        return {"generator": generator, "discriminator": discriminator}

    def step(self, batch, draw):
        real, domains = batch["pixel_values"], batch["class_labels"]
        targets = draw.integers(self.num_domains)
        is_generators_turn = (draw.step + 1) % self.config.discriminator_steps == 0
        with torch.set_grad_enabled(is_generators_turn):
            fake = self.generator(real, self.domain_labels(targets)).sample

        self.improve_discriminator(real, domains, fake.detach(), draw)
        if is_generators_turn:
            on_fake = self.network("discriminator")(fake)
            fooled = generator_loss("wasserstein", on_fake.logits)
            classification = F.cross_entropy(on_fake.domain_logits.float(), targets, reduction="none")
            cycle = l1_loss(self.generator(fake, self.domain_labels(domains)).sample, real)
            self.log(fooled=fooled, fake_classification=classification, cycle=cycle)
            losses = fooled + self.config.classification_weight * classification + self.config.cycle_weight * cycle
            self.minimise("generator", losses)

    def improve_discriminator(self, real, domains, fake, draw) -> None:
        on_real, on_fake = judge_both(self.discriminator, real, fake)
        classification = F.cross_entropy(on_real.domain_logits.float(), domains, reduction="none")
        penalty = gradient_penalty(lambda mixed: self.discriminator(mixed).logits, real, fake, draw.uniform())
        self.log(real_classification=classification, penalty=penalty)
        losses = discriminator_loss("wasserstein", on_real.logits, on_fake.logits)
        losses = losses + self.config.classification_weight * classification + self.config.gradient_penalty * penalty
        self.minimise("discriminator", losses)

    def domain_labels(self, domains: torch.Tensor) -> torch.Tensor:
        """One-hot labels of domains: from (N,) to (N, num_domains)."""
        return F.one_hot(domains, self.num_domains).float()

    def pipeline(self, generator, discriminator) -> AttributeTranslationPipeline:
        """The pipeline of the generator; the discriminator stays in the checkpoints."""
        return AttributeTranslationPipeline(generator, id2label=self.dataset.id2label)

    # What stands around the algorithm

    def __init__(self, config: AttributeTranslationConfig, context):
        context.refuse_sharding("--gradient_penalty")
        super().__init__(config, context)
        names = self.dataset.id2label
        if names is None or len(names) < 2:
            found = "no classes" if names is None else f"only {names[0]!r}"
            raise ValueError(
                f"StarGAN translates between two classes of images or more, but this data set has {found}: put the "
                "images of each domain into a folder of its own, or name the column of domains by --label_column."
            )
        self.num_domains = len(names)
        self.evaluator = AttributeEvaluator(
            config.load_validation_dataset(self.dataset, same_classes=True),
            context,
            split=config.validation_split or config.dataset_split,
            **config.measured(),
        )

    def before_training(self) -> None:
        super().before_training()
        self.evaluator.dataset.prepare()

    def identity(self) -> dict:
        names = ("classification_weight", "cycle_weight", "gradient_penalty", "discriminator_steps")
        return {name: getattr(self.config, name) for name in names}

    def averaged(self, names):
        return ("generator",)

    def sample_grid(self, generate):
        """Images, and their translations to each domain."""
        return self.evaluator.panel(generate)

    def evaluate(self, generate):
        """A row per domain; nothing without `--feature_extractor`."""
        return self.evaluator(generate)

    def describe(self) -> dict:
        names = list(self.dataset.id2label.values())
        return {
            "task": f"Images translated to any of {len(names)} domains ({', '.join(names[:10])}"
            f"{', ...' if len(names) > 10 else ''}) by one network: StarGAN, trained without pairs from random "
            "weights.",
            "usage": f"image = pipe(image, target={names[0]!r}).images[0]",
            "tags": ["image-to-image", "gan", "stargan"],
        }


def default_layers(size: tuple[int, int]) -> int:
    """How often the discriminator halves images: to two pixels a side, and at most 6 times, as in the paper."""
    return max(1, min(6, min(size).bit_length() - 2))


@dataclass
class AttributeTranslationConfig(ValidationConfig):
    """The options of train_attribute_translation.py."""

    # Networks
    generator_channels: int = option(64, help="The generator's channels at full size.", group="network")
    generator_options: JSONObject = option(
        JSONObject(),
        help="Further arguments of StarGANGenerator, as JSON or a YAML mapping: num_blocks, num_downsamplings.",
        group="network",
    )
    discriminator_channels: int = option(64, help="The channels of the discriminator's first layer.", group="network")
    discriminator_options: JSONObject = option(
        JSONObject(), help="Further arguments of StarGANDiscriminator: num_layers.", group="network"
    )

    # What is minimised
    classification_weight: float = option(
        1.0, help="The weight of the classification: of true images by the discriminator, of translated ones by both."
    )
    cycle_weight: float = option(10.0, help="The weight of the error after a translation there and back.")
    gradient_penalty: float = option(10.0, help="The weight of WGAN-GP's penalty on the discriminator.")
    discriminator_steps: int = option(
        5, help="Steps of the discriminator for each step of the generator.", group="optimisation"
    )

    # Usual for this method
    train_batch_size: int = option(16, help="Images per process and step.")
    learning_rate: float = option(1e-4, help="The learning rate after the warm-up.")
    lr_scheduler: LRScheduler = option(
        "warmup_stable_decay", help="As in the paper: constant, then falling to 0 in the second half."
    )
    lr_warmup_steps: int = option(0, help="Updates until the learning rate is reached.")
    adam_beta1: float = option(0.5, help="AdamW's decay of the gradient's mean.")
    adam_weight_decay: float = option(0.0, help="AdamW's weight decay.")
    max_grad_norm: float = option(0.0, help="Gradients are scaled down to this norm; 0 never scales.")
    use_ema: bool = option(False, help="Average the generator's weights; the average is what is published.")
    ema_decay: float = option(0.999, help="The decay of that average, min(decay, (1 + step) / (10 + step)).")
    evaluation_batch_size: int = option(50, help="Images per process and call of the pipeline.")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "generator_channels", "discriminator_channels", "discriminator_steps")
        self.require_at_least(0, "classification_weight", "cycle_weight")
        self.require(
            self.gradient_penalty > 0,
            f"--gradient_penalty must be positive, not {self.gradient_penalty}: nothing else bounds the critic",
        )
        self.require(
            self.label_column != "none",
            "--label_column none leaves no domains: name the column of domains, or leave it out",
        )
        self.require(not self.metrics or self.feature_extractor is not None, "--metrics needs --feature_extractor")


if __name__ == "__main__":
    run(AttributeTranslationRecipe, AttributeTranslationConfig)
