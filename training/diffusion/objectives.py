"""The processes that a denoiser can be trained in: how they add noise, what the network learns, and what samples it.

In each of them the network sees `alpha * clean + sigma * noise`, and is told the noise level as its `timesteps`: an
index (discrete diffusion), alpha**2 or alpha (continuous diffusion), a time in [0, num_train_timesteps) (rectified
flow), or ln(sigma / alpha) / 4 (EDM).
"""

import math
from dataclasses import dataclass

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from diffusers_ext.losses import diffusion_loss, loss_weights, noise_levels, prediction_target
from diffusers_ext.losses.diffusion import LossWeighting
from diffusers_ext.losses.variational import LEARNED_VARIANCES, gaussian_diffusion_loss
from diffusers_ext.schedulers.scheduling_gaussian_diffusion import ExactDDPMScheduler
from diffusers_ext.training.loop.configuration import Config, option


@dataclass
class WeightingConfig(Config):
    """Which noise levels count how much."""

    loss_weighting: LossWeighting = option("none", help="How squared errors are weighted by noise level.")
    snr_gamma: float = option(5.0, help="min_snr: the largest weight.")
    p2_gamma: float = option(1.0, help="p2: the exponent.")
    p2_k: float = option(1.0, help="p2: the constant beside the signal-to-noise ratio.")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(0, "snr_gamma", "p2_gamma", "p2_k")


