"""Held-out digits that are edited in the latent space of a StyleGAN2, digits from prompts, and restored digits.

    python examples/gan_edits.py outputs/digits_stylegan2 outputs/digits_inversion_encoder outputs/digits_clip

It prints three tables, and draws a picture. Directions, the GAN, the encoder, the CLIP and the judge, the feature
extractor `digits`, know the training half of the digits only. The perceptual distance is that of gan_inversion.py.
"""

import argparse
import time

import torch
from gan_inversion import METHODS, DiscriminatorFeatures, as_bytes  # beside this file
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

from diffusers_ext import GANInversionPipeline, GANPipeline
from diffusers_ext.data import load_image_dataset
from diffusers_ext.metrics import DeepFeatureDistance
from diffusers_ext.metrics.extractors import NetworkExtractor, load_feature_extractor
from diffusers_ext.pipelines import StyleCLIPPipeline
from diffusers_ext.pipelines.degradations import AntiquePhoto, CameraResponse, Downsample, GaussianBlur
from diffusers_ext.training.adversarial.directions import class_directions, mean_directions
from diffusers_ext.training.evaluation.grids import sample_grid


INVERSIONS = ("hybrid", "pivotal")
DIRECTION_EDITS = (("classes", 4.0), ("classes", 6.0), ("means", 1.0), ("means", 1.5))
CLIP_EDITS = {
    "StyleCLIP": {"num_optimization_steps": 80},
    "CLIP in w": {"num_optimization_steps": 80, "space": "w", "latent_weight": 0.0, "num_cutouts": 4},
}
NEAR = {"space": "w", "latent_weight": 0.01, "num_cutouts": 2}
AFTER_MEANS = {"num_optimization_steps": 40, **NEAR}
PROMPTED = {
    "the best of 8 random digits": {"num_optimization_steps": 0},
    "optimised from 1": {"num_candidates": 1, "num_optimization_steps": 80, "num_cutouts": 4},
    "the best of 4, optimised": {"num_candidates": 4, "num_optimization_steps": 80, "num_cutouts": 4},
    "the best of 8, optimised, near the start": {"num_optimization_steps": 30, **NEAR},
}
SHOWN = 12


