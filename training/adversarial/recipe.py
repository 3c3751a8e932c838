"""What the recipes of GANs that make images from noise have in common: the optimizers, the pipeline and the card."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from diffusers_ext.hub.card import trained_from
from diffusers_ext.pipelines import GANPipeline
from diffusers_ext.training.evaluation.sampled_recipe import SampledRecipe
from diffusers_ext.training.loop.configuration import TrainingConfig, option


class AdversarialRecipe(SampledRecipe):
    """A generator of images from noise, of which an average is sampled, against a discriminator.

    A subclass says what the two networks are and how they are trained.
    """

    def optimizer_options(self, name):
        rate = self.config.discriminator_learning_rate
        return {"learning_rate": rate} if name == "discriminator" and rate is not None else {}

    def averaged(self, names):
        return ("generator",)

    def pipeline(self, generator: nn.Module, discriminator: nn.Module) -> GANPipeline:
        """The pipeline that samples from the generator, with the discriminator for further training."""
        return GANPipeline(generator=generator, discriminator=discriminator, id2label=self.id2label)

    def with_all_weights(self, name: str, losses: torch.Tensor) -> torch.Tensor:
        """The same losses, with a gradient of zero instead of none for the weights of a network that they do not use.

        Several processes wait for the gradient of each weight.
        """
        return losses + 0 * torch.stack([weight.sum() for weight in self.network(name).parameters()]).sum()

    def description(self, method: str, *tags: str, call: str = "", base_model: str | None = None) -> dict:
        """What the card says.

        Args:
            method (`str`): what kind of GAN it is.
            tags (`str`): tags of the method.
            call (`str`): more arguments of the pipeline's call in the example.
            base_model (`str`, *optional*): the pipeline that the training began with.
        """
        kind, images = self.kind, "batch_size=4"
        if self.id2label is not None:
            images = f"class_labels={list(self.id2label.values())[:2]}, num_images_per_label=4"
        return {
            "task": f"{kind.capitalize()} image generation: {method}, {trained_from(base_model)}.",
            "usage": f"images = pipe({images}{call}).images",
            "base_model": base_model,
            "tags": [f"{kind}-image-generation", "gan", *tags],
        }


@dataclass
class AdversarialConfig(TrainingConfig):
    """The options of [`AdversarialRecipe`], and what is usual for the optimisers of GANs."""

    class_conditional: bool = option(False, help="Give the networks the class of the image.", group="network")
    discriminator_learning_rate: float | None = option(
        help="The discriminator's learning rate (TTUR, Heusel et al. 2017); by default --learning_rate.",
        group="optimisation",
    )
    lr_warmup_steps: int = option(0, help="Updates until the learning rate is reached.")
    adam_weight_decay: float = option(0.0, help="AdamW's weight decay.")
    max_grad_norm: float = option(0.0, help="Gradients are scaled down to this norm; 0 never scales.")

    def __post_init__(self):
        super().__post_init__()
        rate = self.discriminator_learning_rate
        self.require(rate is None or rate > 0, f"--discriminator_learning_rate must be positive, not {rate}")
