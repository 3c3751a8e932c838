"""Train a text-to-video model of pixels on films with captions.

    accelerate launch training/train_video.py --config examples/mini_video/model.yaml

The base model of Imagen Video (Ho et al. 2022, https://huggingface.co/papers/2210.02303): a U-Net with layers of space
and layers of time, which reads a text by cross-attention and predicts v, or a rectified flow. With `--image_share`, a
part of the films are images to it. The result is a [`TextToVideoPixelPipeline`].
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from dataclasses import dataclass

import torch

from diffusers_ext.training.loop.configuration import option
from diffusers_ext.training.text_and_image.film_diffusion import FilmDiffusionConfig, FilmDiffusionRecipe


class VideoRecipe(FilmDiffusionRecipe):
    """Ho et al. 2022 ("Imagen Video"), sections 2.1 to 2.4, for a base model."""

    def step(self, batch, draw):
        films, texts = batch["pixel_values"], self.texts(batch, draw)
        timesteps, noise = self.objective.draw_timesteps(draw), draw.normal_like(films)
        # An image is a film of one frame, of which layers of time see only that frame (section 2.4).
        chosen = draw.integers(films.shape[2]).view(-1, 1, 1, 1, 1)
        images = torch.take_along_dim(films, chosen, dim=2)
        is_image = draw.host.uniform() < self.config.image_share
        parts = ((films, ~is_image), (images, is_image))

        losses = [
            self.losses(clips[rows], select(texts, rows), timesteps[rows], noise[rows, :, : clips.shape[2]])
            for clips, rows in ((clips, which.nonzero()[:, 0].to(films.device)) for clips, which in parts)
            if len(rows)
        ]

        self.minimise(tuple(self.context.networks), torch.cat(losses))

    # What stands around the algorithm

    def identity(self) -> dict:
        return {**super().identity(), "image_share": self.config.image_share}

    def shown_inputs(self) -> dict[str, list]:
        """The prompts of the options, or the first captions."""
        prompts = self.config.validation_prompts
        return super().shown_inputs() if prompts is None else {"prompt": prompts}


def select(texts: dict[str, torch.Tensor], rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """What is told of some of the films."""
    return {name: values[rows] for name, values in texts.items()}


@dataclass
class VideoConfig(FilmDiffusionConfig):
    """The options of train_video.py."""

    image_share: float = option(
        0.0,
        help="The share of the films of a batch of which one random frame is taken as an image: more captions and "
        "scenes for the same time, which layers of space learn from.",
    )
    validation_prompts: list[str] | None = option(
        help="What the films in the picture of samples show; by default the first captions.", group="evaluation"
    )

    def __post_init__(self):
        super().__post_init__()
        self.require(0 <= self.image_share <= 1, f"--image_share must be in [0, 1], not {self.image_share}")


if __name__ == "__main__":
    run(VideoRecipe, VideoConfig)
