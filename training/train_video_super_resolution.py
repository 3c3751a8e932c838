"""Train a super-resolver of films that sees a text: the later stages of Imagen Video, in space, in time or in both.

    accelerate launch training/train_video_super_resolution.py --config examples/mini_video/enlarge.yaml

It sees a small film, of which every frame is repeated `--frame_factor` times and enlarged `--factor` times (Ho et al.
2022, https://huggingface.co/papers/2210.02303). In training the small film has noise (conditioning augmentation), so
that flaws of generated films are forgiven. The result is a [`TextToVideoPixelPipeline`] that enlarges what another one
makes.
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from dataclasses import dataclass

import torch

from diffusers_ext.pipelines.films import enlarge_films
from diffusers_ext.training.loop.configuration import option
from diffusers_ext.training.text_and_image.film_diffusion import FilmDiffusionConfig, FilmDiffusionRecipe
from diffusers_ext.training.text_and_image.small_images import SmallImagesConfig, add_level, shrink


class VideoSuperResolutionRecipe(FilmDiffusionRecipe):
    """Ho et al. 2022 ("Imagen Video"): the denoiser sees a noised small film, enlarged, and the level of its noise."""

    enlarges = True
    task, call = "Super-resolution of films by a text", ", low_res_video=small"

    def step(self, batch, draw):
        clean, texts = batch["pixel_values"], self.texts(batch, draw)
        levels = self.config.conditioning_augmentation * draw.uniform()
        small = shrink_films(clean, self.config.small_size, self.config.frame_factor)
        small = add_level(small, draw.normal_like(small), levels)
        timesteps, noise = self.objective.draw_timesteps(draw), draw.normal_like(clean)

        shown = enlarge_films(small, clean.shape[2], clean.shape[3:])
        losses = self.losses(clean, texts, timesteps, noise, shown, levels)
        self.minimise(tuple(self.context.networks), losses)

    @property
    def trained_for(self) -> dict:
        return {"conditioning_augmentation": self.config.conditioning_augmentation}

    # What stands around the algorithm

    def identity(self) -> dict:
        return {**super().identity(), "factor": self.config.factor, "frame_factor": self.config.frame_factor}

    def call_inputs(self, count: int) -> dict[str, list]:
        """The captions of the first films, and their small versions."""
        rows = list(self.dataset.reference_batches(1, limit=min(count, self.dataset.num_examples)))
        rows = [rows[index % len(rows)] for index in range(count)]
        films = torch.cat([row["pixel_values"] for row in rows]).float() / 127.5 - 1
        small = shrink_films(films, self.config.small_size, self.config.frame_factor)
        return {
            "prompt": [self.captions[row["caption_ids"].item()] if self.captions else "" for row in rows],
            "low_res_video": list((small.transpose(1, 2) + 1) / 2),
        }


def shrink_films(films: torch.Tensor, size: tuple[int, int], frame_factor: int) -> torch.Tensor:
    """Every `frame_factor`-th frame of films (N, C, F, H, W) in [-1, 1], at a smaller size; see [`shrink`]."""
    frames = films[:, :, ::frame_factor].transpose(1, 2)
    return shrink(frames.flatten(0, 1), size).unflatten(0, frames.shape[:2]).transpose(1, 2)


@dataclass
class VideoSuperResolutionConfig(SmallImagesConfig, FilmDiffusionConfig):
    """The options of train_video_super_resolution.py."""

    frame_factor: int = option(
        1, help="How many times more frames --num_frames are than those of the small films.", essential=True
    )

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "frame_factor")
        self.require(
            self.num_frames % self.frame_factor == 0,
            f"--num_frames must be a multiple of --frame_factor {self.frame_factor}, not {self.num_frames}",
        )
        self.require(
            self.factor * self.frame_factor > 1,
            "--factor 1 and --frame_factor 1 leave nothing to enlarge: one of them must be at least 2",
        )


if __name__ == "__main__":
    run(VideoSuperResolutionRecipe, VideoSuperResolutionConfig)
