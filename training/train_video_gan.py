"""Train a GAN of films, by two critics: one of single frames, and one of motion.

    accelerate launch training/train_video_gan.py --config examples/mini_video/gan.yaml

DVD-GAN (Clark et al. 2019, https://huggingface.co/papers/1907.06571): a recurrent generator draws a whole film from
one latent and a class; the spatial discriminator sees some of its frames, and the temporal one all of them at half
their size. The result is a [`VideoGANPipeline`].
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from dataclasses import dataclass

import torch
from torch import nn

from diffusers_ext.data import ImageDataset
from diffusers_ext.losses import discriminator_loss, generator_loss
from diffusers_ext.models import DVDGANGenerator, DVDGANSpatialDiscriminator, DVDGANTemporalDiscriminator
from diffusers_ext.pipelines import VideoGANPipeline
from diffusers_ext.training.adversarial.recipe import AdversarialConfig
from diffusers_ext.training.evaluation.films import film_strips, measure_frames
from diffusers_ext.training.evaluation.measurable import load_measuring_extractor
from diffusers_ext.training.evaluation.samples import balanced_labels
from diffusers_ext.training.loop.configuration import JSONObject, option
from diffusers_ext.training.loop.network_options import build_network
from diffusers_ext.training.loop.recipe import Recipe


NUM_SHOWN = 10  # films in the picture of samples


class VideoGANRecipe(Recipe):
    """Clark et al. 2019, section 3: hinge losses, of frames and of films."""

    examples = "films"

    def networks(self) -> dict[str, nn.Module]:
        """The generator, and the critics of frames and of motion."""
        config, num_classes = self.config, self.num_classes
        labels = None if num_classes is None else torch.zeros(2, dtype=torch.int64)
        generator = build_network(
            DVDGANGenerator,
            "--generator",
            config.generator,
            usual={"block_out_channels": usual_widths(config.size[0])},
            decided={"out_channels": config.channels, "num_classes": num_classes, "num_frames": config.num_frames},
            trial=lambda generator: generator(torch.zeros(2, generator.config.latent_dim), labels),
        )
        if generator.sample_size != config.size[0]:
            raise ValueError(
                f"--generator: it makes frames of {generator.sample_size} pixels, but --resolution is "
                f"{config.size[0]}: each entry of block_out_channels doubles base_size."
            )
        critics, widths = {}, usual_widths(config.size[0])[::-1]
        in_halves = widths[: max(len(widths) - 1, 1)]
        halvings = 2 if config.num_frames % 4 == 0 else 1
        of_frames = {"block_out_channels": widths}
        of_time = {"block_out_channels": in_halves, "num_3d_blocks": min(halvings, len(in_halves))}
        for name, network_class, num_frames, usual in (
            ("spatial_discriminator", DVDGANSpatialDiscriminator, config.num_sampled_frames, of_frames),
            ("temporal_discriminator", DVDGANTemporalDiscriminator, config.num_frames, of_time),
        ):
            critics[name] = build_network(
                network_class,
                f"--{name}",
                getattr(config, name),
                usual=usual,
                decided={"in_channels": config.channels, "num_classes": num_classes},
                trial=lambda critic, num_frames=num_frames: critic(
                    torch.zeros(2, config.channels, num_frames, *config.size), labels
                ),
            )
        return {"generator": generator, **critics}

    def step(self, batch, draw):
        real, labels = batch["pixel_values"], None if self.id2label is None else batch["class_labels"]
        is_generators_turn = (draw.step + 1) % self.config.discriminator_steps == 0

        latents = draw.normal(self.network("generator").config.latent_dim)
        with torch.set_grad_enabled(is_generators_turn):
            fake = self.generator(latents, labels).sample
        frames = [self.sample_frames(films, draw) for films in (real, fake)]
        views = {"spatial_discriminator": frames, "temporal_discriminator": (real, fake)}

        for name, (on_real, on_fake) in views.items():
            critic = getattr(self, name)
            scores = critic(on_real, labels).logits, critic(on_fake.detach(), labels).logits
            self.log(**{f"{name}_real_logits": scores[0], f"{name}_fake_logits": scores[1]})
            self.minimise(name, discriminator_loss("hinge", *scores))

        if is_generators_turn:
            losses = [
                generator_loss("hinge", self.network(name)(on_fake, labels).logits)
                for name, (_, on_fake) in views.items()
            ]
            self.minimise("generator", sum(losses))

    def sample_frames(self, films: torch.Tensor, draw) -> torch.Tensor:
        """Some random frames of each film, in their order: (N, C, `--num_sampled_frames`, H, W)."""
        chosen = draw.uniform(films.shape[2]).argsort(dim=1)[:, : self.config.num_sampled_frames].sort(dim=1).values
        return torch.take_along_dim(films, chosen[:, None, :, None, None], dim=2)

    def pipeline(self, **networks: nn.Module) -> VideoGANPipeline:
        return VideoGANPipeline(**networks, id2label=self.id2label)

    # What stands around the algorithm

    def __init__(self, config: VideoGANConfig, context):
        super().__init__(config, context)
        if config.class_conditional and self.dataset.id2label is None:
            raise ValueError("--class_conditional needs labels: name the column with --label_column.")
        self.id2label = self.dataset.id2label if config.class_conditional else None
        self.extractor = load_measuring_extractor(
            config.feature_extractor,
            config.metrics,
            shape=(config.channels, *config.size),
            num_real=self.dataset.num_examples * config.num_frames,
            num_generated=config.num_evaluation_samples * config.num_frames,
            device=context.device,
        )

    @property
    def num_classes(self) -> int | None:
        return None if self.id2label is None else len(self.id2label)

    def optimizer_options(self, name):
        rate = self.config.discriminator_learning_rate
        return {"learning_rate": rate} if name != "generator" and rate is not None else {}

    def averaged(self, names):
        return ("generator",)

    def describe_data(self) -> str:
        return f"{super().describe_data()}, in {self.config.num_frames} frames"

    def identity(self) -> dict:
        names = ("num_frames", "num_sampled_frames", "discriminator_steps")
        return {name: getattr(self.config, name) for name in names}

    def asked(self, count: int) -> dict[str, list]:
        """The classes of so many films, in turn."""
        labels = balanced_labels(self.id2label, count)
        return {} if labels is None else {"class_labels": labels}

    def sample_grid(self, generate):
        """A row of frames for each class in turn."""
        asked = self.asked(NUM_SHOWN)
        titles = [self.id2label[label] for label in asked["class_labels"]] if asked else [""] * NUM_SHOWN
        return film_strips(generate, titles, asked)

    def evaluate(self, generate):
        """Measures of single frames; nothing without `--feature_extractor`."""
        if self.extractor is None:
            return []
        config, count = self.config, self.config.num_evaluation_samples
        real = self.dataset.reference_batches(config.evaluation_batch_size, **self.context.share)
        return [
            measure_frames(
                generate,
                (batch["pixel_values"] for batch in real),
                count,
                self.asked(count),
                extractor=self.extractor,
                metrics=config.metrics,
                split=config.dataset_split,
            )
        ]

    def describe(self) -> dict:
        call = "batch_size=1" if self.id2label is None else repr(next(iter(self.id2label.values())))
        kind = "Unconditional" if self.id2label is None else "Class-conditional"
        return {
            "task": f"{kind} films of {self.config.num_frames} frames: DVD-GAN, trained from scratch.",
            "usage": f"frames = pipe({call}).frames[0]\n"
            'frames[0].save("film.gif", save_all=True, append_images=frames[1:], duration=100, loop=0)',
            "tags": ["video-generation", "gan", "dvd-gan"],
        }


def usual_widths(size: int) -> list[int]:
    """The channels of the stages of a generator of frames of `size` pixels, from 4x4 on, and backwards of a critic."""
    return [min(256, 64 * 2**later) for later in reversed(range(size.bit_length() - 3))]


@dataclass
class VideoGANConfig(AdversarialConfig):
    """The options of train_video_gan.py."""

    num_frames: int = option(8, help="The frames of a clip that is trained on and made.", group="data", essential=True)
    frame_stride: int = option(
        1, help="Every so many-th frame of a film is a frame of the clip: 3 makes 8 per second of 24.", group="data"
    )
    generator: JSONObject = option(
        JSONObject(),
        help="Arguments of DVDGANGenerator, as JSON or a YAML mapping, such as block_out_channels.",
        group="network",
    )
    spatial_discriminator: JSONObject = option(
        JSONObject(), help="Arguments of DVDGANSpatialDiscriminator.", group="network"
    )
    temporal_discriminator: JSONObject = option(
        JSONObject(), help="Arguments of DVDGANTemporalDiscriminator.", group="network"
    )
    num_sampled_frames: int = option(8, help="So many frames of each film are seen by the spatial discriminator.")

    discriminator_steps: int = option(
        2,
        help="Steps of the discriminators for each step of the generator, as in BigGAN. --max_train_steps counts "
        "steps of the discriminators.",
        group="optimisation",
    )

    # Usual for DVD-GAN
    learning_rate: float = option(1e-4, help="The generator's learning rate after the warm-up.")
    discriminator_learning_rate: float | None = option(5e-4, help="The discriminators' learning rate.")
    lr_scheduler: str = option("constant", help="The schedule of the learning rate.")
    adam_beta1: float = option(0.0, help="AdamW's decay of the gradient's mean.")
    ema_decay: float = option(0.999, help="The decay of the generator's average.")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "num_frames", "frame_stride", "num_sampled_frames", "discriminator_steps")
        self.require(
            self.num_sampled_frames <= self.num_frames,
            f"--num_sampled_frames must be at most --num_frames {self.num_frames}, not {self.num_sampled_frames}",
        )
        height, width = self.size
        self.require(
            height == width >= 8 and height & (height - 1) == 0,
            f"--resolution must be a square of 8, 16, 32 ... pixels, not {height}x{width}",
        )
        self.require(
            self.num_frames % 2 == 0, f"--num_frames must be even, because a critic halves them, not {self.num_frames}"
        )
        self.require(self.train_batch_size > 1, "--train_batch_size must be at least 2, for batch normalization")
        self.require(not self.streaming, "--streaming is not for films: leave it out")

    def load_dataset(self, size: tuple[int, int], channels: int, *augmentations, **options) -> ImageDataset:
        """The films that these options name, with their classes."""
        films = {"num_frames": self.num_frames, "frame_stride": self.frame_stride}
        return super().load_dataset(size, channels, *augmentations, **films, **options)


if __name__ == "__main__":
    run(VideoGANRecipe, VideoGANConfig)
