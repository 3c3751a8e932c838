"""Train an autoencoder: plain, denoising, variational or vector-quantised.

    accelerate launch training/train_autoencoder.py --config examples/digits_vae.yaml

`--architecture` is the network, `--objective` what it minimises beside the error of its reconstructions: the evidence
lower bound (Kingma and Welling 2014), beta-VAE (Higgins et al. 2017; with --kl_capacity, Burgess et al. 2018),
beta-TCVAE (Chen et al. 2018) or FactorVAE (Kim and Mnih 2018). The autoencoders of latent diffusion (`kl`, `vq`) are
trained as there, with perceptual and patch-adversarial losses (Esser et al. 2021, Rombach et al. 2022). The result is
an [`AutoencoderPipeline`].
"""

from dataclasses import dataclass
from typing import Literal

import torch
from accelerate import PartialState

from diffusers_ext.data import derive_seed
from diffusers_ext.losses.adaptive_weight import adaptive_weight, last_layer_gradient
from diffusers_ext.losses.adversarial import AdversarialLoss, discriminator_loss, generator_loss
from diffusers_ext.losses.elbo import (
    ReconstructionLoss,
    TotalCorrelationEstimator,
    latent_discriminator_loss,
    reconstruction_error,
    shuffle_dimensions,
)
from diffusers_ext.losses.perceptual import load_perceptual_loss
from diffusers_ext.models import LatentDiscriminator, PatchDiscriminator
from diffusers_ext.pipelines import AutoencoderPipeline
from diffusers_ext.training.adversarial.judging import accuracies, has_batch_norm, judge_both
from diffusers_ext.training.autoencoding.evaluation import AutoencoderEvaluator, corrupt
from diffusers_ext.training.autoencoding.networks import (
    LATENT_DIFFUSION_ARCHITECTURES,
    QUANTIZED_ARCHITECTURES,
    VECTOR_ARCHITECTURES,
    Runner,
    build_autoencoder,
)
from diffusers_ext.training.autoencoding.regularizers import Regularisation
from diffusers_ext.training.evaluate_pipeline import Evaluator
from diffusers_ext.training.loop.command import run
from diffusers_ext.training.loop.configuration import JSONObject, ValidationConfig, option
from diffusers_ext.training.loop.recipe import Recipe
from diffusers_ext.training.loop.sampling import all_rows


# Of the divergence, by objective; of latent diffusion's it is that of its "slight KL penalty".
BETAS = {"vae": 1.0, "beta_vae": 4.0, "beta_tc": 6.0, "factor": 10.0}
LATENT_DIFFUSION_BETA = 1e-6


