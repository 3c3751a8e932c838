"""GAN training: our loop against the steps of the original code, on the same networks.

    python -m tests.benchmarks.bench_gan

- pix2pix at 256x256, one image per step: U-Net of eight levels, 70x70 patches, batch norm, 0.5 dropout. Original:
  `optimize_parameters` of https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix (plain Adam; the discriminator
  runs on real images, on fake ones, and on the fake ones again, without gradients of its weights for the generator's
  step).
- DCGAN at 64x64, 64 images per step. Original: `dcgan/main.py` of https://github.com/pytorch/examples (plain Adam; the
  discriminator is left on while the generator learns, so gradients of its weights are computed and thrown away).

Both start from the same weights and see the same images and noise; the losses of the first steps, before rounding
differences grow, are printed side by side. Then both are timed alternately, and their medians are compared.
"""

import argparse
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from diffusers_ext.data import derive_seed
from diffusers_ext.training.loop.accelerator import build_accelerator
from diffusers_ext.training.loop.configuration import TrainingConfig
from diffusers_ext.training.loop.context import TrainingContext
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.loop.recipe import Recipe
from diffusers_ext.training.loop.trainer import Trainer
from diffusers_ext.training.train_gan import GANConfig, GANRecipe
from diffusers_ext.training.train_translation import Pix2PixRecipe
from diffusers_ext.training.translation.translation_recipe import TranslationConfig
from tests.benchmarks.timing import alternate, report


LABELS = F.binary_cross_entropy_with_logits


class Steps:
    """Makes one step per call, and keeps its losses."""

    def __init__(self):
        self.losses: list[dict[str, float]] = []

    def __call__(self) -> None:
        self.losses.append(self.step())

    def step(self) -> dict[str, float]:
        raise NotImplementedError


class OurSteps(Steps):
    def __init__(self, trainer: Trainer):
        super().__init__()
        self.trainer = trainer
        trainer.start()

    def step(self):
        self.trainer.update()
        [(_, values)], _ = self.trainer.reports.read()
        return {name: values[f"{name}_loss"] for name in ("discriminator", "generator")}


class OriginalSteps(Steps):
    """What the originals share: copies of our networks, plain Adam, and the batches that our recipe sees.

    Args:
        trainer (`Trainer`): our trainer, before its first step.
        batches (`list`): the batches of its recipe, step by step.
    """

    def __init__(self, trainer: Trainer, batches: list):
        super().__init__()
        self.generator, self.discriminator = (_copy(trainer.networks[name]) for name in ("generator", "discriminator"))
        self.batches, self.trainer = batches, trainer
        rate, betas = trainer.config.learning_rate, (trainer.config.adam_beta1, 0.999)
        self.generator_optimizer = torch.optim.Adam(self.generator.parameters(), lr=rate, betas=betas)
        self.discriminator_optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=rate, betas=betas)

    def next_batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        step = len(self.losses)
        torch.manual_seed(derive_seed(self.trainer.config.seed, "network", step, 0))  # the masks of dropout
        return self.batches[step % len(self.batches)]


def _copy(network: nn.Module) -> nn.Module:
    copied = type(network).from_config(network.config).to(network.device)
    copied.load_state_dict(network.state_dict())
    return copied.train()


class Pix2PixSteps(OriginalSteps):
    def judge(self, images, outputs) -> torch.Tensor:
        return self.discriminator(torch.cat([images, outputs], dim=1)).logits

    def step(self):
        images, target = self.next_batch()
        fake = self.generator(images).sample

        for parameter in self.discriminator.parameters():
            parameter.requires_grad = True
        self.discriminator_optimizer.zero_grad()
        on_fake, on_real = self.judge(images, fake.detach()), self.judge(images, target)
        on_fake = LABELS(on_fake, torch.zeros_like(on_fake))
        on_real = LABELS(on_real, torch.ones_like(on_real))
        discriminator_loss = (on_fake + on_real) * 0.5
        discriminator_loss.backward()
        self.discriminator_optimizer.step()

        for parameter in self.discriminator.parameters():
            parameter.requires_grad = False
        self.generator_optimizer.zero_grad()
        on_fake = self.judge(images, fake)
        generator_loss = LABELS(on_fake, torch.ones_like(on_fake)) + 100.0 * F.l1_loss(fake, target)
        generator_loss.backward()
        self.generator_optimizer.step()
        return {"discriminator": discriminator_loss.item(), "generator": generator_loss.item()}


