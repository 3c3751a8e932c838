"""Train an autoencoder: plain, denoising, variational or vector-quantised.

    accelerate launch training/train_autoencoder.py --config examples/digits_vae.yaml

`--architecture` is the network. `--objective` is what is minimised beside the error of reconstructions: the evidence
lower bound (Kingma and Welling 2014), beta-VAE (Higgins et al. 2017; with --kl_capacity, Burgess et al. 2018),
beta-TCVAE (Chen et al. 2018) or FactorVAE (Kim and Mnih 2018). `dvae` is the discrete VAE of DALL-E (Ramesh et al.
2021). The autoencoders of latent diffusion (`kl`, `vq`) are
trained with perceptual and patch-adversarial losses (Esser et al. 2021, Rombach et al. 2022). The result is an
[`AutoencoderPipeline`].
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

import math
from dataclasses import dataclass
from typing import Literal

import torch

from diffusers_ext.data import derive_seed
from diffusers_ext.losses.adaptive_weight import adaptive_weight, last_layer_gradient
from diffusers_ext.losses.adversarial import AdversarialLoss, discriminator_loss, generator_loss
from diffusers_ext.losses.discriminator_outputs import accuracies, judge_both
from diffusers_ext.losses.elbo import (
    ReconstructionLoss,
    TotalCorrelationEstimator,
    latent_discriminator_loss,
    reconstruction_error,
    shuffle_dimensions,
)
from diffusers_ext.losses.perceptual_loss import load_perceptual_loss
from diffusers_ext.models import LatentDiscriminator, PatchDiscriminator
from diffusers_ext.pipelines import AutoencoderPipeline
from diffusers_ext.training.autoencoding.evaluation import AutoencoderEvaluator, corrupt
from diffusers_ext.training.autoencoding.networks import (
    LATENT_DIFFUSION_ARCHITECTURES,
    QUANTIZED_ARCHITECTURES,
    VECTOR_ARCHITECTURES,
    Pass,
    Runner,
    build_autoencoder,
)
from diffusers_ext.training.autoencoding.regularizers import (
    Divergence,
    EstimatedTotalCorrelation,
    JudgedTotalCorrelation,
    Quantization,
    Regularizer,
    UniformDivergence,
    rising,
)
from diffusers_ext.training.diffusion.latent_statistics import measure_autoencoder
from diffusers_ext.training.evaluation.samples import SampleEvaluator
from diffusers_ext.training.loop.configuration import JSONObject, ValidationConfig, option
from diffusers_ext.training.loop.network_options import build_network
from diffusers_ext.training.loop.recipe import Recipe


class AutoencoderRecipe(Recipe):
    """Kingma and Welling 2014, algorithm 1: the errors of reconstructions, and a loss that regularizes the latents.

    It trains plain, denoising and variational autoencoders; subclasses train the others.
    """

    def networks(self) -> dict[str, torch.nn.Module]:
        """The autoencoder."""
        config = self.config
        autoencoder = build_autoencoder(
            config.architecture,
            config.autoencoder,
            size=config.size,
            channels=config.channels,
            variational=config.objective != "autoencoder",
            batch_size=config.train_batch_size,
            downsampling_factor=config.downsampling_factor,
        )
        self.runner = Runner(autoencoder)
        self.regularizer = self.build_regularizer()
        self.reconstruction_type = self.choose_reconstruction_type()
        self.reconstruction_evaluator = self.build_reconstruction_evaluator()
        return {"autoencoder": autoencoder}

    def build_regularizer(self) -> Regularizer:
        """The loss that is added to the errors."""
        config = self.config
        if config.objective == "autoencoder":
            return Regularizer()
        if config.objective == "beta_tc":
            return EstimatedTotalCorrelation(
                config.divergence_weight,
                config.kl_warmup_steps,
                estimator=config.total_correlation_estimator,
                batch_size=config.train_batch_size,
                num_examples=self.dataset.epoch_length,
                context=self.context,
            )
        return Divergence(
            config.divergence_weight, config.kl_warmup_steps, config.kl_capacity, config.kl_capacity_steps
        )

    def step(self, batch, draw):
        self.improve_autoencoder(batch["pixel_values"], draw)

    def improve_autoencoder(self, images: torch.Tensor, draw) -> Pass:
        """Update the autoencoder with a batch of images, and return its pass."""
        output = self.reconstruct(images, draw)
        errors = self.reconstruction_errors(output, images)
        self.minimise("autoencoder", self.scaled(errors) + self.regularisation(output, errors, draw))
        return output

    def reconstruct(self, images: torch.Tensor, draw) -> Pass:
        """Encode images, with noise if `--denoising` asks for it, and decode a draw of their latents."""
        inputs = corrupt(images, self.config.denoising, draw)
        generators = draw.generators if self.config.objective != "autoencoder" else None
        return self.runner(self.autoencoder, self.runner.to_network(inputs), generators)

    def reconstruction_errors(self, output: Pass, images: torch.Tensor) -> torch.Tensor:
        """-log p(x|z) of each image, of shape (N,)."""
        errors = reconstruction_error(self.reconstruction_type, output.sample, self.runner.to_network(images))
        self.log(reconstruction=errors)
        return errors

    def scaled(self, errors: torch.Tensor) -> torch.Tensor:
        """Errors as the loss has them: sums over the values of an image in a bound of the likelihood, else means."""
        return errors / self.num_values if self.config.objective == "autoencoder" else errors

    def regularisation(self, output: Pass, errors: torch.Tensor, draw) -> torch.Tensor | float:
        """The loss that is added to the errors, (N,) or a number."""
        loss, values = self.regularizer(output, errors, draw.step)
        self.log(**values)
        self.gather(**self.regularizer.rows(output))
        return loss

    def after_update(self, **gathered):
        self.log(**self.regularizer.statistics(gathered))

    def pipeline(self, autoencoder: torch.nn.Module, **discriminator: torch.nn.Module) -> AutoencoderPipeline:
        """The pipeline of the autoencoder; a discriminator is only needed for the training."""
        return AutoencoderPipeline(autoencoder)

    # What stands around the algorithm

    def __init__(self, config: AutoencoderConfig, context):
        super().__init__(config, context)
        self.num_values = config.channels * config.size[0] * config.size[1]
        self.evaluator = SampleEvaluator(
            self.dataset, split=config.dataset_split, device=context.device, **config.measured()
        )
        self.validation_images = config.load_validation_dataset(self.dataset)

    def before_training(self) -> None:
        super().before_training()
        self.validation_images.prepare()

    def choose_reconstruction_type(self) -> str:
        """The kind of error that `--reconstruction_loss` names, or the usual one for the network."""
        chosen, gives_probabilities = self.config.reconstruction_loss, self.runner.sample_range == (0.0, 1.0)
        if chosen == "bernoulli" and not gives_probabilities:
            raise ValueError(
                "--reconstruction_loss bernoulli needs a network that gives probabilities, from 0 to 1, and not "
                f"{self.runner.sample_range}."
            )
        if chosen is None and self.config.architecture in LATENT_DIFFUSION_ARCHITECTURES:
            return "l1"
        return chosen or ("bernoulli" if gives_probabilities else "mse")

    def build_reconstruction_evaluator(self) -> AutoencoderEvaluator:
        """What measures and shows reconstructions."""
        config = self.config
        return AutoencoderEvaluator(
            self.runner,
            self.validation_images,
            self.context,
            split=config.validation_split or config.dataset_split,
            seed=config.seed,
            reconstruction_type=self.reconstruction_type,
            denoising=config.denoising,
            extractor=self.evaluator.extractor,
            num_samples=config.num_evaluation_samples,
            batch_size=config.evaluation_batch_size,
        )

    def identity(self) -> dict:
        names = ["objective", "reconstruction_loss", "denoising"]
        names += ["beta", "kl_warmup_steps", "kl_capacity", "kl_capacity_steps"]
        names += ["total_correlation_estimator", "perceptual_network", "perceptual_weight"]
        names += ["adversarial_weight", "adversarial_loss", "adversarial_start"]
        # The checkpoints of all autoencoders have this name, whichever class trains them.
        return {"class": "AutoencoderRecipe", **{name: getattr(self.config, name) for name in names}}

    def averaged(self, names):
        return ("autoencoder",)

    def sample_grid(self, generate):
        """Images above their reconstructions, and samples of the prior."""
        return self.reconstruction_evaluator.panel(generate)

    def evaluate(self, generate):
        """The measures of the reconstructions, and with a feature extractor the measures of samples."""
        rows = [self.reconstruction_evaluator()]
        if generate.pipeline.has_prior and self.evaluator.extractor is not None:
            rows.append({"method": "samples", **self.evaluator.measure(generate)})
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


class FactorVAERecipe(AutoencoderRecipe):
    """Kim and Mnih 2018, algorithm 2: a discriminator of latents estimates their total correlation."""

    def networks(self) -> dict[str, torch.nn.Module]:
        """The autoencoder, and the discriminator of its latents."""
        networks, arguments = super().networks(), self.config.latent_discriminator
        latent_dim = networks["autoencoder"].config.latent_dim
        discriminator = build_network(
            LatentDiscriminator, "--latent_discriminator", arguments, decided={"latent_dim": latent_dim}
        )
        return {**networks, "discriminator": discriminator}

    def step(self, batch, draw):
        output = self.improve_autoencoder(batch["pixel_values"], draw)
        self.improve_discriminator(output.latents.detach(), draw)

    def build_regularizer(self) -> Regularizer:
        """The divergence, and the weighted estimate of the total correlation (eq. 2)."""
        config = self.config
        return JudgedTotalCorrelation(config.divergence_weight, config.kl_warmup_steps, self.total_correlation)

    def total_correlation(self, latents: torch.Tensor) -> torch.Tensor:
        """The estimate log D(z) / (1 - D(z)) (eq. 3), which is the logit of the discriminator, of shape (N,)."""
        return self.network("discriminator")(latents).logits.float()

    def improve_discriminator(self, latents: torch.Tensor, draw) -> None:
        """Teach the discriminator to tell latents from shuffled ones.

        The paper shuffles another batch than the one that the autoencoder has seen; here both are the same.
        """
        context = self.context
        own = len(latents) * context.process_index
        shuffled = shuffle_dimensions(context.all_rows(latents), context.all_rows(draw.uniform(latents.shape[1])))
        shuffled = shuffled[own : own + len(latents)]
        logits, shuffled_logits = self.discriminator(torch.cat([latents, shuffled])).logits.chunk(2)
        self.minimise("discriminator", latent_discriminator_loss(logits, shuffled_logits))
        self.log(discriminator_accuracy=((logits > 0).float() + (shuffled_logits < 0).float()) / 2)

    # What stands around the algorithm

    def optimizer_options(self, name):
        if name != "discriminator":
            return {}
        rate = self.config.discriminator_learning_rate or 1e-4
        return {"learning_rate": rate, "adam_beta1": 0.5, "adam_beta2": 0.9}  # appendix A


class VQVAERecipe(AutoencoderRecipe):
    """Van den Oord et al. 2017: latents are replaced by the nearest entries of a codebook."""

    def step(self, batch, draw):
        output = self.improve_autoencoder(batch["pixel_values"], draw)
        self._step = draw.step
        self.gather(**{f"continuous_{level}": latents.float() for level, latents in enumerate(output.continuous)})

    def after_update(self, **gathered):
        """Move codes towards the mean of the latents that they replace in the global batch (Razavi et al. 2019, A)."""
        super().after_update(**gathered)
        codes, latents = (
            [gathered[name] for name in sorted(gathered) if name.startswith(kind)] for kind in ("codes", "continuous")
        )
        if not latents:
            return
        if self.config.architecture == "vqvae":
            codes, latents = codes[0], latents[0]
        generator = torch.Generator().manual_seed(derive_seed(self.config.seed, "revived codes", self._step))
        self.network("autoencoder").update_codebook(codes, latents, generator=generator)

    def build_regularizer(self) -> Regularizer:
        """The commitment of latents to their codes."""
        return Quantization(self.runner.num_codes, self.runner.network.config.embedding_dim)


class DiscreteVAERecipe(AutoencoderRecipe):
    """Ramesh et al. 2021, section 2.1: the evidence lower bound, with codes that are relaxed by a Gumbel softmax."""

    def reconstruct(self, images, draw):
        """Decode mixtures of codes, which come ever nearer to single codes."""
        inputs = self.runner.to_network(corrupt(images, self.config.denoising, draw))
        network = self.network("autoencoder")
        uniforms = draw.uniform(network.config.num_embeddings, *(side // network.stride for side in self.config.size))
        noise = -torch.log((-torch.log(uniforms.clamp(min=1e-20))).clamp(min=1e-20))
        output = self.autoencoder(inputs, noise, self.temperature(draw.step))
        return Pass(output.sample, codes=[output.codes], logits=output.logits)

    def temperature(self, step: int) -> float:
        """The temperature of the softmax, which falls by half a cosine from 1 (appendix A.2)."""
        last, done = self.config.final_temperature, rising(step, self.config.temperature_steps)
        return last + (1 - last) * (1 + math.cos(math.pi * done)) / 2

    def build_regularizer(self) -> Regularizer:
        """The divergence of the codes from the uniform distribution."""
        config = self.config
        return UniformDivergence(self.runner.num_codes, config.divergence_weight, config.kl_warmup_steps)

    # What stands around the algorithm

    def choose_reconstruction_type(self) -> str:
        if self.config.reconstruction_loss == "bernoulli":
            raise ValueError("--reconstruction_loss is mse or l1 for --architecture dvae, not bernoulli.")
        return self.config.reconstruction_loss or "mse"

    def identity(self) -> dict:
        names = ("final_temperature", "temperature_steps")
        return {**super().identity(), **{name: getattr(self.config, name) for name in names}}


class LatentDiffusionAutoencoderRecipe(AutoencoderRecipe):
    """Esser et al. 2021, section 3.1, Rombach et al. 2022, appendix G: with perceptual and adversarial losses."""

    def networks(self) -> dict[str, torch.nn.Module]:
        """The autoencoder, and the discriminator of patches of its reconstructions."""
        config, networks = self.config, super().networks()
        if config.adversarial_weight > 0:
            networks["discriminator"] = discriminator = build_network(
                PatchDiscriminator,
                "--patch_discriminator",
                config.patch_discriminator,
                usual={"normalization": "instance"},
                decided={"in_channels": config.channels},
            )
            # Images that are too small are reported now, and not when the discriminator starts to count.
            with torch.no_grad():
                discriminator.eval()(torch.zeros(1, config.channels, *config.size))
        return networks

    def step(self, batch, draw):
        images = batch["pixel_values"]
        is_adversarial = self.config.adversarial_weight > 0 and draw.step >= self.config.adversarial_start

        output = self.reconstruct(images, draw)
        errors = self.reconstruction_errors(output, images)
        reconstruction = self.scaled(errors + self.perceptual_errors(output.sample, images))
        losses = reconstruction + self.regularisation(output, errors, draw)
        if is_adversarial:
            losses = losses + self.adversarial_losses(output.sample, reconstruction)
        self.minimise("autoencoder", losses)

        if is_adversarial:
            self.improve_discriminator(images, output.sample.detach())

    def perceptual_errors(self, sample: torch.Tensor, images: torch.Tensor) -> torch.Tensor | float:
        """The weighted perceptual distances (N,), times the number of values, because errors are sums over these."""
        if self.perceptual_loss is None:
            return 0.0
        distances = self.perceptual_loss(sample, images)
        self.log(perceptual_distance=distances)
        return self.num_values * self.config.perceptual_weight * distances

    def adversarial_losses(self, sample: torch.Tensor, reconstruction: torch.Tensor) -> torch.Tensor:
        """The losses of reconstructions against the discriminator (N,), weighted as in Esser et al. 2021, eq. 7."""
        losses = generator_loss(self.config.adversarial_loss, self.network("discriminator")(sample).logits)
        last_layer = self.network("autoencoder").decoder.conv_out.weight
        gradients = [last_layer_gradient(loss.mean(), last_layer) for loss in (reconstruction, losses)]
        # Gradients of the global batch, and thus the same weight on all processes.
        gradients = self.context.all_rows(torch.stack(gradients)[None]).mean(dim=0)
        weight = adaptive_weight(*gradients)
        self.log(adversarial=losses, adaptive_weight=weight)
        return self.config.adversarial_weight * weight * losses

    def improve_discriminator(self, images: torch.Tensor, reconstructions: torch.Tensor) -> None:
        """Teach the discriminator to tell images from reconstructions."""
        kind = self.config.adversarial_loss
        on_real, on_fake = judge_both(self.discriminator, images, reconstructions)
        self.minimise("discriminator", discriminator_loss(kind, on_real.logits, on_fake.logits))
        self.log(**accuracies(kind, on_real.logits, on_fake.logits))

    def build_regularizer(self) -> Regularizer:
        """The commitment of latents to their codes, or a slight divergence from the prior."""
        return Quantization(self.runner.num_codes) if self.config.architecture == "vq" else super().build_regularizer()

    def complete(self, pipeline):
        """Set what brings latents to unit variance (Rombach et al. 2022, appendix G)."""
        if self.config.gives_latent_statistics:
            return
        config, autoencoder = self.config, pipeline.autoencoder
        latents = measure_autoencoder(autoencoder, self.dataset, config.evaluation_batch_size, self.context)
        by_channel = config.latent_scale == "per_channel"
        published = latents.by_channel() if by_channel else latents.as_a_whole()
        if published is not None:  # a network that has learned nothing may have latents without any scale
            self.latents = latents
            autoencoder.register_to_config(**published)

    # What stands around the algorithm

    def __init__(self, config: AutoencoderConfig, context):
        if config.adversarial_weight > 0:
            context.refuse_sharding("--adversarial_weight")
        super().__init__(config, context)
        self.latents = None
        self.perceptual_loss = None
        if config.perceptual_network is not None:
            self.perceptual_loss = load_perceptual_loss(
                config.perceptual_network, context.device, (config.channels, *config.size)
            )

    def optimizer_options(self, name):
        rate = self.config.discriminator_learning_rate
        return {"learning_rate": rate} if name == "discriminator" and rate is not None else {}

    def describe(self):
        description = super().describe()
        return {**description, "task": f"{description['task']} {self.describe_scale()}"}

    def describe_scale(self) -> str:
        """A sentence about what brings the latents to unit variance, and where it comes from."""
        factor = self.network("autoencoder").config.scaling_factor
        if self.latents is None:
            origin = "given" if self.config.gives_latent_statistics else "not measured"
            return f"Its `scaling_factor` is {factor} ({origin})."
        images = f"the first {self.latents.num_images} training images"
        if self.config.latent_scale == "per_channel":
            return f"Its `latents_mean` and `latents_std` are the mean and deviation of each channel over {images}."
        before = "before their quantization " if self.config.architecture == "vq" else ""
        return (
            f"Its `scaling_factor` is {factor} (1 / {self.latents.std:.5g}, the standard deviation of the latents "
            f"{before}of {images})."
        )


STATISTICS = ("scaling_factor", "latents_mean", "latents_std")

# The usual weights of the divergence, or of the total correlation, by objective.
BETAS = {"vae": 1.0, "beta_vae": 4.0, "beta_tc": 6.0, "factor": 10.0}
# Of beta_vae for networks with maps of latents: the "slight KL penalty" of Rombach et al. 2022; and a small one for
# discrete VAEs, because half a squared error is small beside DALL-E's likelihood.
SLIGHT_BETAS = {"kl": 1e-6, "dvae": 0.01}


@dataclass
class AutoencoderConfig(ValidationConfig):
    """The options of train_autoencoder.py."""

    architecture: Literal["mlp", "conv", "burgess", "vqvae", "vqvae2", "dvae", "kl", "vq"] = option(
        "conv",
        help="The network; kl and vq are diffusers' AutoencoderKL and VQModel.",
        group="network",
        essential=True,
    )
    autoencoder: JSONObject = option(
        JSONObject(),
        help="Arguments of its class, as JSON or a YAML mapping; by default they suit the resolution.",
        group="network",
    )
    downsampling_factor: Literal[4, 8] | None = option(
        help="kl, vq: the network of latent diffusion that divides the sides of images by this factor (Rombach et al. "
        "2022); --autoencoder replaces single arguments of it. By default, a smaller one that suits the resolution.",
        group="network",
    )
    objective: Literal["autoencoder", "vae", "beta_vae", "beta_tc", "factor"] | None = option(
        help="What is minimised: with autoencoder, the error of reconstructions (and the commitment to codes); "
        "otherwise also a divergence from a prior. By default vae, but beta_vae for kl and dvae, and autoencoder for "
        "other networks with codes.",
        essential=True,
    )
    reconstruction_loss: ReconstructionLoss | None = option(
        help="bernoulli (for networks whose output is a sigmoid), mse (half the squared error) or l1. By default l1 "
        "for kl and vq, bernoulli after a sigmoid, and mse otherwise."
    )
    denoising: float = option(
        0.0, help="The standard deviation of noise that is added to the input, in [-1, 1]; the target stays clean."
    )
    beta: float | None = option(
        help="The weight of the divergence (beta_vae: by default 4, for kl 1e-6, for dvae 0.01) or of the total "
        "correlation (beta_tc: 6; factor: 10, there called gamma)."
    )
    kl_warmup_steps: int = option(0, help="Updates in which the weight of the divergence rises from 0.")
    kl_capacity: float | None = option(
        help="beta_vae: pull the divergence to this many nats, instead of to 0 (Burgess et al. 2018)."
    )
    kl_capacity_steps: int = option(0, help="Updates in which that capacity rises from 0.")
    final_temperature: float = option(
        1 / 16, help="dvae: the temperature of the Gumbel softmax in the end; it starts at 1."
    )
    temperature_steps: int = option(1000, help="dvae: updates in which that temperature falls.")
    total_correlation_estimator: TotalCorrelationEstimator = option(
        "stratified", help="beta_tc: how the aggregate posterior is estimated from a batch."
    )
    latent_discriminator: JSONObject = option(
        JSONObject(), help="factor: arguments of LatentDiscriminator.", group="network"
    )

    perceptual_network: str | None = option(
        help="kl, vq: lpips, or a local folder or Hub name of an image model, to add a distance of its features."
    )
    perceptual_weight: float = option(1.0, help="The weight of that distance, relative to the mean error of a value.")
    adversarial_weight: float = option(
        0.0, help="kl, vq: the weight of a patch discriminator, times the adaptive weight (latent diffusion: 0.5)."
    )
    adversarial_loss: AdversarialLoss = option("hinge", help="The loss of that discriminator.")
    adversarial_start: int = option(0, help="The update from which the discriminator counts.")
    patch_discriminator: JSONObject = option(JSONObject(), help="Arguments of PatchDiscriminator.", group="network")
    latent_scale: Literal["measured", "per_channel"] = option(
        "measured",
        help="kl, vq: what brings the latents to unit variance and is published: one scaling_factor, or (kl) the mean "
        "and standard deviation of each channel, latents_mean and latents_std, with a scaling_factor of 1.",
        group="network",
    )
    discriminator_learning_rate: float | None = option(
        help="The learning rate of a discriminator; by default 1e-4 for factor, otherwise --learning_rate.",
        group="optimisation",
    )

    learning_rate: float = option(1e-3, help="The learning rate after the warm-up.")
    adam_weight_decay: float = option(0.0, help="AdamW's weight decay.")
    max_grad_norm: float = option(0.0, help="Gradients are scaled down to this norm; 0 never scales.")

    def __post_init__(self):
        super().__post_init__()
        name = self.architecture
        if self.objective is None:
            defaults = {"kl": "beta_vae", "dvae": "beta_vae", **dict.fromkeys(QUANTIZED_ARCHITECTURES, "autoencoder")}
            self.objective = defaults.get(name, "vae")
        objective = self.objective
        self.require(
            name not in QUANTIZED_ARCHITECTURES or objective == "autoencoder",
            f"--architecture {name} has codes and no posterior: its --objective is autoencoder, not {objective}",
        )
        self.require(
            name not in ("kl", "dvae") or objective in ("vae", "beta_vae"),
            f"--architecture {name} has a map of posteriors: its --objective is vae or beta_vae, not {objective}",
        )
        self.require(
            objective not in ("beta_tc", "factor") or self.train_batch_size > 1,
            f"--objective {objective} compares the images of a batch: --train_batch_size must be above 1",
        )
        self.require_default(
            name == "dvae",
            ("final_temperature", "temperature_steps"),
            f"is for --architecture dvae, not {name}",
        )
        self.require(self.final_temperature > 0, f"--final_temperature must be positive, not {self.final_temperature}")
        self._check_divergence(objective)
        self._check_discriminator(objective)
        self.require_default(
            objective == "beta_tc", ("total_correlation_estimator",), f"is for --objective beta_tc, not {objective}"
        )
        self.require_default(
            self.perceptual_network is not None,
            ("perceptual_weight",),
            "is for --perceptual_network, which is not set",
        )
        self.require_default(
            self.adversarial_weight > 0, ("adversarial_loss",), "is for --adversarial_weight above 0, which is not set"
        )

    def _check_divergence(self, objective: str) -> None:
        self.require(
            self.beta is None or objective in ("beta_vae", "beta_tc", "factor"),
            f"--beta is for beta_vae, beta_tc and factor, not for --objective {objective}",
        )
        self.require_at_least(
            0, "beta", "denoising", "kl_warmup_steps", "kl_capacity", "kl_capacity_steps", "temperature_steps"
        )
        self.require(
            self.kl_warmup_steps == 0 or objective != "autoencoder",
            "--kl_warmup_steps is for objectives with a divergence, not for --objective autoencoder",
        )
        self.require(
            self.kl_capacity is None or (objective == "beta_vae" and self.architecture != "dvae"),
            f"--kl_capacity is for --objective beta_vae, not {objective}, and not for --architecture dvae",
        )
        self.require(
            self.kl_capacity_steps == 0 or self.kl_capacity is not None,
            "--kl_capacity_steps needs the --kl_capacity that is reached",
        )
        self.require(
            self.kl_capacity is None or self.kl_warmup_steps == 0,
            "--kl_capacity and --kl_warmup_steps exclude each other: both make the divergence count slowly",
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
            ("downsampling_factor", self.downsampling_factor is not None),
            ("latent_scale", self.latent_scale != "measured"),
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

        self.require(
            name != "vq" or self.latent_scale == "measured",
            "--latent_scale per_channel is for --architecture kl: VQModel has no latents_mean and latents_std",
        )
        self.require(
            self.latent_scale == "measured" or not self.gives_latent_statistics,
            f"--latent_scale per_channel measures what --autoencoder can't give too: {', '.join(STATISTICS)}",
        )

    @property
    def gives_latent_statistics(self) -> bool:
        """Whether `autoencoder` has what would be measured otherwise."""
        return not self.autoencoder.keys().isdisjoint(STATISTICS)

    @property
    def divergence_weight(self) -> float:
        """`beta`, or the usual weight."""
        if self.beta is not None:
            return self.beta
        usual = SLIGHT_BETAS.get(self.architecture) if self.objective == "beta_vae" else None
        return BETAS[self.objective] if usual is None else usual


def autoencoder_recipe(config: AutoencoderConfig, context) -> AutoencoderRecipe:
    """The recipe that trains `--architecture` with `--objective`."""
    if config.architecture in LATENT_DIFFUSION_ARCHITECTURES:
        return LatentDiffusionAutoencoderRecipe(config, context)
    if config.architecture in QUANTIZED_ARCHITECTURES:
        return VQVAERecipe(config, context)
    if config.architecture == "dvae":
        return DiscreteVAERecipe(config, context)
    return FactorVAERecipe(config, context) if config.objective == "factor" else AutoencoderRecipe(config, context)


if __name__ == "__main__":
    run(autoencoder_recipe, AutoencoderConfig)