@dataclass
class AutoencoderConfig(ValidationConfig):
    """The options of train_autoencoder.py."""

    architecture: Literal["mlp", "conv", "burgess", "vqvae", "vqvae2", "kl", "vq"] = option(
        "conv", help="The network; kl and vq are diffusers' AutoencoderKL and VQModel."
    )
    autoencoder: JSONObject = option(
        JSONObject(), help="Arguments of its class, as JSON or a YAML mapping; by default some to suit the resolution."
    )
    objective: Literal["autoencoder", "vae", "beta_vae", "beta_tc", "factor"] | None = option(
        help="What is minimised: the error of the reconstruction alone (and the commitment to codes), or with terms "
        "of the divergence from a prior. By default vae, beta_vae for kl, and autoencoder where there are codes."
    )
    reconstruction_loss: ReconstructionLoss | None = option(
        help="bernoulli (for networks whose output is a sigmoid), mse (half the squared error) or l1. By default "
        "bernoulli after a sigmoid, l1 for kl and vq, and mse."
    )
    denoising: float = option(
        0.0, help="The standard deviation of noise in the input, for images in [-1, 1]; the target stays clean."
    )
    beta: float | None = option(
        help="The weight of the divergence (beta_vae: by default 4, for kl 1e-6) or of the total correlation "
        "(beta_tc: 6; factor: 10, there called gamma)."
    )
    kl_warmup_steps: int = option(0, help="Updates in which the weight of the divergence rises from 0.")
    kl_capacity: float | None = option(
        help="beta_vae: draw the divergence to this many nats, instead of to 0 (Burgess et al. 2018)."
    )
    kl_capacity_steps: int = option(0, help="Updates in which that capacity rises from 0.")
    total_correlation_estimator: TotalCorrelationEstimator = option(
        "stratified", help="beta_tc: how the aggregate posterior is estimated from a batch."
    )
    latent_discriminator: JSONObject = option(JSONObject(), help="factor: arguments of LatentDiscriminator.")

    perceptual_network: str | None = option(
        help="kl, vq: lpips, or a local folder or Hub name of an image model whose features are compared too."
    )
    perceptual_weight: float = option(1.0, help="The weight of that distance, beside the mean error of a value.")
    adversarial_weight: float = option(
        0.0, help="kl, vq: the weight of a patch discriminator, on top of the adaptive one (latent diffusion: 0.5)."
    )
    adversarial_loss: AdversarialLoss = option("hinge", help="Its loss.")
    adversarial_start: int = option(0, help="The update from which it counts.")
    patch_discriminator: JSONObject = option(JSONObject(), help="Arguments of PatchDiscriminator.")
    discriminator_learning_rate: float | None = option(
        help="The learning rate of a discriminator. By default 1e-4 for factor, and --learning_rate."
    )

    learning_rate: float = option(1e-3, help="The learning rate after the warm-up.")
    adam_weight_decay: float = option(0.0, help="AdamW's weight decay.")
    max_grad_norm: float = option(0.0, help="Gradients are scaled down to this norm; 0 never scales.")

    def __post_init__(self):
        super().__post_init__()
        name = self.architecture
        if self.objective is None:
            defaults = {"kl": "beta_vae", **dict.fromkeys(QUANTIZED_ARCHITECTURES, "autoencoder")}
            self.objective = defaults.get(name, "vae")
        objective = self.objective
        self.require(
            name not in QUANTIZED_ARCHITECTURES or objective == "autoencoder",
            f"--architecture {name} has codes and no posterior: its --objective is autoencoder, not {objective}",
        )
        self.require(
            name != "kl" or objective in ("vae", "beta_vae"),
            f"--architecture kl has a map of posteriors: its --objective is vae or beta_vae, not {objective}",
        )
        self.require(
            objective not in ("beta_tc", "factor") or self.train_batch_size > 1,
            f"--objective {objective} compares the images of a batch: --train_batch_size must be above 1",
        )
        self._check_divergence(objective)
        self._check_discriminator(objective)

    def _check_divergence(self, objective: str) -> None:
        self.require(
            self.beta is None or objective in ("beta_vae", "beta_tc", "factor"),
            f"--beta is for beta_vae, beta_tc and factor, not for --objective {objective}",
        )
        self.require_at_least(0, "beta", "denoising", "kl_warmup_steps", "kl_capacity", "kl_capacity_steps")
        self.require(
            self.kl_warmup_steps == 0 or objective != "autoencoder",
            "--kl_warmup_steps is for objectives with a divergence, not for --objective autoencoder",
        )
        self.require(
            self.kl_capacity is None or objective == "beta_vae",
            f"--kl_capacity is for --objective beta_vae, not {objective}",
        )
        self.require(
            self.kl_capacity_steps == 0 or self.kl_capacity is not None,
            "--kl_capacity_steps needs the --kl_capacity that is reached",
        )
        self.require(
            self.kl_capacity is None or self.kl_warmup_steps == 0,
            "--kl_capacity and --kl_warmup_steps exclude each other: both let the divergence in slowly",
        )

    def _check_discriminator(self, objective: str) -> None:
        name, rate = self.architecture, self.discriminator_learning_rate
        is_latent_diffusion = name in LATENT_DIFFUSION_ARCHITECTURES
        self.require_at_least(0, "perceptual_weight", "adversarial_weight", "adversarial_start")
        self.require(
            not self.latent_discriminator or objective == "factor",
            f"--latent_discriminator is for --objective factor, not {objective}",
        )
        for flag, given in (
            ("perceptual_network", self.perceptual_network is not None),
            ("adversarial_weight", self.adversarial_weight > 0),
            ("patch_discriminator", bool(self.patch_discriminator)),
        ):
            self.require(is_latent_diffusion or not given, f"--{flag} is for --architecture kl and vq, not {name}")
        self.require(
            self.adversarial_weight > 0 or not (self.patch_discriminator or self.adversarial_start),
            "--patch_discriminator and --adversarial_start need an --adversarial_weight above 0",
        )
        self.require(
            self.perceptual_network is None or self.channels in (1, 3),
            f"--perceptual_network sees 1 or 3 --channels, not {self.channels}",
        )
        self.require(
            rate is None or objective == "factor" or self.adversarial_weight > 0,
            "--discriminator_learning_rate needs a discriminator: --objective factor or --adversarial_weight",
        )
        self.require(rate is None or rate > 0, f"--discriminator_learning_rate must be positive, not {rate}")

    @property
    def divergence_weight(self) -> float:
        """`beta`, or what is usual."""
        if self.beta is not None:
            return self.beta
        is_slight = (self.architecture, self.objective) == ("kl", "beta_vae")
        return LATENT_DIFFUSION_BETA if is_slight else BETAS[self.objective]


