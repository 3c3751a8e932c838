"""Train an energy-based GAN on images: a generator, against an autoencoder whose reconstruction error is the energy.

    accelerate launch training/train_ebgan.py --config examples/digits_ebgan.yaml

The training of Zhao et al. 2017 (https://huggingface.co/papers/1609.03126): the discriminator gives low energies to
real images, and energies of at least a margin to generated ones. The pulling-away term keeps generated images
different. The result is a [`GANPipeline`].
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from diffusers_ext.losses import pulling_away_loss
from diffusers_ext.models import EBGANDiscriminator, EBGANGenerator
from diffusers_ext.training.adversarial.recipe import AdversarialConfig, AdversarialRecipe
from diffusers_ext.training.loop.configuration import JSONObject, option
from diffusers_ext.training.loop.network_options import build_network


class EBGANRecipe(AdversarialRecipe):
    """Zhao et al. 2017, equations 1, 2 and 4: in each step both networks improve."""

    def networks(self) -> dict[str, nn.Module]:
        """The generator, from latents to images, and the discriminator, from images to energies."""
        config, (size, _) = self.config, self.config.size

        def trial(network: nn.Module) -> None:
            is_generator = isinstance(network, EBGANGenerator)
            shape = (network.config.latent_dim,) if is_generator else (config.channels, size, size)
            network(torch.zeros(2, *shape))

        of_generator = {"sample_size": size, "out_channels": config.channels}
        of_discriminator = {"sample_size": size, "in_channels": config.channels}
        return {
            "generator": build_network(
                EBGANGenerator, "--generator", config.generator, decided=of_generator, trial=trial
            ),
            "discriminator": build_network(
                EBGANDiscriminator, "--discriminator", config.discriminator, decided=of_discriminator, trial=trial
            ),
        }

    def step(self, batch, draw):
        config = self.config
        fake = self.generator(draw.normal(self.network("generator").config.latent_dim)).sample

        # One after the other, because each kind of image is normalized by its own statistics.
        on_real, on_fake = self.discriminator(batch["pixel_values"]), self.discriminator(fake.detach())
        self.log(real_energy=on_real.energy, fake_energy=on_fake.energy)
        self.minimise("discriminator", on_real.energy + F.relu(config.margin - on_fake.energy))

        judged = self.network("discriminator")(fake)
        similarity = pulling_away_loss(judged.embedding)
        self.log(pulling_away=similarity)
        self.minimise("generator", judged.energy + config.pulling_away * similarity)

    # What stands around the algorithm

    def identity(self) -> dict:
        return {name: getattr(self.config, name) for name in ("margin", "pulling_away")}

    def describe(self) -> dict:
        return self.description("EBGAN", "ebgan")


@dataclass
class EBGANConfig(AdversarialConfig):
    """The options of train_ebgan.py."""

    generator: JSONObject = option(
        JSONObject(),
        help="Arguments of EBGANGenerator, as JSON or a YAML mapping, such as block_out_channels.",
        group="network",
    )
    discriminator: JSONObject = option(JSONObject(), help="Arguments of EBGANDiscriminator.", group="network")

    # The game
    margin: float = option(1.0, help="The energy m that generated images are given at least.")
    pulling_away: float = option(0.1, help="The weight of the pulling-away term; 0 for none.")

    # Usual for EBGAN
    learning_rate: float = option(2e-4, help="The learning rate after the warm-up.")
    adam_beta1: float = option(0.5, help="AdamW's decay of the gradient's mean.")
    ema_decay: float = option(0.999, help="The decay of the generator's average.")
    train_batch_size: int = option(64, help="Images per process and step.")

    def __post_init__(self):
        super().__post_init__()
        self.require(self.margin > 0, f"--margin must be positive, not {self.margin}")
        self.require_at_least(0, "pulling_away")
        self.require_at_least(2, "train_batch_size")
        self.require_default(False, ("class_conditional",), "is for other recipes: an EBGAN has no classes")
        height, width = self.size
        self.require(
            height == width and height % 4 == 0,
            f"--resolution must be a square of 4, 8, 12 ... pixels, not {height}x{width}",
        )


if __name__ == "__main__":
    run(EBGANRecipe, EBGANConfig)
