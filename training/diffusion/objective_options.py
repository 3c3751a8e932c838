"""The options that choose a noise process and what the network predicts in it."""

from dataclasses import dataclass
from typing import Literal

from diffusers_ext.losses.diffusion import PredictionType
from diffusers_ext.training.diffusion.objectives import (
    EDM,
    DiscreteDiffusion,
    Objective,
    RectifiedFlow,
    WeightingConfig,
)
from diffusers_ext.training.loop.configuration import option


@dataclass
class ObjectiveConfig(WeightingConfig):
    """The noise process, what the network predicts, and how noise levels are drawn and weighted."""

    prediction_type: Literal[PredictionType, "edm"] = option(
        "flow_prediction",
        help="What the network predicts; edm is the preconditioned denoiser of Karras et al. (2022).",
        essential=True,
    )
    beta_schedule: str = option(
        "squaredcos_cap_v2", help="The noise schedule, as in DDPMScheduler; not for flows and edm."
    )
    num_train_timesteps: int = option(1000, help="The number of noise levels; a flow is continuous.")
    variance_type: Literal["fixed_small", "fixed_large", "learned", "learned_range"] = option(
        "fixed_small",
        help="The variance of a denoising step; a learned one (Nichol and Dhariwal 2021) doubles the network's output "
        "channels. Not for flows and edm.",
    )
    loss_type: Literal["mse", "rescaled_mse", "kl", "rescaled_kl"] = option(
        "mse",
        help="mse: the squared error, and with a learned variance also the variational bound, which trains only the "
        "variance (the hybrid loss); rescaled_mse: the same with num_train_timesteps / 1000 times the bound; kl: the "
        "bound alone; rescaled_kl: num_train_timesteps times the bound. Flows and edm have mse only.",
    )
    edm_p_mean: float = option(-1.2, help="edm: the mean of ln(sigma).")
    edm_p_std: float = option(1.2, help="edm: the standard deviation of ln(sigma).")
    sigma_data: float | None = option(
        help="edm: the standard deviation of what the network makes; by default 0.5 for pixels in [-1, 1], "
        "and 1 for latents."
    )
    timestep_sampling: Literal["uniform", "logit_normal"] = option(
        "uniform",
        help="How noise levels are drawn: logit_normal (Esser et al. 2024) prefers middle levels. Not for edm.",
    )

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "num_train_timesteps")
        for name in ("sigma_data", "edm_p_std"):
            value = getattr(self, name)
            self.require(value is None or value > 0, f"--{name} must be positive, not {value}")
        self._check_objective()

    def _check_objective(self) -> None:
        kind = self.prediction_type
        self.require_default(
            kind == "edm",
            ("edm_p_mean", "edm_p_std", "sigma_data"),
            f"is for --prediction_type edm, not {kind}",
        )
        self.require_default(
            kind not in ("flow_prediction", "edm"),
            ("beta_schedule",),
            f"is for epsilon, sample and v_prediction, not for --prediction_type {kind}",
        )
        if kind in ("flow_prediction", "edm"):
            for name, only in (("variance_type", "fixed_small"), ("loss_type", "mse")):
                value = getattr(self, name)
                self.require(
                    value == only,
                    f"--{name} {value} is for epsilon, sample and v_prediction, not for --prediction_type {kind}",
                )
        if kind == "edm":
            self.require(
                self.timestep_sampling == "uniform" and self.loss_weighting == "none",
                "--prediction_type edm has its own distribution of noise levels and weights: leave out "
                "--timestep_sampling and --loss_weighting",
            )
        self.require(
            self.loss_type not in ("kl", "rescaled_kl") or self.loss_weighting == "none",
            f"--loss_type {self.loss_type} has no squared error for --loss_weighting {self.loss_weighting} to weight",
        )

    def objective(self, size: tuple[int, int] | None = None, is_latent: bool = False) -> Objective:
        """The noise process that `--prediction_type` names, for images or latents of this height and width.

        By default the size is that of `--resolution`.
        """
        if self.prediction_type == "edm":
            sigma_data = self.sigma_data or (1.0 if is_latent else 0.5)
            return EDM(sigma_data=sigma_data, p_mean=self.edm_p_mean, p_std=self.edm_p_std)
        common = {
            "num_train_timesteps": self.num_train_timesteps,
            "timestep_sampling": self.timestep_sampling,
            "weighting": self.weighting(),
        }
        if self.prediction_type == "flow_prediction":
            return RectifiedFlow(size=size or self.size, **common)
        return DiscreteDiffusion(
            prediction_type=self.prediction_type,
            beta_schedule=self.beta_schedule,
            variance_type=self.variance_type,
            loss_type=self.loss_type,
            clips=not is_latent,
            **common,
        )
