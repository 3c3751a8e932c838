"""Small versions of training images, with noise: what a super-resolver is shown."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from diffusers_ext.training.loop.configuration import Config, option


def shrink(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Images (N, C, H, W) in [-1, 1] at a smaller size, by the bicubic filter, rounded to bytes."""
    small = F.interpolate(images, size, mode="bicubic", antialias=True)
    return ((small + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1


def add_level(images: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """`sqrt(1 - level**2) * image + level * noise` for images or films (N, C, ...) and levels (N,) in [0, 1)."""
    levels = levels.view(-1, *[1] * (images.ndim - 1))
    return (1 - levels**2).sqrt() * images + levels * noise


@dataclass
class SmallImagesConfig(Config):
    """How small the images are that are enlarged, and how they are noised."""

    factor: int = option(2, help="How many times larger than the small images --resolution is.", essential=True)
    conditioning_augmentation: float = option(
        0.5, help="The highest level of the noise in small images, in [0, 1); levels are uniform up to it."
    )

    def __post_init__(self):
        super().__post_init__()
        level = self.conditioning_augmentation
        self.require(0 <= level < 1, f"--conditioning_augmentation must be in [0, 1), not {level}")
        self.require_at_least(1, "factor")
        self.require(
            not any(side % self.factor for side in self.size),
            f"--resolution must be a multiple of --factor {self.factor}, not {' '.join(map(str, self.size))}",
        )

    @property
    def small_size(self) -> tuple[int, int]:
        """Height and width of the small images."""
        return tuple(side // self.factor for side in self.size)