class Measure:
    """Edits of images towards the next digit: how many succeed, and how far they are from the inversion."""

    def __init__(self, judge, perceptual, labels: torch.Tensor):
        self.judge, self.perceptual, self.labels = judge, perceptual, labels
        self.targets = (labels + 1) % 10

    def __call__(self, inversion: str, edit: str, before: torch.Tensor, edited: torch.Tensor, start: float) -> None:
        seen = self.judge(edited).logits.argmax(dim=1)
        print(
            f"| {inversion} | {edit} | {(seen != self.labels).float().mean():.0%} "
            f"| {(seen == self.targets).float().mean():.0%} | {self.perceptual(edited, before).mean():.2f} "
            f"| {time.process_time() - start:.0f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gan", help="The folder of a GANPipeline of digits.")
    parser.add_argument("encoder", help="The folder of a GANInversionPipeline with an encoder for it.")
    parser.add_argument("clip", help="The folder of a CLIP of digits and their names.")
    parser.add_argument("--num_images", type=int, default=100, help="How many held-out digits.")
    parser.add_argument("--picture", default="outputs/gan_edits.png", help="The picture to write.")
    options = parser.parse_args()

    gan = GANPipeline.from_pretrained(options.gan)
    inversion = GANInversionPipeline.from_pretrained(options.encoder)
    clip = CLIPModel.from_pretrained(options.clip)
    parts = AutoTokenizer.from_pretrained(options.clip), CLIPImageProcessor.from_pretrained(options.clip)
    judge = load_feature_extractor("digits")
    features = NetworkExtractor(DiscriminatorFeatures(gan.discriminator), name="the blocks of the discriminator")
    digits = load_image_dataset(dataset_name="digits", split="test", resolution=(32, 32), channels=1)
    batch = next(iter(digits.reference_batches(options.num_images)))
    images, labels = batch["pixel_values"], batch["class_labels"]
    measure = Measure(judge, DeepFeatureDistance(features), labels)
    inversion.set_progress_bar_config(disable=True)
    names, rows, titles = judge.id2label, [images], ["held out"]

    print("| inverted by | edited by | another digit | the one asked for | perceptual distance | CPU seconds |")
    print("|---|---|---|---|---|---|")
    found_by = {"classes": class_directions(gan), "means": mean_directions(gan)}
    for name in INVERSIONS:
        found = inversion(images, generator=seeded(), output_type="pt", **METHODS[name])
        editor = GANPipeline(found.generator or gan.generator)
        before, seconds = as_bytes(found.images), time.process_time()
        for kind, strength in DIRECTION_EDITS:
            styles, edited = edit_by(editor, found_by[kind], strength, found.styles, labels, names)
            measure(name, f"{kind}, {strength:g}", before, edited, seconds)
            if (kind, strength) == ("means", 1.0):
                among_others, by_means = styles, edited
            seconds = time.process_time()
        writer = quiet(StyleCLIPPipeline(editor.generator, clip, *parts))
        prompts = [names[target] for target in measure.targets.tolist()]
        edits = [(text, found.styles, arguments) for text, arguments in CLIP_EDITS.items()]
        for text, styles, arguments in [*edits, ("means, 1, then CLIP in w", among_others, AFTER_MEANS)]:
            edited = as_bytes(writer(prompts, styles=styles, output_type="pt", **arguments).images)
            measure(name, text, before, edited, seconds)
            seconds = time.process_time()
        if name == "hybrid":
            rows, titles = [*rows, by_means, edited], [*titles, "hybrid, means", "hybrid, means, CLIP"]

    print("\n| from a prompt | the one asked for | CPU seconds |\n|---|---|---|")
    writer, prompts = quiet(StyleCLIPPipeline(gan.generator, clip, *parts)), [names[digit] for digit in range(10)]
    for text, arguments in PROMPTED.items():
        start = time.process_time()
        made = [as_bytes(writer(prompts, generator=seeded(i), output_type="pt", **arguments).images) for i in (0, 1)]
        seen = judge(torch.cat(made)).logits.argmax(dim=1)
        share = (seen == torch.arange(10).repeat(2)).float().mean()
        print(f"| {text} | {share:.0%} | {time.process_time() - start:.0f} |", flush=True)
    rows, titles = [*rows, torch.cat([made[0], images.new_zeros(2, 1, 32, 32)])], [*titles, "zero ... nine"]

    print("\n| degraded digits | error of pixels | judged as before | CPU seconds |\n|---|---|---|---|")
    damage = torch.nn.Sequential(GaussianBlur(2.0), Downsample(8), CameraResponse())
    with torch.no_grad():
        damage[-1].gain.fill_(0.6)
        photos = (damage(images / 127.5 - 1) / 2 + 0.5).clamp(0, 1)
    enlarged = torch.nn.functional.interpolate(photos, (32, 32), mode="bicubic").clamp(0, 1)
    start = time.process_time()
    restored = inversion(
        photos,
        space="w",
        num_optimization_steps=200,
        degradation=AntiquePhoto(blur=2.0, size=8, num_images=len(images)),
        generator=seeded(),
        output_type="pt",
    )
    for text, shown in (("enlarged (bicubic)", enlarged), ("restored in W", restored.images)):
        kept = (judge(as_bytes(shown)).logits.argmax(dim=1) == labels).float().mean()
        error = (shown - images / 255).square().mean()
        print(f"| {text} | {error:.4f} | {kept:.0%} | {time.process_time() - start:.0f} |", flush=True)
        rows, titles = [*rows, as_bytes(shown)], [*titles, text]
    sample_grid(torch.cat([row[:SHOWN] for row in rows]), SHOWN, row_titles=titles).save(options.picture)


def edit_by(
    pipe: GANPipeline, directions, strength: float, styles, labels, names
) -> tuple[torch.Tensor, torch.Tensor]:
    """Styles that are moved towards the next digit, and as far away from their own, and their images, as bytes."""
    edited, new_styles = torch.empty(len(styles), *pipe.image_shape, dtype=torch.uint8), torch.empty_like(styles)
    for digit in labels.unique().tolist():
        of_digit = labels == digit
        moved = pipe.edit(directions, names[(digit + 1) % 10], strength, styles=styles[of_digit]).styles
        moved = pipe.edit(directions, names[digit], -strength, styles=moved, output_type="pt")
        edited[of_digit], new_styles[of_digit] = as_bytes(moved.images), moved.styles
    return new_styles, edited


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


if __name__ == "__main__":
    main()
