"""Train a network that recovers the light of overexposed photographs: high dynamic range (HDR) from one exposure.

    accelerate launch training/train_hdr.py --config examples/photos_hdr.yaml

As HDRCNN (Eilertsen et al. 2017, https://huggingface.co/papers/1710.07480), a network learns what is above the white
of an image, from photographs that are overexposed by a random factor, with the mu-law loss of Kalantari and
Ramamoorthi 2017. The light of a photograph is its value to the power of 2.2. The result is a [`RestorationPipeline`]
with a `peak`.
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from diffusers_ext.losses import l1_loss
from diffusers_ext.pipelines import RestorationPipeline
from diffusers_ext.pipelines.light import GAMMA, compress_light
from diffusers_ext.training.loop.configuration import JSONObject, ValidationConfig, option
from diffusers_ext.training.loop.recipe import Recipe
from diffusers_ext.training.restoration.exposures import ExposureEvaluator, overexpose
from diffusers_ext.training.restoration.one_pass_networks import build_restorer


class HDRRecipe(Recipe):
    """A generator of light, near to the truth in the mu-law (Kalantari and Ramamoorthi 2017, eq. 5 and 6)."""

    def networks(self) -> dict[str, nn.Module]:
        config = self.config
        generator = build_restorer(config.generator, config.generator_options, 1, config.size, config.channels)
        return {"generator": generator}

    def step(self, batch, draw):
        low, high = self.config.exposure_range
        light, shown = overexpose(batch["pixel_values"], low + (high - low) * draw.uniform())
        output = self.generator(compress_light(shown**GAMMA, self.peak)).sample
        self.minimise("generator", l1_loss(output, compress_light(light, self.peak)))

    def pipeline(self, generator: nn.Module) -> RestorationPipeline:
        return RestorationPipeline(generator, peak=self.peak)

    # What stands around the algorithm

    def __init__(self, config: HDRConfig, context):
        super().__init__(config, context)
        self.peak = 2.0 ** config.exposure_range[1]
        self.evaluator = ExposureEvaluator(
            config.load_validation_dataset(self.dataset),
            context,
            stops=config.exposure_range,
            split=config.validation_split or config.dataset_split,
            seed=config.seed,
            metrics=config.metrics,
            num_samples=config.num_evaluation_samples,
            batch_size=config.evaluation_batch_size,
        )

    def before_training(self) -> None:
        super().before_training()
        self.evaluator.dataset.prepare()

    def identity(self) -> dict:
        return {"exposure_range": list(self.config.exposure_range)}

    def sample_grid(self, generate):
        """Overexposed photographs, the same less exposed, restorations, and the truth."""
        return self.evaluator.panel(generate)

    def evaluate(self, generate):
        """Two rows, the overexposed photographs and their restorations; nothing without `--metrics`."""
        return self.evaluator(generate)

    def describe(self) -> dict:
        low, high = self.config.exposure_range
        return {
            "task": "The light of overexposed images, up to "
            f"{self.peak:g} times their white (HDR from one exposure, trained on {low:g} to {high:g} stops).",
            "usage": 'light = pipe(image, tile_size=256, output_type="np").images[0]',
            "tags": ["image-to-image", "restoration", "hdr"],
        }


@dataclass
class HDRConfig(ValidationConfig):
    """The options of train_hdr.py."""

    stops: list[float] = option(
        [0.5, 3.0],
        help="By how many factors of 2 photographs are overexposed: the least and the most, of which one is drawn. "
        "The pipeline makes light of up to 2^most times white.",
        essential=True,
    )
    generator: Literal["danet", "msrresnet", "srresnet"] = option(
        "danet", help="DANet's U-Net, or one of two residual networks, which see less around a pixel.", group="network"
    )
    generator_options: JSONObject = option(
        JSONObject(), help="Arguments of its class, as JSON or a YAML mapping: {base_channels: 24}.", group="network"
    )

    def __post_init__(self):
        super().__post_init__()
        self.require(
            len(self.stops) == 2 and 0 <= self.stops[0] <= self.stops[1] <= 16 and self.stops[1] > 0,
            f"--stops must be two numbers from 0 to 16, the least and the most, not {self.stops}",
        )
        self.require(self.channels in (1, 3), f"--channels must be 1 or 3 for light, not {self.channels}")
        self.require_default(False, ("feature_extractor",), "is for other recipes: light has measures of its own")

    @property
    def exposure_range(self) -> tuple[float, float]:
        """The least and the most overexposure, in stops."""
        return self.stops[0], self.stops[1]

    @property
    def known_metrics(self) -> Sequence[str]:
        return "log_error", "psnr_mu"


if __name__ == "__main__":
    run(HDRRecipe, HDRConfig)
