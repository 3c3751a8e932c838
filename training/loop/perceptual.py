"""A perceptual distance among the losses of a recipe: its options, and its network."""

from dataclasses import dataclass

import torch

from diffusers_ext.losses.perceptual_loss import PerceptualLoss, load_perceptual_loss
from diffusers_ext.training.loop.configuration import Config, option


@dataclass
class PerceptualConfig(Config):
    """The weight and the network of a perceptual distance."""

    perceptual_weight: float = option(0.0, help="The weight of the perceptual distance to the truth.")
    perceptual_network: str = option("lpips", help="lpips, or a local folder or Hub name of an image model.")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(0, "perceptual_weight")
        self.require_default(
            self.perceptual_weight > 0, ("perceptual_network",), "is for --perceptual_weight above 0, which is not set"
        )

    def load_perceptual_loss(self, device: torch.device, image_shape: tuple[int, int, int]) -> PerceptualLoss | None:
        """The perceptual loss of these options, tried on a blank image; None if its weight is 0.

        Args:
            device (`torch.device`): where the network runs.
            image_shape: channels, height and width of the images.

        Raises:
            ImportError, OSError, ValueError: if there is no such network, or it can't compare such images.
        """
        if self.perceptual_weight == 0:
            return None
        return load_perceptual_loss(self.perceptual_network, device, image_shape)
