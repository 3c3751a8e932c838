"""Mode collapse made visible, and cured: the plain GAN beside MSGAN, WGAN-GP and R1, on eight Gaussians and on digits.

    python examples/mode_collapse.py --output_dir outputs/mode_collapse

A generator that fools its discriminator with a few images has no need to make others. Points on a ring show this at a
glance; on handwritten digits (scikit-learn's) a classifier counts the classes. The table and the picture take a few
minutes on two CPU cores. Generators of points are trained with the losses alone, in `play`; generators of digits are
trained by the recipe of training/train_gan.py.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from diffusers_ext import GANPipeline, MLPDiscriminator, MLPGenerator, losses
from diffusers_ext.atomic import write_text_atomically
from diffusers_ext.metrics import class_coverage, load_feature_extractor
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.loop.accelerator import build_accelerator
from diffusers_ext.training.loop.context import TrainingContext
from diffusers_ext.training.loop.ema import EMA
from diffusers_ext.training.loop.outputs import save_image
from diffusers_ext.training.loop.trainer import Trainer
from diffusers_ext.training.train_gan import GANConfig, GANRecipe


# The options of train_gan.py that a method adds to the plain GAN: for the points, and for the digits.
METHODS = {
    "plain": ({}, {}),
    "MSGAN": ({"mode_seeking": 0.01}, {"mode_seeking": 0.1}),
    "WGAN-GP": (
        {"loss": "wasserstein", "gradient_penalty": 1.0, "discriminator_steps": 3},
        {"loss": "wasserstein", "gradient_penalty": 10.0, "discriminator_steps": 3},
    ),
    "R1": ({"r1": 0.1}, {"r1": 1.0}),
}
EMA_DECAY = 0.99
RADIUS, STD = 0.8, 0.02
CELL = 256  # pixels of a picture of the points


def draw_points(count: int) -> torch.Tensor:
    """Eight Gaussians on a ring, as images of one pixel with two channels: (count, 2, 1, 1)."""
    angles = torch.randint(8, (count,)) * (math.pi / 4)
    points = RADIUS * torch.stack([angles.cos(), angles.sin()], dim=1) + STD * torch.randn(count, 2)
    return points[:, :, None, None]


def play(
    steps: int,
    loss: str = "nonsaturating",
    gradient_penalty: float = 0.0,
    r1: float = 0.0,
    mode_seeking: float = 0.0,
    discriminator_steps: int = 1,
    latent_dim: int = 16,
    batch_size: int = 128,
) -> torch.Tensor:
    """Train a generator with these losses: 2000 points (2000, 2) from the average of its weights."""
    torch.manual_seed(0)
    generator = MLPGenerator(1, 2, latent_dim, hidden_dims=(128, 128))
    discriminator = MLPDiscriminator(1, 2, hidden_dims=(128, 128))
    average = EMA(generator, EMA_DECAY)
    for_generator = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.9))
    for_discriminator = torch.optim.Adam(discriminator.parameters(), lr=1e-3, betas=(0.5, 0.9))

    def judge(points: torch.Tensor) -> torch.Tensor:
        return discriminator(points).logits

    def update(optimizer: torch.optim.Optimizer, values: torch.Tensor) -> None:
        optimizer.zero_grad()
        values.mean().backward()
        optimizer.step()

    for step in range(steps):
        for _ in range(discriminator_steps):
            real = draw_points(batch_size).requires_grad_(r1 > 0)
            with torch.no_grad():
                fake = generator(torch.randn(batch_size, latent_dim)).sample
            on_real = judge(real)
            values = losses.discriminator_loss(loss, on_real, judge(fake))
            if gradient_penalty > 0:
                penalty = losses.gradient_penalty(judge, real, fake, torch.rand(batch_size))
                values = values + gradient_penalty * penalty
            if r1 > 0:
                values = values + r1 * losses.r1_penalty(on_real, real)
            update(for_discriminator, values)

        latents = torch.randn(batch_size, latent_dim)
        points = generator(latents).sample
        values = losses.generator_loss(loss, judge(points))
        if mode_seeking > 0:
            others = torch.randn(batch_size, latent_dim)
            pairs = (points, generator(others).sample), (latents, others)
            values = values + mode_seeking * losses.mode_seeking_loss(*pairs)
        update(for_generator, values)
        average.update(step + 1)

    with average.applied(), torch.no_grad():
        return generator(torch.randn(2000, latent_dim)).sample.flatten(1)


def point_coverage(points: torch.Tensor) -> dict[str, float]:
    """The measures of `class_coverage` for points, which are recognised within four standard deviations of a mode."""
    angles = torch.arange(8) * (math.pi / 4)
    centres = RADIUS * torch.stack([angles.cos(), angles.sin()], dim=1)
    distances, nearest = torch.cdist(points, centres).min(dim=1)
    recognised = distances < 4 * STD
    counts = torch.bincount(nearest[recognised], minlength=8)
    return {
        "covered": int((counts >= len(points) / 8 / 10).sum()),
        "recognised": recognised.float().mean().item(),
    }


def draw_picture(points: torch.Tensor) -> Image.Image:
    picture = Image.new("RGB", (CELL, CELL), "white")
    draw = ImageDraw.Draw(picture)
    for cloud, color in ((draw_points(500).flatten(1), "#bbbbbb"), (points[:500], "#cc3311")):
        for x, y in ((cloud + 1) / 2 * CELL).tolist():
            draw.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=color)
    return picture


def train_digits(output_dir: Path, steps: int, **options) -> torch.Tensor:
    """Train an unconditional GAN of dense layers on digits: 1000 of its images, uint8 (1000, 1, 8, 8)."""
    config = GANConfig(
        dataset_name="digits",
        resolution=[8],
        channels=1,
        architecture="mlp",
        generator={"latent_dim": 16, "hidden_dims": [128, 128]},
        discriminator={"hidden_dims": [128, 128]},
        learning_rate=1e-3,
        adam_beta2=0.9,
        ema_decay=EMA_DECAY,
        max_train_steps=steps * options.get("discriminator_steps", 1),
        checkpointing_steps=10**6,
        logging_steps=50,
        output_dir=str(output_dir),
        **options,
    )
    accelerator = build_accelerator()
    Trainer(GANRecipe(config, TrainingContext(accelerator)), accelerator).train()
    pipe = GANPipeline.from_pretrained(output_dir)
    images = pipe(batch_size=1000, generator=torch.Generator().manual_seed(0), output_type="pt").images
    return images.mul(255).round().byte()


def digit_coverage(images: torch.Tensor, judge) -> dict[str, float]:
    coverage = class_coverage(judge(images).logits)
    return {"covered": int(coverage["classes_covered"]), "recognised": coverage["recognised"]}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/mode_collapse"))
    parser.add_argument("--point_steps", type=int, default=1500, help="updates of each generator of points")
    parser.add_argument("--digit_steps", type=int, default=600, help="updates of each generator of digits")
    args = parser.parse_args(arguments)
    judge = load_feature_extractor("digits")

    rows, clouds, grids = {}, [], []
    for method, (for_points, for_digits) in METHODS.items():
        points = play(args.point_steps, **for_points)
        digits = train_digits(args.output_dir / method, args.digit_steps, **for_digits)
        rows[method] = {"points": point_coverage(points), "digits": digit_coverage(digits, judge)}
        clouds.append(draw_picture(points))
        grids.append(sample_grid(digits[:64], columns=8).resize((CELL, CELL), Image.Resampling.BICUBIC))

    write_text_atomically(args.output_dir / "coverage.json", json.dumps(rows, indent=2) + "\n")
    pictures = torch.from_numpy(np.stack([np.asarray(picture) for picture in clouds + grids])).permute(0, 3, 1, 2)
    save_image(sample_grid(pictures, len(METHODS), list(METHODS)), args.output_dir / "mode_collapse.png")
    print("| method | modes of 8 | points near a mode | classes of 10 | digits recognised |\n|---|---|---|---|---|")
    for method, row in rows.items():
        cells = [f"{row[kind]['covered']} | {row[kind]['recognised']:.1%}" for kind in ("points", "digits")]
        print(f"| {method} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
