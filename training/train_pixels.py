"""Train a network that predicts each pixel from those before it: PixelCNN, PixelCNN++ or a transformer.

    accelerate launch training/train_pixels.py --config examples/digits_pixelcnn.yaml

`--architecture` is the network: PixelCNN ("Pixel Recurrent Neural Networks", van den Oord et al. 2016), Gated PixelCNN
("Conditional Image Generation with PixelCNN Decoders", van den Oord et al. 2016), PixelCNN++ (Salimans et al. 2017) or
the transformer of Image GPT (Chen et al. 2020). All are trained by maximum likelihood, which they know exactly. The
result is an [`AutoregressivePipeline`].
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

import math
from dataclasses import dataclass
from typing import Literal

import torch

from diffusers_ext.likelihoods.exact_likelihood import exact_likelihood_row
from diffusers_ext.models import GatedPixelCNN, PixelCNN, PixelCNNPlusPlus, PixelTransformer
from diffusers_ext.pipelines import AutoregressivePipeline
from diffusers_ext.training.evaluation.sampled_recipe import ScoringRecipe
from diffusers_ext.training.loop.configuration import JSONObject, ValidationConfig, option
from diffusers_ext.training.loop.network_options import build_network


ARCHITECTURES = {
    "pixelcnn": PixelCNN,
    "gated_pixelcnn": GatedPixelCNN,
    "pixelcnn_pp": PixelCNNPlusPlus,
    "transformer": PixelTransformer,
}


class PixelRecipe(ScoringRecipe):
    """Van den Oord et al. 2016, eq. 1: the likelihood of an image is the product of those of its pixels in order."""

    def networks(self) -> dict[str, torch.nn.Module]:
        """The network, from images to the distributions of their pixels."""
        config = self.config
        decided = {
            "sample_size": config.size,
            "in_channels": config.channels,
            "num_levels": config.num_levels,
            "num_classes": self.num_classes,
        }

        def trial(model: torch.nn.Module) -> None:
            labels = None if self.num_classes is None else torch.zeros(2, dtype=torch.int64)
            model(torch.zeros(2, config.channels, *config.size), labels)

        model_class = ARCHITECTURES[config.architecture]
        return {"model": build_network(model_class, "--model", config.model, decided=decided, trial=trial)}

    def step(self, batch, draw):
        images = batch["pixel_values"]
        labels = None if self.num_classes is None else batch["class_labels"]
        parameters = self.model(images, labels).parameters
        log_probs = self.network("model").log_prob(parameters, images)  # of each pixel given those before it
        bits = -log_probs.flatten(1).sum(dim=1) / (images[0].numel() * math.log(2))
        self.minimise("model", bits)

    def pipeline(self, model: torch.nn.Module) -> AutoregressivePipeline:
        """The pipeline that draws images by the network, and measures their likelihood."""
        return AutoregressivePipeline(model, id2label=self.id2label)

    # What stands around the algorithm

    def score(self, pipeline, batches):
        """The exact likelihood of images."""
        return exact_likelihood_row(pipeline, batches, gather=self.context.gather_rows)

    def describe(self) -> dict:
        config, names, kind = self.config, self.id2label, self.kind
        if names is None:
            call, of_class = "batch_size=4", ""
        else:
            first = next(iter(names.values()))
            call, of_class = f"class_labels={first!r}, num_images_per_label=4", f", class_labels={first!r}"
        return {
            "task": f"{kind.capitalize()} image generation pixel by pixel, and the exact likelihood of images: "
            f"{ARCHITECTURES[config.architecture].__name__}, trained from random weights by maximum likelihood on "
            f"images of {config.num_levels} levels.",
            "usage": f"images = pipe({call}).images\nbits = pipe.bits_per_dim(images{of_class})",
            "tags": [f"{kind}-image-generation", "autoregressive", config.architecture],
        }


@dataclass
class PixelConfig(ValidationConfig):
    """The options of train_pixels.py."""

    architecture: Literal["pixelcnn", "gated_pixelcnn", "pixelcnn_pp", "transformer"] = option(
        "gated_pixelcnn",
        help="PixelCNN, the gated one, PixelCNN++ with a mixture of logistics, or the transformer of Image GPT.",
        group="network",
        essential=True,
    )
    model: JSONObject = option(
        JSONObject(),
        help="Arguments of PixelCNN, GatedPixelCNN, PixelCNNPlusPlus or PixelTransformer, as JSON or a YAML mapping.",
        group="network",
    )
    class_conditional: bool = option(False, help="Give the network the class of the image.")
    num_levels: int = option(
        256,
        help="How many values a channel has; images are rounded to them. Fewer are faster to learn; digits have 17.",
    )

    learning_rate: float = option(1e-3, help="The learning rate after the warm-up.")
    lr_warmup_steps: int = option(0, help="Updates until the learning rate is reached.")
    adam_weight_decay: float = option(0.0, help="AdamW's weight decay.")
    ema_decay: float = option(0.999, help="The decay of the weights' average.")
    train_batch_size: int = option(64, help="Images per process and step.")

    def __post_init__(self):
        super().__post_init__()
        self.require(2 <= self.num_levels <= 256, f"--num_levels must be from 2 to 256, not {self.num_levels}")


if __name__ == "__main__":
    run(PixelRecipe, PixelConfig)
