"""Train a denoiser together with a generator of noise: DANet.

    accelerate launch training/train_danet.py --config examples/photos_danet.yaml --train_data_dir ~/photos

"Dual Adversarial Network: Toward Real-world Noise Removal and Noise Generation" (Yue et al. 2020,
https://huggingface.co/papers/2007.05946): a denoiser makes clean images of noisy ones, a generator noisy images of
clean ones, and a critic compares the pairs of both with real ones. The result is a [`RestorationPipeline`], whose
`add_noise` makes noisy images.
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from diffusers_ext.losses import gradient_penalty, l1_loss, noise_mean_loss
from diffusers_ext.metrics.restoration import RESTORATION_METRICS
from diffusers_ext.models import DANetCritic, DANetUNet
from diffusers_ext.pipelines import RestorationPipeline
from diffusers_ext.training.loop.configuration import JSONObject, ValidationConfig, option
from diffusers_ext.training.loop.network_options import build_network
from diffusers_ext.training.loop.recipe import Recipe
from diffusers_ext.training.restoration.generated_noise import noise_rows
from diffusers_ext.training.restoration.one_pass import DegradedImages, OnePassEvaluator
from diffusers_ext.training.restoration.tasks import TaskConfig


class DANetRecipe(Recipe):
    """Yue et al. 2020, eq. 7 to 12: two ways to make pairs of a clean and a noisy image, against a critic of pairs."""

    def networks(self) -> dict[str, nn.Module]:
        """The denoiser, the generator of noise and the critic."""
        config = self.config
        images = {"in_channels": config.channels, "out_channels": config.channels}
        options = {"denoiser": {"noise_channels": 0}, "noise_generator": {"noise_channels": 1}}

        def trial(network: nn.Module) -> None:
            noise = torch.zeros(1, 1, *config.size) if network.config.noise_channels else None
            network(torch.zeros(1, config.channels, *config.size), noise)

        networks = {
            name: build_network(
                DANetUNet,
                "--unet_options",
                config.unet_options,
                decided={**images, **own},
                trial=trial,
            )
            for name, own in options.items()
        }
        networks["critic"] = build_network(
            DANetCritic,
            "--critic_options",
            config.critic_options,
            usual={"num_levels": max(1, min(5, (min(config.size) // 4).bit_length() - 1))},
            decided={"in_channels": 2 * config.channels},
            trial=lambda network: network(torch.zeros(1, 2 * config.channels, *config.size)),
        )
        return networks

    def step(self, batch, draw):
        clean, noisy = batch["pixel_values"] / 2 + 0.5, self.degraded.mix(batch, draw) / 2 + 0.5
        is_generators_turn = (draw.step + 1) % self.config.critic_steps == 0

        with torch.set_grad_enabled(is_generators_turn):
            denoised = self.denoiser(noisy).sample
            generated = self.noise_generator(clean, draw.normal(1, *clean.shape[2:])).sample
        self.minimise("critic", self.critic_losses(clean, noisy, denoised.detach(), generated.detach(), draw))

        if is_generators_turn:
            self.minimise("denoiser", self.denoiser_losses(clean, noisy, denoised))
            self.minimise("noise_generator", self.generator_losses(clean, noisy, generated))

    def critic_losses(self, clean, noisy, denoised, generated, draw) -> torch.Tensor:
        """What the critic minimises for both kinds of pairs, of shape (N,): WGAN losses and the gradient penalty."""
        config, real, losses = self.config, torch.cat([clean, noisy], dim=1), 0
        for share, pair in ((1 - config.noise_share, (denoised, noisy)), (config.noise_share, (clean, generated))):
            fake = torch.cat(pair, dim=1)
            on_real, on_fake = self.critic(torch.cat([real, fake])).logits.chunk(2)
            penalty = gradient_penalty(lambda mixed: self.critic(mixed).logits, real, fake, draw.uniform())
            losses = losses + share * (on_fake - on_real + config.gradient_penalty * penalty)
        return losses

    def denoiser_losses(self, clean, noisy, denoised) -> torch.Tensor:
        """What the denoiser minimises, of shape (N,)."""
        config = self.config
        content = l1_loss(denoised, clean)
        self.log(content=content)
        score = self.network("critic")(torch.cat([denoised, noisy], dim=1)).logits
        return config.denoising_weight * content - (1 - config.noise_share) * score

    def generator_losses(self, clean, noisy, generated) -> torch.Tensor:
        """What the generator of noise minimises, of shape (N,)."""
        config = self.config
        mean = noise_mean_loss(noisy, clean, generated)
        self.log(noise_mean=mean)
        score = self.network("critic")(torch.cat([clean, generated], dim=1)).logits
        return config.noise_mean_weight * mean - config.noise_share * score

    def pipeline(self, denoiser, noise_generator, critic=None) -> RestorationPipeline:
        """The pipeline of the denoiser and the generator; the critic stays in the checkpoints."""
        return RestorationPipeline(denoiser, noise_generator=noise_generator)

    # What stands around the algorithm

    def __init__(self, config: DANetConfig, context):
        context.refuse_sharding("train_danet.py")
        super().__init__(config, context)
        self.degraded = DegradedImages(config.tasks, config.task_options, 1, config.size, config.channels)
        self.evaluator = OnePassEvaluator(
            self.degraded,
            config.load_validation_dataset(self.dataset),
            context,
            split=config.validation_split or config.dataset_split,
            seed=config.seed,
            **config.measured(),
        )

    def before_training(self) -> None:
        super().before_training()
        self.evaluator.dataset.prepare()

    def identity(self) -> dict:
        names = ("tasks", "task_options", "noise_share", "denoising_weight", "noise_mean_weight")
        return {name: getattr(self.config, name) for name in (*names, "gradient_penalty", "critic_steps")}

    def optimizer_options(self, name):
        return {} if name == "denoiser" else {"adam_beta1": 0.5, "adam_beta2": 0.9}

    def averaged(self, names):
        return ("denoiser", "noise_generator")

    def sample_grid(self, generate):
        """Noisy images, denoised ones and the truth."""
        return self.evaluator.panel(generate)

    def evaluate(self, generate) -> list[dict]:
        """Noisy and denoised images beside the truth, then generated and Gaussian noise beside the real noise."""
        rows = self.evaluator(generate)
        return rows + noise_rows(self.evaluator, generate) if rows else []

    def describe(self) -> dict:
        names = ", ".join(self.degraded.names)
        return {
            "task": f"Denoised images, and noise for clean ones, by two networks that were trained together (DANet; "
            f"noise of: {names}).",
            "usage": "clean = pipe(image, tile_size=256).images[0]\nnoisy = pipe.add_noise(clean)[0]",
            "tags": ["image-to-image", "restoration", "denoising", "danet"],
        }


@dataclass
class DANetConfig(TaskConfig, ValidationConfig):
    """The options of train_danet.py."""

    tasks: list[str] | None = option(
        ["camera_noise"],
        help="How noisy images are made of clean ones, see train_restoration.py; translation for pairs of your own, "
        "with the noisy images in --conditioning_image_dir or --conditioning_image_column.",
        essential=True,
    )

    # Networks
    unet_options: JSONObject = option(
        JSONObject(),
        help="Arguments of DANetUNet, for both U-Nets, as JSON or a YAML mapping: {base_channels: 24}.",
        group="network",
    )
    critic_options: JSONObject = option(JSONObject(), help="Arguments of DANetCritic.", group="network")

    # What is minimised
    noise_share: float = option(0.5, help="The paper's alpha: how much pairs with generated noise count, from 0 to 1.")
    denoising_weight: float = option(1000.0, help="The paper's tau 1: the weight of the denoiser's absolute error.")
    noise_mean_weight: float = option(10.0, help="The paper's tau 2: the weight of the generated noise's local mean.")
    gradient_penalty: float = option(10.0, help="The weight of WGAN-GP's penalty on the critic.")
    critic_steps: int = option(
        3,
        help="Steps of the critic for each step of the other networks. --max_train_steps counts those of the critic.",
        group="optimisation",
    )

    # Usual for DANet
    adam_weight_decay: float = option(0.0, help="AdamW's weight decay.")
    max_grad_norm: float = option(0.0, help="Gradients are scaled down to this norm; 0 never scales.")

    def __post_init__(self):
        super().__post_init__()
        self.require(bool(self.tasks), "--tasks is required: it says how images become noisy")
        self.require(0 <= self.noise_share <= 1, f"--noise_share must be from 0 to 1, not {self.noise_share}")
        self.require_at_least(0, "denoising_weight", "noise_mean_weight", "gradient_penalty")
        self.require_at_least(1, "critic_steps")

    @property
    def known_metrics(self) -> Sequence[str]:
        return [name for name in RESTORATION_METRICS if name != "diversity"]


if __name__ == "__main__":
    run(DANetRecipe, DANetConfig)
