"""Fit a density to images: a Gaussian, a mixture of Gaussians, kernels, or probabilistic PCA.

    accelerate launch training/train_density.py --config examples/digits_density.yaml

`--density` says which. All are fitted by maximum likelihood, in a single step that takes all images at once; there are
no gradients. With `--vae` it is the density of the latents of an autoencoder: a prior fitted after the training. The
result is a [`DensityPipeline`].
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

import math
from dataclasses import dataclass, fields
from typing import Literal

import torch

from diffusers_ext.data.randomness import derive_seed
from diffusers_ext.likelihoods import dequantized_likelihood_row
from diffusers_ext.models import GaussianMixtureModel, KernelDensityModel
from diffusers_ext.pipelines import DensityPipeline
from diffusers_ext.training.density.fitting import fit_classes, fit_kernels, fit_mixture, fit_pca
from diffusers_ext.training.density.spaces import latent_shape
from diffusers_ext.training.diffusion.latents import load_autoencoder
from diffusers_ext.training.evaluation.outliers import outlier_row
from diffusers_ext.training.evaluation.sampled_recipe import ScoringRecipe
from diffusers_ext.training.loop.configuration import OptimisationConfig, ValidationConfig, option
from diffusers_ext.training.loop.weights import weights_fingerprint


class DensityRecipe(ScoringRecipe):
    """The parameters under which the images are most likely."""

    takes_all_images = True

    def networks(self) -> dict[str, torch.nn.Module]:
        """The density, of images or of their latents."""
        config = self.config
        shape = (config.channels, *config.size) if self.vae is None else latent_shape(self.vae, config)
        if config.density == "pca" and config.num_components >= math.prod(shape):
            raise ValueError(
                f"--num_components must be below {math.prod(shape)}, the values of an image or of its latents, not "
                f"{config.num_components}."
            )
        if config.density == "kernel":
            return {"model": KernelDensityModel(shape, self.dataset.num_examples, self.num_classes)}
        kinds = {
            "gaussian": {"covariance": config.covariance},
            "mixture": {"covariance": config.covariance, "num_components": config.num_components},
            "pca": {"covariance": "low_rank", "rank": config.num_components},
        }
        return {"model": GaussianMixtureModel(shape, num_classes=self.num_classes, **kinds[config.density])}

    def step(self, batch, draw):
        points, labels = self.all_points()
        config, classes = self.config, (labels, self.num_classes)
        fit = {"regularisation": config.regularisation, "seed": config.seed}
        if config.density == "kernel":
            state = fit_kernels(points, labels, bandwidth=config.bandwidth, seed=config.seed)
        elif config.density == "pca":
            state = fit_classes(fit_pca, points, *classes, rank=config.num_components, **fit)
        else:
            number = config.num_components if config.density == "mixture" else 1
            fit |= {"num_components": number, "covariance": config.covariance}
            state = fit_classes(fit_mixture, points, *classes, **fit)
        self.network("model").load_state_dict(state)

    def all_points(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """All images of all processes, dequantized or encoded, as rows (N, D) on the CPU, and their classes (N,)."""
        config, context = self.config, self.context
        pipeline = self.pipeline(self.network("model"))
        points, labels, index = [], [], context.process_index
        for batch in self.dataset.reference_batches(config.evaluation_batch_size, **context.share):
            images, noise = batch["pixel_values"], []
            for image in images:  # the place of an image in its cells depends on its index alone
                generator = torch.Generator().manual_seed(derive_seed(config.seed, "dequantization", index))
                noise.append(torch.rand(image.shape, generator=generator))
                index += context.num_processes
            with torch.no_grad():
                points.append(pipeline.encode(images, torch.stack(noise).to(context.device)).flatten(1))
            labels.append(batch.get("class_labels"))
        points = context.gather_rows(points)
        return points, None if self.num_classes is None else context.gather_rows(labels)

    def pipeline(self, model: torch.nn.Module) -> DensityPipeline:
        """The pipeline that draws images from the density, and measures their likelihood."""
        return DensityPipeline(model, self.vae, num_levels=self.config.num_levels, id2label=self.id2label)

    # What stands around the algorithm

    def __init__(self, config: DensityConfig, context):
        super().__init__(config, context)
        context.refuse_sharding("train_density.py")
        if config.density == "kernel" and self.dataset.num_examples is None:
            raise ValueError("--density kernel keeps all images, whose number is unknown with --streaming.")
        self.vae = load_autoencoder(config.vae, config.cache_dir)
        if self.vae is not None:
            self.vae.requires_grad_(False).eval()

    def before_training(self) -> None:
        super().before_training()
        if self.vae is not None:
            self.vae.to(self.context.device)

    def identity(self) -> dict:
        return {
            "density": self.config.density,
            "num_levels": self.config.num_levels,
            "vae": None if self.vae is None else weights_fingerprint(self.vae),
        }

    def score(self, pipeline, batches):
        """How likely images are, and how strange ones beside them; with classes, how often Bayes' rule is right."""
        gather, batches = self.context.gather_rows, list(batches)
        row = outlier_row(
            lambda images: -pipeline.log_likelihood(images), "negative_log_likelihood", batches, gather=gather
        )
        if self.vae is None:
            bits = dequantized_likelihood_row(
                pipeline, batches, seed=self.config.seed, gather=gather, **self.context.share
            )
            row = {**bits, **row, "provenance": {**row["provenance"], **bits["provenance"]}}
        if self.num_classes is not None:
            right = [pipeline.classify(b["pixel_values"]).argmax(dim=1) == b["class_labels"] for b in batches]
            row["bayes_accuracy"] = gather(right).double().mean().item()
        return row

    def describe(self) -> dict:
        names, kind = self.id2label, self.kind
        call = (
            "batch_size=4" if names is None else f"class_labels={next(iter(names.values()))!r}, num_images_per_label=4"
        )
        space = "pixels" if self.vae is None else f"the latents of its {type(self.vae).__name__}"
        likelihood = "bits = pipe.bits_per_dim(images)" if self.vae is None else "nats = pipe.log_likelihood(images)"
        classified = "" if names is None else "\nprobabilities = pipe.classify(images)"
        return {
            "task": f"{kind.capitalize()} image generation, and the likelihood of images: "
            f"{DENSITIES[self.config.density]} of {space}, fitted by maximum likelihood.",
            "usage": f"images = pipe({call}).images\n{likelihood}{classified}",
            "tags": [f"{kind}-image-generation", "density-estimation", self.config.density],
        }