class DCGANSteps(OriginalSteps):
    def step(self):
        real, noise = self.next_batch()
        self.discriminator.zero_grad()
        on_real = self.discriminator(real).logits
        real_loss = LABELS(on_real, torch.ones_like(on_real))
        real_loss.backward()
        fake = self.generator(noise).sample
        on_fake = self.discriminator(fake.detach()).logits
        fake_loss = LABELS(on_fake, torch.zeros_like(on_fake))
        fake_loss.backward()
        self.discriminator_optimizer.step()

        self.generator.zero_grad()
        on_fake = self.discriminator(fake).logits
        generator_loss = LABELS(on_fake, torch.ones_like(on_fake))
        generator_loss.backward()
        self.generator_optimizer.step()
        return {"discriminator": (real_loss + fake_loss).item(), "generator": generator_loss.item()}


def write_images(folder: Path, height: int, width: int, count: int = 64) -> str:
    """Images of noise, which serve a benchmark as well as any others."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    for number in range(count):
        pixels = noise.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return str(folder)


def build_pix2pix(folder: Path, bfloat16: bool) -> tuple[Callable, type[OriginalSteps], Callable]:
    data = write_images(folder / "pairs", 256, 512)

    def trainer(name: str, **options) -> Trainer:
        config = TranslationConfig(
            train_data_dir=data,
            side_by_side=True,
            resolution=[256],
            normalization="batch",
            lr_scheduler="constant",
            max_train_steps=100_000,
            output_dir=str(folder / name),
            **options,
        )
        return _trainer(Pix2PixRecipe, config, bfloat16)

    def given(trainer: Trainer, batch: dict, draw: Draw) -> tuple[torch.Tensor, torch.Tensor]:
        return batch["conditioning_pixel_values"], batch["pixel_values"]

    return trainer, Pix2PixSteps, given


def build_dcgan(folder: Path, bfloat16: bool) -> tuple[Callable, type[OriginalSteps], Callable]:
    data = write_images(folder / "images", 64, 64, 128)

    def trainer(name: str, **options) -> Trainer:
        config = GANConfig(
            train_data_dir=data,
            resolution=[64],
            generator={"latent_dim": 100},
            lr_scheduler="constant",
            use_ema=False,
            max_train_steps=100_000,
            output_dir=str(folder / name),
            **options,
        )
        return _trainer(GANRecipe, config, bfloat16)

    def given(trainer: Trainer, batch: dict, draw: Draw) -> tuple[torch.Tensor, torch.Tensor]:
        return batch["pixel_values"], trainer.recipe.draw_latents(draw)

    return trainer, DCGANSteps, given


def _trainer(recipe_class: type[Recipe], config: TrainingConfig, bfloat16: bool) -> Trainer:
    accelerator = build_accelerator(mixed_precision="bf16" if bfloat16 else "no")
    return Trainer(recipe_class(config, TrainingContext(accelerator)), accelerator)


def seen_batches(trainer: Trainer, given: Callable, count: int) -> list:
    """The images and the random numbers of the recipe of `trainer` in its first steps."""
    config, device = trainer.config, trainer.accelerator.device
    batches = itertools.islice(trainer.recipe.dataset.batches(config.train_batch_size, seed=config.seed), count)
    seen = []
    for step, batch in enumerate(batches):
        batch = {name: values.to(device) for name, values in batch.items()}
        draw = Draw(config.seed, device).begin(step, range(config.train_batch_size))
        seen.append(given(trainer, batch, draw))
    return seen


# With a single image the innermost maps are too small for channels_last to pay.
JOBS = {
    "pix2pix, 256x256, batch 1": (build_pix2pix, {"ours": {}}),
    "DCGAN, 64x64, batch 64": (build_dcgan, {"ours": {}, "ours, channels_last": {"channels_last": True}}),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--bf16",
        action="store_true",
        help="Run our networks in bfloat16; the originals stay in float32, the only precision that they support.",
    )
    parser.add_argument(
        "--compile", action="store_true", help="Also with compiled networks: minutes of compiling first."
    )
    parser.add_argument("--only", choices=["pix2pix", "dcgan"])
    arguments = parser.parse_args()
    for title, (build, variants) in JOBS.items():
        if arguments.only is not None and not title.lower().startswith(arguments.only):
            continue
        with tempfile.TemporaryDirectory() as folder:
            trainer, original, given = build(Path(folder), arguments.bf16)
            if arguments.compile:
                variants = {**variants, "ours, compiled": {"compile": True}}
            trainers = {name: trainer(str(number), **variants[name]) for number, name in enumerate(variants)}
            first = trainers["ours"]
            ways = {"original": original(first, seen_batches(first, given, 16))}
            ways |= {name: OurSteps(own) for name, own in trainers.items()}
            medians = alternate(ways, arguments.rounds)
            report(f"{title}, ours in {'bfloat16' if arguments.bf16 else 'float32'}", medians, "original")
            for step in range(3):
                print(f"  losses of step {step + 1} (discriminator, generator):")
                for name, way in ways.items():
                    losses = way.losses[step]
                    print(f"    {name:<38} {losses['discriminator']:.6f}  {losses['generator']:.6f}")


if __name__ == "__main__":
    main()
