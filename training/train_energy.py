"""Train an energy-based model: a network that gives likely images a low energy.

    accelerate launch training/train_energy.py --config examples/digits_energy.yaml

`--objective` says how. `persistent`: the energy of images falls, and the energy of images from Langevin chains rises.
The chains go on from a buffer of earlier ones ("Implicit Generation and Modeling with Energy-Based Models", Du and
Mordatch 2019). `contrastive_divergence`: the chains start at the images of the batch (Hinton 2002). `score_matching`:
without chains, the gradient of the energy of noisy images is matched to their noise (Vincent 2011, Li et al. 2019).
With `--classification_weight` the network is a classifier, too ("Your Classifier is Secretly an Energy Based Model",
Grathwohl et al. 2020). The result is an [`EnergyPipeline`].
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from diffusers_ext.data.randomness import derive_seed
from diffusers_ext.losses import contrastive_divergence_loss, denoising_score_matching_loss
from diffusers_ext.models import EnergyConvNet, EnergyMLP, EnergyResNet, EnergyWideResNet
from diffusers_ext.pipelines import EnergyPipeline
from diffusers_ext.schedulers import LangevinScheduler
from diffusers_ext.training.energy.replay_buffer import ReplayBuffer
from diffusers_ext.training.evaluation.outliers import outlier_row
from diffusers_ext.training.evaluation.sampled_recipe import ScoringRecipe
from diffusers_ext.training.loop.configuration import JSONObject, ValidationConfig, option
from diffusers_ext.training.loop.network_options import build_network


ARCHITECTURES = {
    "conv": EnergyConvNet,
    "mlp": EnergyMLP,
    "resnet": EnergyResNet,
    "wide_resnet": EnergyWideResNet,
}


class EnergyRecipe(ScoringRecipe):
    """Du and Mordatch 2019, algorithm 1, and what came before and after it."""

    def networks(self) -> dict[str, torch.nn.Module]:
        """The network, from images to their energies."""
        config = self.config
        decided = {"sample_size": config.size, "in_channels": config.channels, "num_classes": self.num_classes}

        def trial(model: torch.nn.Module) -> None:
            labels = None if self.num_classes is None else torch.zeros(2, dtype=torch.int64)
            model(torch.zeros(2, config.channels, *config.size), labels)

        model_class = ARCHITECTURES[config.architecture]
        return {"model": build_network(model_class, "--model", config.model, decided=decided, trial=trial)}

    def step(self, batch, draw):
        config = self.config
        labels = None if self.num_classes is None else batch["class_labels"]
        images = batch["pixel_values"] + config.data_noise_std * draw.normal_like(batch["pixel_values"])
        if config.objective == "score_matching":
            loss = self.match_scores(images, labels, draw)
        else:
            loss = self.diverge(images, labels, draw)
        if config.classification_weight > 0:
            logits = -self.model(images).class_energies
            self.log(train_accuracy=(logits.argmax(dim=1) == labels).float())
            loss = loss + config.classification_weight * F.cross_entropy(logits.float(), labels, reduction="none")
        self.minimise("model", loss)

    def diverge(self, images, labels, draw) -> torch.Tensor:
        """The contrastive divergence of images (N, ...) from those at which chains arrive, of shape (N,)."""
        starts, start_labels, places = images, labels, None
        if self.buffer is not None:
            starts, start_labels, places = self.buffer.sample(draw)
        fakes = self.run_chains(starts, start_labels, draw)
        if places is not None:
            self.gather(images=fakes, labels=start_labels, places=places)

        both = torch.cat([images, fakes])
        both_labels = None if labels is None else torch.cat([labels, start_labels])
        real_energy, fake_energy = self.model(both, both_labels).energy.chunk(2)
        self.log(real_energy=real_energy, fake_energy=fake_energy)
        return contrastive_divergence_loss(real_energy, fake_energy, self.config.energy_weight)

    def run_chains(self, images, labels, draw) -> torch.Tensor:
        """The images (N, ...) after `--num_chain_steps` Langevin steps, of a network that stays as it is."""
        network, chain = self.network("model").eval(), self.chain
        labels = None if self.num_classes is None else labels
        for timestep in range(self.config.num_chain_steps - 1, -1, -1):
            noise = draw.normal_like(images)
            images = chain.perturb(images, timestep, noise).requires_grad_()
            (gradient,) = torch.autograd.grad(network(images, labels).energy.sum(), images)
            images = chain.step(gradient, timestep, images.detach(), noise).prev_sample
        network.train()
        return images

    def match_scores(self, images, labels, draw) -> torch.Tensor:
        """How far the gradients at noisy images are from their noise, of shape (N,)."""
        low, high = self.config.noise_range
        noise = draw.normal_like(images)
        noise_stds = low * (high / low) ** draw.uniform()  # evenly on a logarithmic scale
        noisy = (images + noise_stds[:, None, None, None] * noise).requires_grad_()
        energy = self.model(noisy, labels).energy
        (gradient,) = torch.autograd.grad(energy.sum(), noisy, create_graph=True)
        return denoising_score_matching_loss(gradient, noise, noise_stds, scale_std=low)

    def after_update(self, images=None, labels=None, places=None):
        if self.buffer is not None:
            self.buffer.update(images, labels, places)

    def pipeline(self, model: torch.nn.Module) -> EnergyPipeline:
        """The pipeline that draws images by chains, and measures their energies."""
        return EnergyPipeline(model, self.langevin(self.config.num_inference_steps), id2label=self.id2label)

    # What stands around the algorithm

    def __init__(self, config: EnergyConfig, context):
        super().__init__(config, context)
        context.refuse_sharding("train_energy.py")
        self.chain, self.buffer = self.langevin(config.num_chain_steps), None
        if config.objective == "persistent":
            generator = torch.Generator().manual_seed(derive_seed(config.seed, "replay buffer"))
            shape = (config.channels, *config.size)
            self.buffer = ReplayBuffer(
                config.buffer_size, shape, self.num_classes, config.restart_probability, generator
            ).to(context.device)

    def langevin(self, num_steps: int) -> LangevinScheduler:
        """The scheduler of chains of this many steps."""
        config = self.config
        return LangevinScheduler(
            num_steps,
            config.step_size,
            config.noise_std,
            config.final_noise_std,
            config.max_gradient or None,
            noise_order=config.noise_order,
        )

    def identity(self) -> dict:
        return {"objective": self.config.objective, "buffer_size": self.config.buffer_size}

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {} if self.buffer is None else self.buffer.state_dict()

    def load_state_dict(self, state):
        if self.buffer is not None:
            self.buffer.load_state_dict(state)
            self.buffer.to(self.context.device)

    def score(self, pipeline, batches):
        """The energies of images beside the energies of strange ones."""
        return outlier_row(pipeline.energy, "energy", batches, gather=self.context.gather_rows)

    def describe(self) -> dict:
        config, names, kind = self.config, self.id2label, self.kind
        call = "batch_size=4"
        if names is not None:
            call = f"class_labels={next(iter(names.values()))!r}, num_images_per_label=4"
        strange = "  # high: a strange image"
        classified = "\nprobabilities = pipe.classify(images)" if config.classification_weight > 0 else ""
        return {
            "task": f"{kind.capitalize()} image generation by Langevin chains down an energy, and the energy of "
            f"images: {ARCHITECTURES[config.architecture].__name__}, trained from random weights by "
            f"{OBJECTIVES[config.objective]}.",
            "usage": f"images = pipe({call}).images\nenergies = pipe.energy(images){strange}{classified}",
            "tags": [f"{kind}-image-generation", "energy-based-model", config.architecture],
        }


OBJECTIVES = {
    "persistent": "contrastive divergence with persistent chains",
    "contrastive_divergence": "contrastive divergence",
    "score_matching": "denoising score matching",
}


@dataclass
class EnergyConfig(ValidationConfig):
    """The options of train_energy.py."""

    architecture: Literal["conv", "mlp", "resnet", "wide_resnet"] = option(
        "conv",
        help="Convolutions, dense layers, the residual network of Du and Mordatch with spectral norms, or JEM's.",
        group="network",
        essential=True,
    )
    model: JSONObject = option(
        JSONObject(),
        help="Arguments of EnergyConvNet, EnergyMLP, EnergyResNet or EnergyWideResNet, as JSON or a YAML mapping.",
        group="network",
    )
    class_conditional: bool = option(False, help="Give each class an energy of its own.")
    objective: Literal["persistent", "contrastive_divergence", "score_matching"] = option(
        "persistent",
        help="Chains that go on from a buffer, chains that start at the images, or denoising score matching.",
        essential=True,
    )
    energy_weight: float = option(0.1, help="The weight of the squared energies, which keeps them near 0.")
    classification_weight: float = option(
        0.0, help="The weight of the cross entropy of the classes (JEM); large ones disturb the chains."
    )
    data_noise_std: float = option(0.03, help="The standard deviation of noise in the images, which are in [-1, 1].")
    noise_range: list[float] = option(
        [0.1, 1.0], help="score_matching: the lowest and the highest standard deviation of the noise."
    )

    num_chain_steps: int = option(20, help="How many Langevin steps the chains make in each step of the training.")
    num_inference_steps: int = option(100, help="How many Langevin steps the pipeline makes from noise to an image.")
    step_size: float = option(10.0, help="What the gradient is multiplied by in a Langevin step.")
    noise_std: float = option(0.005, help="The standard deviation of the noise of a Langevin step.")
    final_noise_std: float | None = option(help="The noise_std of the last step of a chain, if the noise is to decay.")
    max_gradient: float = option(0.03, help="The largest value of a gradient in a Langevin step; 0 for no limit.")
    noise_order: Literal["before", "after"] = option(
        "before", help="Whether noise is added before the gradient is computed (Du and Mordatch) or after (JEM)."
    )
    buffer_size: int = option(2000, help="persistent: how many images of earlier chains are kept.")
    restart_probability: float = option(0.05, help="persistent: how often a chain starts from noise instead.")

    learning_rate: float = option(1e-3, help="The learning rate after the warm-up.")
    lr_warmup_steps: int = option(0, help="Updates until the learning rate is reached.")
    adam_beta1: float = option(0.0, help="AdamW: the decay of the mean of the gradients.")
    adam_weight_decay: float = option(0.0, help="AdamW's weight decay.")
    ema_decay: float = option(0.999, help="The decay of the weights' average.")
    train_batch_size: int = option(64, help="Images per process and step.")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "num_chain_steps", "num_inference_steps", "buffer_size")
        self.require_at_least(0, "energy_weight", "classification_weight", "data_noise_std", "noise_std")
        self.require_at_least(0, "max_gradient")
        self.require(self.step_size > 0, f"--step_size must be positive, not {self.step_size}")
        self.require(
            0 <= self.restart_probability <= 1,
            f"--restart_probability must be from 0 to 1, not {self.restart_probability}",
        )
        self.require(
            self.final_noise_std is None or 0 < self.final_noise_std <= self.noise_std,
            f"--final_noise_std must be above 0 and at most --noise_std, not {self.final_noise_std}",
        )
        self.require(
            len(self.noise_range) == 2 and 0 < self.noise_range[0] <= self.noise_range[1],
            f"--noise_range takes two positive numbers, the lower one first, not {self.noise_range}",
        )
        is_persistent = self.objective == "persistent"
        self.require_default(
            is_persistent, ("buffer_size", "restart_probability"), "is for --objective persistent, which is not set"
        )
        has_chains = self.objective != "score_matching"
        self.require_default(
            has_chains, ("num_chain_steps", "energy_weight"), "has no effect with --objective score_matching"
        )
        self.require_default(not has_chains, ("noise_range",), "is for --objective score_matching, which is not set")
        self.require(
            self.classification_weight == 0 or self.class_conditional,
            "--classification_weight needs --class_conditional",
        )
        self.require(
            self.classification_weight == 0 or self.architecture != "resnet",
            "--classification_weight needs an --architecture that computes the energies of all classes at once: conv, "
            "mlp or wide_resnet",
        )


if __name__ == "__main__":
    run(EnergyRecipe, EnergyConfig)