DENSITIES = {
    "gaussian": "a Gaussian density",
    "mixture": "a mixture of Gaussians",
    "kernel": "a kernel density",
    "pca": "probabilistic PCA",
}


@dataclass
class DensityConfig(ValidationConfig):
    """The options of train_density.py."""

    density: Literal["gaussian", "mixture", "kernel", "pca"] = option(
        "gaussian",
        help="A Gaussian, a mixture of Gaussians, a Gaussian around each image, or probabilistic PCA.",
        group="network",
        essential=True,
    )
    covariance: Literal["full", "diagonal"] = option(
        "full", help="gaussian, mixture: whether values of one Gaussian depend on each other.", group="network"
    )
    num_components: int = option(
        10, help="mixture: how many Gaussians (of each class); pca: how many principal components.", group="network"
    )
    bandwidth: float | None = option(
        help="kernel: the standard deviation of the Gaussians, of values in [-1, 1]; by default that under which "
        "images are most likely given the others.",
        group="network",
    )
    regularisation: float = option(
        1e-3, help="A variance that is added to each value, which is in [-1, 1]; not for --density kernel."
    )
    class_conditional: bool = option(False, help="Fit a density to each class, which makes it a classifier, too.")
    vae: str | None = option(
        help="Fit the latents of this autoencoder: a folder or a Hub name of a model, or of a pipeline that has one.",
        group="network",
    )
    num_levels: int = option(
        256, help="How many values a channel has; images are rounded to them. scikit-learn's digits have 17."
    )

    max_train_steps: int | None = option(1, help="A density is fitted in one step.")
    train_batch_size: int = option(1, help="A density is fitted to all images at once.")
    use_ema: bool = option(False, help="A density has no history to be averaged.")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "num_components")
        self.require_at_least(0, "regularisation")
        self.require(2 <= self.num_levels <= 256, f"--num_levels must be from 2 to 256, not {self.num_levels}")
        self.require(
            self.bandwidth is None or self.bandwidth > 0, f"--bandwidth must be positive, not {self.bandwidth}"
        )
        for name, densities in {
            "covariance": ("gaussian", "mixture"),
            "num_components": ("mixture", "pca"),
            "bandwidth": ("kernel",),
            "regularisation": ("gaussian", "mixture", "pca"),
        }.items():
            self.require_default(
                self.density in densities, (name,), f"is for --density {' or '.join(densities)}, not {self.density}"
            )
        self.require_default(self.vae is None, ("num_levels",), "is for pixels, not for the latents of --vae")
        by_gradients = [field.name for field in fields(OptimisationConfig) if field.name != "seed"]
        self.require_default(False, by_gradients, "has no effect: a density is fitted in one step, without gradients")
        augmentations = ("random_flip", "load_size")
        self.require_default(False, augmentations, "has no effect: a density is fitted to the images as they are")


if __name__ == "__main__":
    run(DensityRecipe, DensityConfig)