class AutoencoderRecipe(Recipe):
    """The error of a reconstruction, and what keeps its latents in order."""

    config_class = AutoencoderConfig

    def __init__(self, config: AutoencoderConfig):
        super().__init__(config)
        self.evaluator = Evaluator(config, self.dataset)
        self.validation_images = config.load_validation_dataset(self.dataset)
        self.perceptual_loss = None
        if config.perceptual_network is not None:
            self.perceptual_loss = load_perceptual_loss(config.perceptual_network, PartialState().device)
            # Here, and not in the first step, a network that can't do with such images is found out.
            blank = torch.zeros(1, config.channels, *config.size, device=PartialState().device)
            self.perceptual_loss(blank, blank)
        self.num_values = config.channels * config.size[0] * config.size[1]

    def identity(self) -> dict:
        names = ["objective", "reconstruction_loss", "denoising"]
        names += ["beta", "kl_warmup_steps", "kl_capacity", "kl_capacity_steps"]
        names += ["total_correlation_estimator", "perceptual_network", "perceptual_weight"]
        names += ["adversarial_weight", "adversarial_loss", "adversarial_start"]
        return {name: getattr(self.config, name) for name in names}

    def networks(self) -> dict[str, torch.nn.Module]:
        """The autoencoder, and a discriminator of its latents or its images where the objective has one."""
        config, networks = self.config, {}
        networks["autoencoder"] = autoencoder = build_autoencoder(
            config.architecture, config.autoencoder, config.size, config.channels, config.objective != "autoencoder"
        )
        if has_batch_norm(autoencoder) and config.train_batch_size * getattr(autoencoder, "smallest_map", 2) == 1:
            raise ValueError(
                "The autoencoder has batch normalization where images are one pixel, which needs --train_batch_size 2 "
                "or more."
            )
        self.runner = Runner(autoencoder)
        self.regularisation = Regularisation(config, self.runner, self.dataset.num_examples)
        self.reconstruction_type = self._reconstruction_type()
        self.autoencoder_evaluator = AutoencoderEvaluator(
            config, self.validation_images, self.runner, self.reconstruction_type, self.evaluator.extractor
        )
        if config.objective == "factor":
            latent_dim = autoencoder.config.latent_dim
            networks["discriminator"] = LatentDiscriminator(
                **{**config.latent_discriminator, "latent_dim": latent_dim}
            )
        elif config.adversarial_weight > 0:
            networks["discriminator"] = PatchDiscriminator(
                **{"normalization": "instance", **config.patch_discriminator, "in_channels": config.channels}
            )
            # Here, and not when it begins to count, images that are too small for it are found out.
            with torch.no_grad():
                networks["discriminator"].eval()(torch.zeros(1, config.channels, *config.size))
        return networks

    def _reconstruction_type(self) -> str:
        chosen, has_levels = self.config.reconstruction_loss, self.runner.sample_range == (0.0, 1.0)
        if chosen == "bernoulli" and not has_levels:
            raise ValueError(
                f"--reconstruction_loss bernoulli needs a network that gives probabilities, from 0 to 1, and not "
                f"{self.runner.sample_range}."
            )
        if chosen is None and self.config.architecture in LATENT_DIFFUSION_ARCHITECTURES:
            return "l1"
        return chosen or ("bernoulli" if has_levels else "mse")

    def optimizer_options(self, name: str) -> dict:
        config = self.config
        if name != "discriminator":
            return {}
        if config.objective == "factor":  # Kim and Mnih 2018, appendix A
            return {
                "learning_rate": config.discriminator_learning_rate or 1e-4,
                "adam_beta1": 0.5,
                "adam_beta2": 0.9,
            }
        return {"learning_rate": config.discriminator_learning_rate or config.learning_rate}

    def averaged(self, names):
        return ("autoencoder",)

    def step(self, batch, draw):
        images = batch["pixel_values"]
        inputs = corrupt(images, self.config.denoising, draw)
        generators = draw.generators if self.config.objective != "autoencoder" else None
        output = self.runner(self.autoencoder, self.runner.to_network(inputs), generators)

        errors = reconstruction_error(self.reconstruction_type, output.sample, self.runner.to_network(images))
        self.log(reconstruction=errors)
        reconstruction = errors + self.perceptual_error(output.sample, images)
        if self.config.objective == "autoencoder":  # no bound to be had: the mean of all values, not their sum
            reconstruction = reconstruction / self.num_values
        latent_discriminator = self.network("discriminator") if self.config.objective == "factor" else None
        regularisation, values = self.regularisation(output, errors, draw.step, latent_discriminator)
        self.log(**values)
        loss = reconstruction + regularisation
        if self.config.adversarial_weight > 0 and draw.step >= self.config.adversarial_start:
            loss = loss + self.adversarial_loss(output.sample, reconstruction)
        self.minimise("autoencoder", loss)

        if self.config.objective == "factor":
            self.train_latent_discriminator(output.latents.detach(), draw)
        elif self.config.adversarial_weight > 0 and draw.step >= self.config.adversarial_start:
            self.train_patch_discriminator(images, output.sample.detach())
        if output.continuous:
            self._step = draw.step
            for level, (codes, latents) in enumerate(zip(output.codes, output.continuous, strict=True)):
                self.gather(**{f"codes_{level}": codes, f"continuous_{level}": latents.float()})

    def perceptual_error(self, sample: torch.Tensor, images: torch.Tensor) -> torch.Tensor | float:
        """The perceptual distance of each image (N,), for each of its values, as the error is a sum over these."""
        if self.perceptual_loss is None:
            return 0.0
        distances = self.perceptual_loss(sample, images)
        self.log(perceptual_distance=distances)
        return self.num_values * self.config.perceptual_weight * distances

    def train_latent_discriminator(self, latents: torch.Tensor, draw) -> None:
        """Kim and Mnih 2018, algorithm 2; what is shuffled is the same batch, where the paper takes another one."""
        own = len(latents) * PartialState().process_index
        shuffled = shuffle_dimensions(all_rows(latents), all_rows(draw.uniform(latents.shape[1])))
        shuffled = shuffled[own : own + len(latents)]
        logits, shuffled_logits = self.discriminator(torch.cat([latents, shuffled])).logits.chunk(2)
        self.minimise("discriminator", latent_discriminator_loss(logits, shuffled_logits))
        self.log(discriminator_accuracy=((logits > 0).float() + (shuffled_logits < 0).float()) / 2)

    def adversarial_loss(self, sample: torch.Tensor, reconstruction: torch.Tensor) -> torch.Tensor:
        """What the discriminator says of reconstructions (N,), as heavy as their error (Esser et al. 2021, eq. 7)."""
        losses = generator_loss(self.config.adversarial_loss, self.network("discriminator")(sample).logits)
        last_layer = self.network("autoencoder").decoder.conv_out.weight
        gradients = [last_layer_gradient(loss.mean(), last_layer) for loss in (reconstruction, losses)]
        # Of the global batch, and the same on all processes.
        gradients = all_rows(torch.stack(gradients)[None]).mean(dim=0)
        weight = adaptive_weight(*gradients)
        self.log(adversarial=losses, adaptive_weight=weight)
        return self.config.adversarial_weight * weight * losses

    def train_patch_discriminator(self, real: torch.Tensor, fake: torch.Tensor) -> None:
        real_logits, fake_logits = judge_both(self.discriminator, real, fake)
        self.minimise("discriminator", discriminator_loss(self.config.adversarial_loss, real_logits, fake_logits))
        self.log(**accuracies(self.config.adversarial_loss, real_logits, fake_logits))

    def after_update(self, **gathered):
        """Move the codebooks to the means of what they stand for in the global batch (Razavi et al. 2019, app. A)."""
        if not gathered:
            return
        codes, latents = (
            [gathered[name] for name in sorted(gathered) if name.startswith(kind)] for kind in ("codes", "continuous")
        )
        if self.config.architecture == "vqvae":
            codes, latents = codes[0], latents[0]
        generator = torch.Generator().manual_seed(derive_seed(self.config.seed, "revived codes", self._step))
        self.network("autoencoder").update_codebook(codes, latents, generator=generator)

    def pipeline(self, autoencoder: torch.nn.Module, **discriminator: torch.nn.Module) -> AutoencoderPipeline:
        """The autoencoder; a discriminator has done its work."""
        return AutoencoderPipeline(autoencoder)

    def sample_grid(self, generate):
        """Images above their reconstructions, and samples of the prior."""
        return self.autoencoder_evaluator.panel(generate)

    def evaluate(self, generate):
        """The measures of the reconstructions, and with a feature extractor those of samples."""
        rows = [self.autoencoder_evaluator(generate)]
        if generate.pipeline.has_prior and self.evaluator.extractor is not None:
            measures = self.evaluator.measure(generate, self.config.num_evaluation_samples)
            rows.append({"method": "samples", **measures})
        return rows

    def describe(self) -> dict:
        config = self.config
        kind = "denoising " if config.denoising > 0 else ""
        has_prior = config.architecture in VECTOR_ARCHITECTURES and config.objective != "autoencoder"
        return {
            "task": f"Images to latents and back: a {kind}autoencoder ({config.architecture}), trained from random "
            f"weights with the objective `{config.objective}` and the reconstruction loss "
            f"`{self.reconstruction_type}`.",
            "usage": ("images = pipe(batch_size=4).images\n" if has_prior else "")
            + "latents = pipe.encode(image)\ncopy = pipe.decode(latents).images[0]",
            "pipeline_tag": "unconditional-image-generation" if has_prior else "image-to-image",
            "tags": ["autoencoder", config.architecture, *(["vae"] if config.objective != "autoencoder" else [])],
        }


if __name__ == "__main__":
    run(AutoencoderRecipe)
