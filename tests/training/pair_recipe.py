"""A recipe of two small networks that play against each other, to test what the trainer does with several."""

from diffusers_ext.training.loop.command import run

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config

from diffusers_ext.training.loop.configuration import TrainingConfig
from diffusers_ext.training.loop.recipe import Recipe


class Convolutions(ModelMixin, ConfigMixin):
    """Two convolutions."""

    @register_to_config
    def __init__(self, out_channels: int = 1):
        super().__init__()
        self.first = torch.nn.Conv2d(1, 4, 3, padding=1)
        self.second = torch.nn.Conv2d(4, out_channels, 3, padding=1)

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        return self.second(F.silu(self.first(sample)))


@dataclass
class PairConfig(TrainingConfig):
    steps_per_player: int = 2


class PairRecipe(Recipe):
    """The critic learns in each step, the player in each second one."""

    def networks(self):
        return {"player": Convolutions(), "critic": Convolutions()}

    def optimizer_options(self, name):
        return {"learning_rate": 2 * self.config.learning_rate} if name == "critic" else {}

    def averaged(self, names):
        return ("player",)

    def step(self, batch, draw):
        real, noise = batch["pixel_values"], draw.normal_like(batch["pixel_values"])
        # Not detached on purpose: what the critic minimises is no business of the player.
        loss = F.softplus(-self.critic(real)) + F.softplus(self.critic(self.player(noise)))
        self.minimise("critic", loss.flatten(1).mean(dim=1))
        if (draw.step + 1) % self.config.steps_per_player == 0:
            self.minimise("player", F.softplus(-self.critic(self.player(noise))).flatten(1).mean(dim=1))


if __name__ == "__main__":
    run(PairRecipe, PairConfig)
