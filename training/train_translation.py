"""Train a generative adversarial network that translates images: pix2pix from pairs, CycleGAN and DualGAN without.

    accelerate launch training/train_translation.py --config examples/digits_pix2pix.yaml

Isola et al. (2017), Zhu et al. (2017) and Yi et al. (2017). Domain A is translated to domain B. Pairs are images with
a conditioning image (A, in `--conditioning_image_column`, or with the same name in `--conditioning_image_dir`), files
with A and B side by side (`--side_by_side`), or images whose inputs are made from them (`--inputs edges`). Domains
without pairs are two classes of a data set (`--domains horse zebra`), the folders `trainA` and `trainB` in one folder,
or two data sets (`--target_data_dir`, `--target_dataset_name`, `--target_split`). The result is an
[`ImageTranslationPipeline`].
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

import torch

from diffusers_ext.losses import cycle_loss, identity_loss, l1_loss
from diffusers_ext.training.translation.translation_recipe import TranslationConfig, TranslationRecipe


class Pix2PixRecipe(TranslationRecipe):
    """Isola et al. 2017, eq. 4: a generator from A to B, near to the truth, against a discriminator of pairs."""

    generator_names = ("generator",)
    discriminator_names = ("discriminator",)

    def step(self, batch, draw):
        images, target = self.domains(batch, draw)
        is_generators_turn = self.is_generators_turn(draw)
        with torch.set_grad_enabled(is_generators_turn):
            output = self.generator(images).sample

        real, fake = self.judged(images, target), self.judged(images, output)
        self.improve_discriminator("discriminator", real, fake, draw)
        if is_generators_turn:
            losses = self.distances(output, target) + self.adversarial_losses("discriminator", fake)
            self.minimise("generator", losses)

    def judged(self, images: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        """What the discriminator sees: an output, and beside it the input if `--conditional_discriminator` is set."""
        return torch.cat([images, outputs], dim=1) if self.judges_pairs else outputs

    def distances(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The weighted distances to the truth, of shape (N,)."""
        l1 = l1_loss(output, target)
        self.log(l1=l1)
        losses = self.config.l1_weight * l1
        if self.config.perceptual_weight > 0:
            perceptual = self.perceptual_loss(output, target)
            self.log(perceptual=perceptual)
            losses = losses + self.config.perceptual_weight * perceptual
        return losses

    # What stands around the algorithm

    def __init__(self, config: TranslationConfig, context):
        super().__init__(config, context)
        self.judges_pairs = config.conditional_discriminator
        self.perceptual_loss = config.load_perceptual_loss(context.device, (config.channels, *config.size))


class CycleGANRecipe(TranslationRecipe):
    """Zhu et al. 2017, eq. 3: G from A to B and F from B to A, such that F(G(x)) is x and G(F(y)) is y.

    It also trains DualGAN (Yi et al. 2017, algorithm 1), which is the same with a Wasserstein loss.
    """

    generator_names = ("generator", "reverse_generator")
    discriminator_names = ("discriminator", "reverse_discriminator")

    def step(self, batch, draw):
        first, second = self.domains(batch, draw)  # x of A, y of B
        is_generators_turn = self.is_generators_turn(draw)
        with torch.set_grad_enabled(is_generators_turn):
            to_second, to_first = self.generator(first).sample, self.reverse_generator(second).sample

        if is_generators_turn:
            losses = self.adversarial_losses("discriminator", to_second)
            losses = losses + self.adversarial_losses("reverse_discriminator", to_first)
            losses = losses + self.cycle_losses(first, second, to_first, to_second)
            self.minimise(("generator", "reverse_generator"), losses)
        self.improve_discriminator("discriminator", second, to_second, draw)
        self.improve_discriminator("reverse_discriminator", first, to_first, draw)

    def cycle_losses(self, first, second, to_first, to_second) -> torch.Tensor:
        """The weighted errors of x and y after a translation there and back, and of the identity: of shape (N,)."""
        config = self.config
        back_first, back_second = self.reverse_generator(to_second).sample, self.generator(to_first).sample
        cycle = cycle_loss(first, back_first, second, back_second)
        self.log(cycle=cycle)
        losses = config.cycle_weight * cycle
        if config.identity_weight > 0:
            kept_first, kept_second = self.reverse_generator(first).sample, self.generator(second).sample
            identity = identity_loss(first, kept_first, second, kept_second)
            self.log(identity=identity)
            losses = losses + config.identity_weight * identity
        return losses


def translation_recipe(config: TranslationConfig, context) -> TranslationRecipe:
    """The recipe of `--method`."""
    recipe_class = Pix2PixRecipe if config.method == "pix2pix" else CycleGANRecipe
    return recipe_class(config, context)


if __name__ == "__main__":
    run(translation_recipe, TranslationConfig)
