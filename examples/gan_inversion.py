"""Held-out digits in the latent space of a StyleGAN2: five ways to find them there, and edits towards a class.

    python examples/gan_inversion.py outputs/digits_stylegan2 outputs/digits_inversion_encoder

It prints two tables, and draws a picture. The perceptual distance is the formula of LPIPS on the blocks of the GAN's
own discriminator; the judge of classes is the feature extractor `digits`.
"""

import argparse
import time

import torch
from torch import nn

from diffusers_ext import GANInversionPipeline, GANPipeline
from diffusers_ext.data import load_image_dataset
from diffusers_ext.metrics import DeepFeatureDistance
from diffusers_ext.metrics.extractors import NetworkExtractor, load_feature_extractor
from diffusers_ext.training.adversarial.directions import class_directions
from diffusers_ext.training.evaluation.grids import sample_grid


STEPS = 200
METHODS = {
    "optimise W": {"space": "w", "num_optimization_steps": STEPS},
    "optimise W+": {"space": "w+", "num_optimization_steps": STEPS},
    "encoder": {"start": "encoder", "num_optimization_steps": 0},
    "hybrid": {"start": "encoder", "num_optimization_steps": STEPS // 2},
    "pivotal": {
        "space": "w",
        "num_optimization_steps": STEPS,
        "num_tuning_steps": STEPS // 2,
        "tuning_learning_rate": 3e-3,
    },
}
STRENGTHS = (2.0, 3.0, 4.0)
SHOWN = 12


class DiscriminatorFeatures(nn.Module):
    """The discriminator for bytes: its blocks are what is compared, and the class does not change them."""

    def __init__(self, discriminator: nn.Module):
        super().__init__()
        self.discriminator = discriminator

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        labels = torch.zeros(len(images), dtype=torch.int64) if hasattr(self.discriminator, "mapping") else None
        return self.discriminator(images.float() / 127.5 - 1, labels).logits[:, None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gan", help="The folder of a GANPipeline of digits.")
    parser.add_argument("encoder", help="The folder of a GANInversionPipeline with an encoder for it.")
    parser.add_argument("--num_images", type=int, default=100, help="How many held-out digits.")
    parser.add_argument("--picture", default="outputs/gan_inversion.png", help="The picture to write.")
    options = parser.parse_args()

    gan = GANPipeline.from_pretrained(options.gan)
    inversion = GANInversionPipeline.from_pretrained(options.encoder)
    inversion.set_progress_bar_config(disable=True)
    judge = load_feature_extractor("digits")
    features = NetworkExtractor(DiscriminatorFeatures(gan.discriminator), name="the blocks of the discriminator")
    perceptual = DeepFeatureDistance(features)
    digits = load_image_dataset(dataset_name="digits", split="test", resolution=(32, 32), channels=1)
    batch = next(iter(digits.reference_batches(options.num_images)))
    images, labels = batch["pixel_values"], batch["class_labels"]

    print("| method | mean squared error | perceptual distance | judged as before | CPU seconds |")
    print("|---|---|---|---|---|")
    found, rows = {}, [images]
    for name, arguments in METHODS.items():
        start = time.process_time()
        result = inversion(images, generator=torch.Generator().manual_seed(0), output_type="pt", **arguments)
        seconds = time.process_time() - start
        made = as_bytes(result.images)
        kept = (judge(made).logits.argmax(dim=1) == labels).float().mean()
        print(
            f"| {name} | {result.errors.mean():.5f} | {perceptual(made, images).mean():.3f} | {kept:.0%} "
            f"| {seconds:.0f} |",
            flush=True,
        )
        found[name] = result
        rows.append(made)

    directions, targets = class_directions(gan), (labels + 1) % 10
    print("\n| edited | strength | another digit | the digit asked for | perceptual distance from the inversion |")
    print("|---|---|---|---|---|")
    for name in ("optimise W", "hybrid"):
        before = as_bytes(found[name].images)
        for strength in STRENGTHS:
            edited = torch.empty_like(before)
            for digit in labels.unique().tolist():
                of_digit = labels == digit
                own, other = judge.id2label[digit], judge.id2label[(digit + 1) % 10]
                # Towards the class that is asked for, and away from the image's own.
                styles = gan.edit(directions, other, strength, styles=found[name].styles[of_digit]).styles
                moved = gan.edit(directions, own, -strength, styles=styles, output_type="pt")
                edited[of_digit] = as_bytes(moved.images)
            seen = judge(edited).logits.argmax(dim=1)
            print(
                f"| {name} | {strength:g} | {(seen != labels).float().mean():.0%} "
                f"| {(seen == targets).float().mean():.0%} | {perceptual(edited, before).mean():.3f} |",
                flush=True,
            )
        if name == "optimise W":
            rows.append(edited)
    titles = ["image", *METHODS, f"W, edited by {STRENGTHS[-1]:g}"]
    sample_grid(torch.cat([row[:SHOWN] for row in rows]), SHOWN, row_titles=titles).save(options.picture)


def as_bytes(images: torch.Tensor) -> torch.Tensor:
    return (images * 255).round().byte()


if __name__ == "__main__":
    main()
