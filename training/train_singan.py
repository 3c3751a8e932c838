"""Train a SinGAN on one image: a pyramid of generators and critics of its patches, a scale at a time.

    accelerate launch training/train_singan.py --config examples/photo_singan.yaml

The training of Shaham et al. 2019 (https://huggingface.co/papers/1905.01164): each scale learns by WGAN-GP to add
details to the enlarged samples of the scales before, which then stay as they are, and to give the image itself back
for one fixed noise. The result is a [`SinGANPipeline`].
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

import math
from dataclasses import dataclass

import torch
from torch import nn

from diffusers_ext.data.randomness import derive_seed
from diffusers_ext.losses import discriminator_loss, generator_loss, pixel_gradient_penalty
from diffusers_ext.metrics import PatchPixels, shuffle_patches, single_image_fid
from diffusers_ext.models import SinGANDiscriminator, SinGANGenerator, SinGANScale
from diffusers_ext.models.modeling_singan import resize_images, singan_widths
from diffusers_ext.pipelines import SinGANPipeline
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.loop.configuration import JSONObject, TrainingConfig, option
from diffusers_ext.training.loop.network_options import build_network
from diffusers_ext.training.loop.recipe import Recipe


NUM_SHOWN = 15  # samples beside the image
SHUFFLED_SIZE = 8  # of the patches whose order is random in the image that samples are compared with


class SinGANRecipe(Recipe):
    """Shaham et al. 2019, section 2: a scale after the other; which one is a function of the step."""

    def networks(self) -> dict[str, nn.Module]:
        """The generator and the critic of each scale."""
        networks, decided = {}, {"num_channels": self.config.channels, "normalization": "instance"}
        for scale, widths in enumerate(singan_widths(len(self.sizes))):
            for name, network_class in (("generator", SinGANScale), ("discriminator", SinGANDiscriminator)):
                given = getattr(self.config, name)
                networks[f"{name}_{scale}"] = build_network(
                    network_class,
                    f"--{name}",
                    given,
                    usual={"layer_channels": widths},
                    decided=decided,
                    trial=self.try_network,
                )
        self.pyramid = self.stack(networks, len(self.sizes)).to(self.context.device)
        return networks

    def step(self, batch, draw):
        scale, steps = divmod(draw.step, self.config.steps_per_scale)
        if scale >= len(self.sizes):  # more steps than all scales take belong to the last one
            scale, steps = len(self.sizes) - 1, 1
        real = resize_images(batch["pixel_values"], self.sizes[scale])
        restoring = [noise.expand(len(real), -1, -1, -1) for noise in self.pyramid.reconstruction_noise(scale + 1)]
        if steps == 0:
            self.begin_scale(scale, real, restoring)
        generator, discriminator = f"generator_{scale}", f"discriminator_{scale}"

        noise = [draw.normal(*shape) for shape in self.pyramid.noise_shapes(*self.sizes[-1])[: scale + 1]]
        fake = self.generate(scale, noise)
        critic = getattr(self, discriminator)
        self.minimise(discriminator, self.discriminator_losses(critic, real, fake.detach(), draw))

        errors = (self.generate(scale, restoring) - real).square().flatten(1).mean(dim=1)
        losses = generator_loss("wasserstein", self.network(discriminator)(fake).logits)
        self.log(reconstruction=errors)
        self.minimise(generator, losses + self.config.reconstruction_weight * errors)

    def generate(self, scale: int, noise: list[torch.Tensor]) -> torch.Tensor:
        """Images of a scale, whose generator gets gradients, from the noise of it and of all before (eq. 1 to 3)."""
        amplified = noise[-1] * self.pyramid.noise_amplitudes[scale]
        amplified = amplified.expand(-1, self.config.channels, -1, -1)
        return getattr(self, f"generator_{scale}")(amplified, self.enlarged(scale, noise[:-1])).sample

    @torch.no_grad()
    def enlarged(self, scale: int, noise: list[torch.Tensor]) -> torch.Tensor:
        """The image to which a scale adds details: that of the scales before, enlarged, or zeros."""
        if scale == 0:
            shape = (self.config.train_batch_size, self.config.channels, *self.sizes[0])
            return torch.zeros(shape, device=self.context.device)
        return resize_images(self.pyramid(noise).sample, self.sizes[scale])

    @torch.no_grad()
    def begin_scale(self, scale: int, real: torch.Tensor, restoring: list[torch.Tensor]) -> None:
        """Let a scale begin where the one before ended, with noise in proportion to what it has to add (section 2.3).

        Args:
            scale (`int`): the scale, from 0.
            real (`torch.Tensor` of shape (N, C, H, W)): the image at this scale.
            restoring (`list[torch.Tensor]`): the noise that is to give it back.
        """
        self.scale = scale
        if scale == 0:
            return
        missing = (real - self.enlarged(scale, restoring[:-1])).square().mean().sqrt()
        self.pyramid.noise_amplitudes[scale] = self.config.noise_amplitude * missing
        for name in ("generator", "discriminator"):
            network, before = self.network(f"{name}_{scale}"), self.network(f"{name}_{scale - 1}")
            if network.config == before.config:
                network.load_state_dict(before.state_dict())

    def discriminator_losses(self, critic, real, fake, draw) -> torch.Tensor:
        """WGAN-GP of the scores of all patches (Gulrajani et al. 2017), of shape (N,)."""
        on_real, on_fake = critic(real).logits, critic(fake).logits
        penalty = pixel_gradient_penalty(lambda mixed: critic(mixed).logits, real, fake, draw.uniform())
        self.log(real_logits=on_real, fake_logits=on_fake, penalty=penalty)
        return discriminator_loss("wasserstein", on_real, on_fake) + self.config.gradient_penalty * penalty

    def pipeline(self, **networks: nn.Module) -> SinGANPipeline:
        """The pipeline of the scales that have begun."""
        generator = self.stack(networks, self.scale + 1)
        generator.noise_amplitudes.copy_(self.pyramid.noise_amplitudes[: self.scale + 1])
        return SinGANPipeline(generator=generator.eval())

    # What stands around the algorithm

    def __init__(self, config: SinGANConfig, context):
        context.refuse_sharding("The penalty of gradients (--gradient_penalty)")
        super().__init__(config, context)
        if self.dataset.num_examples != 1:
            raise ValueError(f"A SinGAN is trained on one image, but the data set has {self.dataset.num_examples}.")
        self.sizes = pyramid_sizes(config.size, config.min_size, config.scale_factor)
        self.scale = 0

    def stack(self, networks: dict[str, nn.Module], num_scales: int) -> SinGANGenerator:
        """The first scales as one generator, with the fixed noise of this run."""
        scales = [networks[f"generator_{scale}"] for scale in range(num_scales)]
        generator = SinGANGenerator.from_scales(scales, self.sizes[:num_scales])
        source = torch.Generator().manual_seed(derive_seed(self.config.seed, "fixed noise"))
        generator.fixed_noise.copy_(torch.randn(generator.fixed_noise.shape, generator=source))
        return generator

    def try_network(self, network: nn.Module) -> None:
        image = torch.zeros(1, self.config.channels, *self.sizes[0])
        network(*[image] * (2 if isinstance(network, SinGANScale) else 1))

    def load_dataset(self):
        """The image, always cropped at the same place."""
        config = self.config
        return config.load_dataset(config.size, config.channels, center_crop=True, load_size=config.load_size)

    def optimizer_options(self, name):
        """A cycle of the learning rate for each scale."""
        return {"lr_num_cycles": len(self.sizes)} if self.config.lr_scheduler == "cosine_with_restarts" else {}

    def averaged(self, names):
        return ()

    def identity(self) -> dict:
        names = ("steps_per_scale", "gradient_penalty", "reconstruction_weight", "noise_amplitude")
        return {"sizes": self.sizes, **{name: getattr(self.config, name) for name in names}}

    def state_dict(self):
        return {"scale": torch.tensor(self.scale), "noise_amplitudes": self.pyramid.noise_amplitudes}

    def load_state_dict(self, state):
        self.scale = int(state["scale"])
        self.pyramid.noise_amplitudes.copy_(state["noise_amplitudes"])

    def real_image(self) -> torch.Tensor:
        """The image at the finest scale that has begun, uint8 (C, H, W)."""
        (batch,) = self.dataset.reference_batches(1)
        image = batch["pixel_values"].float() / 127.5 - 1
        return ((resize_images(image, self.sizes[self.scale])[0] + 1) * 127.5).round().to(torch.uint8)

    def sample_grid(self, generate):
        """The image, and samples of its size."""
        return sample_grid(torch.cat([self.real_image()[None], generate.images(NUM_SHOWN)]), columns=4)

    def evaluate(self, generate):
        """SIFID of samples, and of the image with shuffled patches."""
        real, source = self.real_image(), torch.Generator().manual_seed(self.config.seed)
        features = PatchPixels()
        samples = generate.images(self.config.num_evaluation_samples)
        shuffled = torch.stack([shuffle_patches(real, SHUFFLED_SIZE, source) for _ in range(len(samples))])
        provenance = {"features": features.name, "num_samples": len(samples), "sampling_seed": generate.seed}
        return [
            {
                "sifid": single_image_fid(real, samples, features).mean().item(),
                "sifid_of_shuffled_patches": single_image_fid(real, shuffled, features).mean().item(),
                "provenance": {**provenance, "shuffled": f"squares of {SHUFFLED_SIZE} pixels"},
            }
        ]

    def describe(self) -> dict:
        height, width = self.sizes[self.scale]
        return {
            "task": f"Images with the patches of one image: a SinGAN of {self.scale + 1} scales up to "
            f"{height}x{width} pixels, trained from scratch.",
            "usage": f"images = pipe(batch_size=4, height={height}, width={2 * width}).images",
            "tags": ["unconditional-image-generation", "gan", "singan"],
        }


def pyramid_sizes(size: tuple[int, int], min_size: int, scale_factor: float) -> list[tuple[int, int]]:
    """Height and width of each scale, from the coarsest, whose smaller side is `min_size`, to `size`.

    The factor between scales is the one next to `scale_factor` that leads there in whole steps, as in the original.
    """
    smaller = min(size)
    num_steps = math.ceil(math.log(min_size / smaller) / math.log(scale_factor)) if smaller > min_size else 0
    ratio = min_size / smaller
    shrunk = [ratio ** ((num_steps - scale) / max(num_steps, 1)) for scale in range(num_steps)]
    return [*(tuple(round(side * factor) for side in size) for factor in shrunk), size]


@dataclass
class SinGANConfig(TrainingConfig):
    """The options of train_singan.py."""

    generator: JSONObject = option(
        JSONObject(),
        help="Arguments of SinGANScale for each scale, as JSON or a YAML mapping, such as layer_channels.",
        group="network",
    )
    discriminator: JSONObject = option(JSONObject(), help="Arguments of SinGANDiscriminator.", group="network")

    # The pyramid
    min_size: int = option(25, help="The smaller side of the coarsest scale, in pixels.", group="network")
    scale_factor: float = option(0.75, help="A scale's size is about this part of the next one's.", group="network")
    steps_per_scale: int = option(2000, help="For so many steps each scale is trained.")

    # The game
    gradient_penalty: float = option(0.1, help="The weight of WGAN-GP's penalty on gradients.")
    reconstruction_weight: float = option(10.0, help="The weight of the squared error of the image given back.")
    noise_amplitude: float = option(
        0.1, help="The noise of a scale, as a part of the error that the scales before leave."
    )

    # Usual for SinGAN
    learning_rate: float = option(5e-4, help="The learning rate at the start of each scale.")
    lr_scheduler: str = option("cosine_with_restarts", help="The schedule; with restarts, a cycle for each scale.")
    lr_warmup_steps: int = option(0, help="Updates until the learning rate is reached.")
    adam_beta1: float = option(0.5, help="AdamW's decay of the gradient's mean.")
    adam_weight_decay: float = option(0.0, help="AdamW's weight decay.")
    max_grad_norm: float = option(0.0, help="Gradients are scaled down to this norm; 0 never scales.")
    train_batch_size: int = option(1, help="Samples per process and step, all compared with the one image.")
    use_ema: bool = option(False, help="Not for a SinGAN, whose scales build on one another.")
    num_evaluation_samples: int = option(20, help="How many samples are measured.")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "steps_per_scale")
        self.require_at_least(0, "reconstruction_weight", "noise_amplitude")
        self.require(self.gradient_penalty > 0, f"--gradient_penalty must be positive, not {self.gradient_penalty}")
        self.require(0 < self.scale_factor < 1, f"--scale_factor must be between 0 and 1, not {self.scale_factor}")
        self.require(
            1 <= self.min_size <= min(self.size),
            f"--min_size must be from 1 to the smaller side of --resolution, {min(self.size)}, not {self.min_size}",
        )
        self.require(not self.compile, "--compile can't differentiate twice, as --gradient_penalty needs it")
        self.require(not self.use_ema, "--use_ema is not for a SinGAN, whose scales build on one another")
        self.require(not self.random_flip, "--random_flip would change the one image: leave it out")
        self.require(not self.streaming, "--streaming is not for one image: leave it out")
        self.require(
            self.feature_extractor is None, "--feature_extractor is not for SIFID, which has features of its own"
        )
        if self.max_train_steps is None:
            num_scales = len(pyramid_sizes(self.size, self.min_size, self.scale_factor))
            self.max_train_steps = num_scales * self.steps_per_scale


if __name__ == "__main__":
    run(SinGANRecipe, SinGANConfig)
