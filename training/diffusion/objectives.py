"""The noise processes that a denoiser can be trained in: their noise levels, targets, losses and samplers.

In each of them the network sees `alpha * clean + sigma * noise`, and gets the noise level as its `timesteps` argument:
an index (discrete diffusion), alpha**2 or alpha (continuous diffusion), a time in [0, num_train_timesteps) (rectified
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


@dataclass(frozen=True)
class Weighting:
    """The weight of squared errors at each noise level; see [`loss_weights`]."""

    name: LossWeighting = "none"
    snr_gamma: float = 5.0
    p2_gamma: float = 1.0
    p2_k: float = 1.0


@dataclass
class WeightingConfig(Config):
    """How much each noise level counts."""

    loss_weighting: LossWeighting = option("none", help="How squared errors are weighted by noise level.")
    snr_gamma: float = option(5.0, help="min_snr: the largest weight.")
    p2_gamma: float = option(1.0, help="p2: the exponent.")
    p2_k: float = option(1.0, help="p2: the constant added to the signal-to-noise ratio.")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(0, "snr_gamma", "p2_gamma", "p2_k")
        for name, used_by in (("snr_gamma", "min_snr"), ("p2_gamma", "p2"), ("p2_k", "p2")):
            self.require_default(
                self.loss_weighting == used_by,
                (name,),
                f"is for --loss_weighting {used_by}, not {self.loss_weighting}",
            )

    def weighting(self) -> Weighting:
        """The weighting that these options describe."""
        return Weighting(self.loss_weighting, self.snr_gamma, self.p2_gamma, self.p2_k)


class Objective:
    """A noise process, what the network predicts in it, and the loss.

    Args:
        scheduler ([`SchedulerMixin`]): has the noise level of each timestep.
        prediction_type (`str`): what the network predicts, see [`prediction_target`].
        num_train_timesteps (`int`): the length of the process.
        timestep_sampling (`str`): how [`~Objective.draw_timesteps`] draws: "uniform" or "logit_normal" (Esser et al.
            2024, section 3.1).
        weighting ([`Weighting`]): the weight of squared errors by noise level.
    """

    def __init__(
        self,
        scheduler,
        *,
        prediction_type: str,
        num_train_timesteps: int,
        timestep_sampling: str = "uniform",
        weighting: Weighting = Weighting(),  # noqa: B008, frozen
    ):
        self.scheduler, self.prediction_type = scheduler, prediction_type
        self.num_train_timesteps, self.timestep_sampling = num_train_timesteps, timestep_sampling
        self.weighting = weighting

    @property
    def outputs_per_channel(self) -> int:
        """The network's output channels for each channel of the images."""
        return 1

    def identity(self) -> dict:
        """What a resumed run may not change, by option."""
        return {"prediction_type": self.prediction_type, "num_train_timesteps": self.num_train_timesteps}

    def draw_timesteps(self, draw) -> torch.Tensor:
        """A timestep for each sample, shape (N,), in [0, num_train_timesteps)."""
        fraction = draw.uniform() if self.timestep_sampling != "logit_normal" else draw.normal().sigmoid()
        return fraction * self.num_train_timesteps

    def levels(self, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`alpha` and `sigma`, float32 of shape (N, 1, 1, 1)."""
        return noise_levels(self.scheduler, timesteps)

    def add_noise(self, clean: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The noisy images that the network sees, (N, C, H, W)."""
        alpha, sigma = self.levels(timesteps)
        return alpha * clean + sigma * noise

    def model_timesteps(self, timesteps: torch.Tensor) -> torch.Tensor:
        """The network's `timesteps` argument for `timesteps` (N,): shape (N,)."""
        return timesteps

    def target(self, clean: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The output that the network should give, (N, C, H, W)."""
        return prediction_target(self.prediction_type, clean, noise, *self.levels(timesteps))

    def losses(
        self,
        output: torch.Tensor,
        clean: torch.Tensor,
        noisy: torch.Tensor,
        noise: torch.Tensor,
        timesteps: torch.Tensor,
        mask: torch.Tensor | None = None,
        norm: str = "l2",
    ) -> torch.Tensor:
        """The weighted error of each sample, in float32 and of shape (N,).

        Args:
            output (`torch.Tensor` of shape (N, C, H, W)): the network's output for `noisy`.
            clean, noisy, noise (`torch.Tensor` of shape (N, C, H, W)): the images, and what was made of them.
            timesteps (`torch.Tensor` of shape (N,)): from [`~Objective.draw_timesteps`].
            mask (`torch.Tensor` of shape (N, 1, H, W), *optional*): 1 where pixels are generated, 0 where they are
                known. The mean is still over all pixels, as in
                https://github.com/Janspiry/Palette-Image-to-Image-Diffusion-Models: every generated pixel has the same
                weight, whatever the size of the mask.
            norm (`str`): "l2", the squared error, or "l1", the absolute error.
        """
        target, weights = self.target(clean, noise, timesteps), self.weights(*self.levels(timesteps))
        if mask is None and norm == "l2":
            return diffusion_loss(output, target, weights)
        errors = output.float() - target.float()
        errors = errors if mask is None else mask * errors
        return weights.flatten() * (errors.square() if norm == "l2" else errors.abs()).mean(dim=(1, 2, 3))

    def sampling_scheduler(self):
        """A second-order sampler that comes nearer to the exact solution in 8 to 10 steps than DDIM or Euler in 20.

        It was chosen by the distance to the networks' own 200-step results; `tests/benchmarks/bench_solvers.py`
        measures it.
        """
        raise NotImplementedError

    def weights(self, alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The weight of each sample's squared error, shape (N, 1, 1, 1)."""
        weighting = self.weighting
        return loss_weights(
            weighting.name,
            self.prediction_type,
            alpha,
            sigma,
            snr_gamma=weighting.snr_gamma,
            p2_gamma=weighting.p2_gamma,
            p2_k=weighting.p2_k,
        )


class DiscreteDiffusion(Objective):
    """Denoising diffusion (Ho et al. 2020), with the variances and losses of Nichol and Dhariwal (2021).

    Args:
        prediction_type (`str`): "epsilon", "sample" or "v_prediction".
        num_train_timesteps (`int`), beta_schedule (`str`): the noise schedule, as in `DDPMScheduler`.
        variance_type (`str`): the variance of a denoising step; a learned one doubles the network's output channels.
        loss_type (`str`): see [`gaussian_diffusion_loss`].
        clips (`bool`): whether samples are in [-1, 1], as pixels are and latents are not.
        options: see [`Objective`].
    """

    def __init__(
        self,
        *,
        prediction_type: str,
        num_train_timesteps: int,
        beta_schedule: str,
        variance_type: str = "fixed_small",
        loss_type: str = "mse",
        clips: bool = True,
        **options,
    ):
        scheduler = ExactDDPMScheduler(
            num_train_timesteps=num_train_timesteps,
            beta_schedule=beta_schedule,
            prediction_type=prediction_type,
            variance_type=variance_type,
            clip_sample=clips,
        )
        super().__init__(
            scheduler, prediction_type=prediction_type, num_train_timesteps=num_train_timesteps, **options
        )
        self.beta_schedule, self.variance_type, self.loss_type = beta_schedule, variance_type, loss_type
        self.clips = clips
        if not clips and prediction_type == "epsilon" and hides_images_in_noise(scheduler):
            raise ValueError(
                f"--prediction_type epsilon with --beta_schedule {beta_schedule} is not for --vae: at the noisiest "
                "level an image can't be computed from the noise, and latents are not clipped. Use v_prediction, "
                "flow_prediction, or --beta_schedule scaled_linear."
            )

    @property
    def outputs_per_channel(self) -> int:
        return 2 if self.variance_type in LEARNED_VARIANCES else 1

    def identity(self) -> dict:
        return {**super().identity(), "variance_type": self.variance_type, "beta_schedule": self.beta_schedule}

    def draw_timesteps(self, draw) -> torch.Tensor:
        # A sigmoid can round up to 1.
        return super().draw_timesteps(draw).long().clamp(max=self.num_train_timesteps - 1)

    def losses(self, output, clean, noisy, noise, timesteps, mask=None, norm="l2"):
        if mask is not None or norm != "l2":
            return super().losses(output, clean, noisy, noise, timesteps, mask, norm)
        parts = gaussian_diffusion_loss(self.loss_type, output, clean, noisy, noise, timesteps, self.scheduler)
        if parts.mse is None or self.weighting.name == "none":
            return parts.loss
        mse = self.weights(*self.levels(timesteps)).flatten() * parts.mse
        return mse if parts.vb is None else mse + parts.vb

    def sampling_scheduler(self):
        # A solver of the probability flow does not use a learned variance, and the pipeline does not pass it on. The
        # variance type stays in the configuration: ExactDDPMScheduler.from_config makes the ancestral sampler of it.
        # Thresholding with this maximum is clipping to [-1, 1]. Without clipping, long steps can end in noise, because
        # epsilon is divided by next to no signal at the noisiest levels.
        return UniPCMultistepScheduler.from_config(
            self.scheduler.config, final_sigmas_type="sigma_min", thresholding=self.clips, sample_max_value=1.0
        )


class ContinuousDiffusion(DiscreteDiffusion):
    """Denoising diffusion at continuous noise levels; the network gets gamma = alpha**2 (Palette) or its root (SR3).

    Gamma is uniform between two neighbouring levels of the discrete process (Chen et al. 2021, "WaveGrad"; Saharia et
    al. 2021, "SR3"). Timesteps are fractional: the fraction is the way from one level to the next.

    Args:
        noise_conditioning (`str`): "gamma" or "sqrt_gamma".
        options: see [`DiscreteDiffusion`].
    """

    def __init__(self, *, noise_conditioning: str, **options):
        super().__init__(**options)
        self.noise_conditioning = noise_conditioning

    def draw_timesteps(self, draw):
        return Objective.draw_timesteps(self, draw) * (1 - 1 / self.num_train_timesteps)

    def levels(self, timesteps):
        gamma = self._gamma(timesteps)[:, None, None, None]
        return gamma.sqrt(), (1 - gamma).sqrt()

    def model_timesteps(self, timesteps):
        gamma = self._gamma(timesteps)
        return gamma if self.noise_conditioning == "gamma" else gamma.sqrt()

    def losses(self, output, clean, noisy, noise, timesteps, mask=None, norm="l2"):
        # Between two levels of the discrete process there is no variational bound.
        return Objective.losses(self, output, clean, noisy, noise, timesteps, mask, norm)

    def _gamma(self, timesteps: torch.Tensor) -> torch.Tensor:
        gammas = self.scheduler.alphas_cumprod.to(timesteps.device, torch.float32)
        return torch.lerp(gammas[timesteps.floor().long()], gammas[timesteps.ceil().long()], timesteps.frac())


class Regression(Objective):
    """No noise process: one step from pure noise, which carries no information, to the image.

    A baseline that a generative model has to beat: under the squared error such a network predicts the mean of all
    images that fit its condition.
    """

    def __init__(self, *, num_train_timesteps: int):
        # The only step of this sampler returns the network's output unchanged.
        scheduler = DDIMScheduler(
            num_train_timesteps=num_train_timesteps, prediction_type="sample", timestep_spacing="trailing"
        )
        super().__init__(scheduler, prediction_type="regression", num_train_timesteps=num_train_timesteps)

    def draw_timesteps(self, draw) -> torch.Tensor:
        return torch.full_like(draw.uniform(), self.num_train_timesteps - 1).long()

    def levels(self, timesteps):
        ones = torch.ones_like(timesteps, dtype=torch.float32)[:, None, None, None]
        return 0 * ones, ones

    def target(self, clean, noise, timesteps):
        return clean

    def sampling_scheduler(self):
        return DDIMScheduler.from_config(self.scheduler.config)


class RectifiedFlow(Objective):
    """Flow matching along straight lines (Liu et al. 2022, Lipman et al. 2022).

    Args:
        size (`tuple[int, int]`): height and width of the images, which shift the sampler's noise levels.
        num_train_timesteps (`int`): the time of pure noise.
        options: see [`Objective`].
    """

    def __init__(self, *, size: tuple[int, int], num_train_timesteps: int, **options):
        super().__init__(
            FlowMatchEulerDiscreteScheduler(num_train_timesteps=num_train_timesteps),
            prediction_type="flow_prediction",
            num_train_timesteps=num_train_timesteps,
            **options,
        )
        self.size = size

    def sampling_scheduler(self):
        # Neighbouring pixels are alike, so larger images need more noise to hide as much (Hoogeboom et al. 2023,
        # "simple diffusion"), and steps at higher noise. Nearest to the exact solution: 0.5 at 8 pixels, 1 at 64.
        side = math.prod(self.size) ** 0.5
        return DPMSolverMultistepScheduler(
            num_train_timesteps=self.num_train_timesteps,
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=max(0.5, (side / 64) ** (1 / 3)),
        )


class EDM(Objective):
    """The design of Karras et al. (2022), table 1: the denoiser is c_skip * noisy + c_out * network(c_in * noisy).

    Args:
        sigma_data (`float`): the standard deviation of the pixels in [-1, 1].
        p_mean, p_std (`float`): the mean and the standard deviation of ln(sigma).
    """

    def __init__(self, *, sigma_data: float = 0.5, p_mean: float = -1.2, p_std: float = 1.2):
        scheduler = EDMDPMSolverMultistepScheduler(sigma_data=sigma_data)
        super().__init__(scheduler, prediction_type="edm", num_train_timesteps=scheduler.config.num_train_timesteps)
        self.sigma_data, self.p_mean, self.p_std = sigma_data, p_mean, p_std

    def identity(self) -> dict:
        return {"prediction_type": self.prediction_type, "sigma_data": self.sigma_data}

    def draw_timesteps(self, draw) -> torch.Tensor:
        """c_noise = ln(sigma) / 4, with a normal ln(sigma)."""
        return (self.p_mean + self.p_std * draw.normal()) / 4

    def target(self, clean, noise, timesteps):
        alpha, sigma = self.levels(timesteps)  # of the network's input: c_in and c_in * sigma
        # (clean - c_skip * noisy) / c_out, written without its cancellation at small sigma. The weight on the error of
        # the denoiser, 1 / c_out**2, makes the weight on the error of the network 1 (eq. 8).
        return sigma / self.sigma_data * clean - alpha * self.sigma_data * noise

    def sampling_scheduler(self):
        return EDMDPMSolverMultistepScheduler.from_config(self.scheduler.config)


def hides_images_in_noise(scheduler) -> bool:
    """Whether a discrete process has so little signal in the end, below 1%, that the noise does not tell the image.

    An error of a predicted noise, divided by the signal, is one of the image.
    """
    return bool(scheduler.alphas_cumprod[-1] < 1e-4)


def process(scheduler) -> dict:
    """The process that a network was trained in, read from its pipeline's scheduler: values by option."""
    kind = prediction_type(scheduler)
    names = {"edm": ("sigma_data",), "flow_prediction": ("num_train_timesteps",)}
    discrete = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "trained_betas")
    return {"prediction_type": kind, **{name: scheduler.config.get(name) for name in names.get(kind, discrete)}}


def prediction_type(scheduler) -> str:
    """What a network predicts, as `--prediction_type` names it, by the scheduler of its pipeline."""
    if "sigma_data" in scheduler.config:
        return "edm"
    # Flow-matching schedulers have no such entry.
    return scheduler.config.get("prediction_type", "flow_prediction")