class Objective:
    """A process, what the network predicts in it, and what is minimised.

    Args:
        config ([`~diffusers_ext.training.train_diffusion.DiffusionConfig`]): the options.
        scheduler ([`SchedulerMixin`]): knows the noise level of each timestep.
    """

    def __init__(self, config, scheduler):
        self.config, self.scheduler = config, scheduler

    @property
    def outputs_per_channel(self) -> int:
        """The network's output channels for each channel of the images."""
        return 1

    def identity(self) -> dict:
        """What a resumed run may not change, by option."""
        raise NotImplementedError

    def draw_timesteps(self, draw) -> torch.Tensor:
        """A noise level for each sample, shape (N,): what the network is told, but for [`~Objective.told`]."""
        fraction = draw.uniform() if self.config.timestep_sampling != "logit_normal" else draw.normal().sigmoid()
        return fraction * self.config.num_train_timesteps

    def levels(self, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`alpha` and `sigma`, float32 of shape (N, 1, 1, 1)."""
        return noise_levels(self.scheduler, timesteps)

    def add_noise(self, clean: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """What the network sees, (N, C, H, W)."""
        alpha, sigma = self.levels(timesteps)
        return alpha * clean + sigma * noise

    def told(self, timesteps: torch.Tensor) -> torch.Tensor:
        """What the network is told of the noise at `timesteps` (N,): shape (N,)."""
        return timesteps

    def target(self, clean: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """What the network should say, (N, C, H, W)."""
        return prediction_target(self.config.prediction_type, clean, noise, *self.levels(timesteps))

    def losses(
        self,
        output: torch.Tensor,
        clean: torch.Tensor,
        noisy: torch.Tensor,
        noise: torch.Tensor,
        timesteps: torch.Tensor,
    ) -> torch.Tensor:
        """What is minimised, for each sample: shape (N,)."""
        return diffusion_loss(output, self.target(clean, noise, timesteps), self.weights(*self.levels(timesteps)))

    def sampling_scheduler(self):
        """A second-order sampler that comes nearer to the exact solution in 8 to 10 steps than DDIM or Euler in 20.

        Chosen by the distance to networks' own 200-step results; `tests/benchmarks/bench_solvers.py` measures it.
        """
        raise NotImplementedError

    def weights(self, alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The weight of each sample's squared error, shape (N, 1, 1, 1)."""
        config = self.config
        return loss_weights(
            config.loss_weighting,
            config.prediction_type,
            alpha,
            sigma,
            snr_gamma=config.snr_gamma,
            p2_gamma=config.p2_gamma,
            p2_k=config.p2_k,
        )


class DiscreteDiffusion(Objective):
    """Denoising diffusion (Ho et al. 2020), with the variances and losses of Nichol and Dhariwal (2021)."""

    def __init__(self, config):
        scheduler = ExactDDPMScheduler(
            num_train_timesteps=config.num_train_timesteps,
            beta_schedule=config.beta_schedule,
            prediction_type=config.prediction_type,
            variance_type=config.variance_type,
        )
        super().__init__(config, scheduler)

    @property
    def outputs_per_channel(self) -> int:
        return 2 if self.config.variance_type in LEARNED_VARIANCES else 1

    def identity(self) -> dict:
        names = ("prediction_type", "variance_type", "beta_schedule", "num_train_timesteps")
        return {name: getattr(self.config, name) for name in names}

    def draw_timesteps(self, draw) -> torch.Tensor:
        # A sigmoid can round up to 1.
        return super().draw_timesteps(draw).long().clamp(max=self.config.num_train_timesteps - 1)

    def losses(self, output, clean, noisy, noise, timesteps):
        loss_type = self.config.loss_type
        parts = gaussian_diffusion_loss(loss_type, output, clean, noisy, noise, timesteps, self.scheduler)
        if parts.mse is None or self.config.loss_weighting == "none":
            return parts.loss
        mse = self.weights(*self.levels(timesteps)).flatten() * parts.mse
        return mse if parts.vb is None else mse + parts.vb

    def sampling_scheduler(self):
        # A solver of the probability flow has no use for a learned variance, and the pipeline keeps it from it. The
        # variance type stays in the configuration: ExactDDPMScheduler.from_config makes the ancestral sampler of it.
        # Thresholding with this maximum is clipping to [-1, 1], without which long steps at levels with next to no
        # signal to divide epsilon by can end in noise.
        return UniPCMultistepScheduler.from_config(
            self.scheduler.config, final_sigmas_type="sigma_min", thresholding=True, sample_max_value=1.0
        )


class ContinuousDiffusion(DiscreteDiffusion):
    """Denoising diffusion at all noise levels, of which the network is told gamma = alpha**2 (Palette) or its root.

    Gamma is uniform between two neighbouring levels of the discrete process (Chen et al. 2021, "WaveGrad"; Saharia et
    al. 2021, "SR3"). Timesteps are fractional: the share of the way from one to the next.
    """

    def draw_timesteps(self, draw):
        return Objective.draw_timesteps(self, draw) * (1 - 1 / self.config.num_train_timesteps)

    def levels(self, timesteps):
        gamma = self._gamma(timesteps)[:, None, None, None]
        return gamma.sqrt(), (1 - gamma).sqrt()

    def told(self, timesteps):
        gamma = self._gamma(timesteps)
        return gamma if self.config.noise_conditioning == "gamma" else gamma.sqrt()

    def _gamma(self, timesteps: torch.Tensor) -> torch.Tensor:
        gammas = self.scheduler.alphas_cumprod.to(timesteps.device, torch.float32)
        return torch.lerp(gammas[timesteps.floor().long()], gammas[timesteps.ceil().long()], timesteps.frac())


class Regression(Objective):
    """No process: from what is pure noise, and so tells nothing, to the image in one step.

    What a generative model has to be better than: under the squared error such a network says the mean of all images
    that fit its condition.
    """

    def __init__(self, config):
        # The only step of this sampler, whose result is the network's output as it is.
        scheduler = DDIMScheduler(
            num_train_timesteps=config.num_train_timesteps, prediction_type="sample", timestep_spacing="trailing"
        )
        super().__init__(config, scheduler)

    def identity(self) -> dict:
        return {name: getattr(self.config, name) for name in ("prediction_type", "num_train_timesteps")}

    def draw_timesteps(self, draw) -> torch.Tensor:
        return torch.full_like(draw.uniform(), self.config.num_train_timesteps - 1).long()

    def levels(self, timesteps):
        ones = torch.ones_like(timesteps, dtype=torch.float32)[:, None, None, None]
        return 0 * ones, ones

    def target(self, clean, noise, timesteps):
        return clean

    def sampling_scheduler(self):
        return DDIMScheduler.from_config(self.scheduler.config)


class RectifiedFlow(Objective):
    """Flow matching along straight lines (Liu et al. 2022, Lipman et al. 2022)."""

    def __init__(self, config):
        super().__init__(config, FlowMatchEulerDiscreteScheduler(num_train_timesteps=config.num_train_timesteps))

    def identity(self) -> dict:
        names = ("prediction_type", "num_train_timesteps")
        return {name: getattr(self.config, name) for name in names}

    def sampling_scheduler(self):
        # Neighbouring pixels tell the same, so larger images need more noise to hide as much (Hoogeboom et al. 2023,
        # "simple diffusion"), and steps at higher noise. Nearest to the exact solution: 0.5 at 8 pixels, 1 at 64.
        side = math.prod(self.config.size) ** 0.5
        return DPMSolverMultistepScheduler(
            num_train_timesteps=self.config.num_train_timesteps,
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=max(0.5, (side / 64) ** (1 / 3)),
        )


class EDM(Objective):
    """The design of Karras et al. (2022), table 1: the denoiser is c_skip * noisy + c_out * network(c_in * noisy)."""

    def __init__(self, config):
        super().__init__(config, EDMDPMSolverMultistepScheduler(sigma_data=config.sigma_data))

    def identity(self) -> dict:
        names = ("prediction_type", "sigma_data")
        return {name: getattr(self.config, name) for name in names}

    def draw_timesteps(self, draw) -> torch.Tensor:
        """c_noise = ln(sigma) / 4, with a normal ln(sigma)."""
        return (self.config.edm_p_mean + self.config.edm_p_std * draw.normal()) / 4

    def target(self, clean, noise, timesteps):
        alpha, sigma = self.levels(timesteps)  # of what the network sees: c_in and c_in * sigma
        sigma_data = self.config.sigma_data
        # (clean - c_skip * noisy) / c_out, without its cancellation at small sigma. The weight on the error of the
        # denoiser, 1 / c_out**2, makes that of the network 1 (eq. 8).
        return sigma / sigma_data * clean - alpha * sigma_data * noise

    def sampling_scheduler(self):
        return EDMDPMSolverMultistepScheduler.from_config(self.scheduler.config)


def build_objective(config) -> Objective:
    """The objective that predicts what `config.prediction_type` says."""
    processes = {"flow_prediction": RectifiedFlow, "edm": EDM, "regression": Regression}
    return processes.get(config.prediction_type, DiscreteDiffusion)(config)


def process(scheduler) -> dict:
    """The process that a network was trained in, as far as the scheduler of its pipeline tells: values by option."""
    kind = prediction_type(scheduler)
    names = {"edm": ("sigma_data",), "flow_prediction": ("num_train_timesteps",)}
    discrete = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "trained_betas")
    return {"prediction_type": kind, **{name: scheduler.config.get(name) for name in names.get(kind, discrete)}}


def prediction_type(scheduler) -> str:
    """What a network predicts, as `--prediction_type` names it, by the scheduler of its pipeline."""
    if "sigma_data" in scheduler.config:
        return "edm"
    # Flow-matching schedulers leave it unsaid.
    return scheduler.config.get("prediction_type", "flow_prediction")
