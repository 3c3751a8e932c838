"""Train probabilistic PCA by gradient descent on the likelihood.

accelerate launch training/train_pca.py --config examples/digits_pca.yaml
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from dataclasses import dataclass

from torch.distributions import LowRankMultivariateNormal

from diffusers_ext.models.modeling_pca_generator import PCAGenerator
from diffusers_ext.pipelines import PCAPipeline
from diffusers_ext.training.evaluation.grids import class_grid
from diffusers_ext.training.evaluation.samples import SampleEvaluator
from diffusers_ext.training.loop.configuration import TrainingConfig, option
from diffusers_ext.training.loop.recipe import Recipe


class PCARecipe(Recipe):
    """Tipping and Bishop 1999, eq. 4: the images are normal with the covariance W W^T + sigma**2 I."""

    def networks(self):
        size, channels = self.config.size[0], self.config.channels
        return {"generator_model": PCAGenerator(size, channels, self.config.latent_dim)}

    def step(self, batch, draw):
        model = self.network("generator_model")
        variance = model.log_variance.exp().expand(len(model.decoder.bias))
        images = LowRankMultivariateNormal(model.decoder.bias, model.decoder.weight, variance)
        self.minimise("generator_model", -images.log_prob(batch["pixel_values"].flatten(1)))

    def pipeline(self, generator_model):
        return PCAPipeline(generator_model)

    # What stands around the algorithm

    def __init__(self, config: PCAConfig, context):
        super().__init__(config, context)
        self.evaluator = SampleEvaluator(
            self.dataset, split=config.dataset_split, device=context.device, **config.measured()
        )

    def sample_grid(self, generate):
        return class_grid(generate, None)

    def evaluate(self, generate):
        return [] if self.evaluator.extractor is None else [self.evaluator.measure_as_published(generate)]

    def describe(self):
        return {"task": "Unconditional image generation: probabilistic PCA.", "usage": "images = pipe(4).images"}


@dataclass
class PCAConfig(TrainingConfig):
    """The options of train_pca.py."""

    latent_dim: int = option(8, help="How many principal components there are.")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "latent_dim")


if __name__ == "__main__":
    run(PCARecipe, PCAConfig)
