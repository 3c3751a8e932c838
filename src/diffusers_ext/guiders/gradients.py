"""Guidance by a gradient, and what it needs of a scheduler: noise levels and what the denoiser predicts."""

import inspect
import math
from numbers import Real

import torch
from diffusers import BaseGuidance, SchedulerMixin
from diffusers.guiders.guider_utils import GuiderOutput


# Pure noise has no information about the condition. The gradient is only an error there, and 1 / alpha would amplify
# it.
MIN_SIGNAL = 1e-3


class GradientGuidance(BaseGuidance):
    """
    A guider that shifts a prediction by a gradient, and combines it with classifier-free guidance.

    Subclasses define `_gradient` and `_has_target`, register their configuration, with the arguments below, and call
    `_use_scheduler` when they are told what to guide to.

    Args:
        guidance_scale (`float`): the scale of the gradient; 0 disables it.
        classifier_free_guidance_scale (`float`): that of classifier-free guidance; 1 disables it.
        start, stop (`float`): the interval of steps with guidance, as fractions of the number of steps.
        enabled (`bool`): whether there is any guidance.

    Raises:
        ValueError: if a scale is not a finite number, or the interval is invalid.
    """

    _input_predictions = ["pred_cond", "pred_uncond"]

    def __init__(
        self, guidance_scale: float, classifier_free_guidance_scale: float, start: float, stop: float, enabled: bool
    ):
        super().__init__(start, stop, enabled)
        for name, scale in (
            ("guidance_scale", guidance_scale),
            ("classifier_free_guidance_scale", classifier_free_guidance_scale),
        ):
            if not isinstance(scale, Real) or not math.isfinite(scale):
                raise ValueError(f"`{name}` must be a finite number, but is {scale!r}.")
        self._scheduler = self._sample = self._condition_gradient = None

    def _gradient(self, pred: torch.Tensor) -> torch.Tensor:
        """The gradient of the log-probability at the input of the denoiser, `(N, C, H, W)` in float32."""
        raise NotImplementedError

    @property
    def _has_target(self) -> bool:
        """Whether there is something to guide to."""
        raise NotImplementedError

    def _use_scheduler(self, scheduler: SchedulerMixin) -> None:
        self._scheduler = scheduler
        self._leaves_it_to_scheduler = "condition_gradient" in inspect.signature(scheduler.step).parameters
        self._condition_gradient = None

    @property
    def condition_gradient(self) -> torch.Tensor | None:
        """The scaled gradient `(N, C, H, W)` of this step, if the scheduler uses it."""
        return self._condition_gradient

    def prepare_inputs(self, data: dict[str, torch.Tensor | tuple]) -> list:
        self._sample = data.get("sample")
        names = self._input_predictions[: self.num_conditions]
        return [self._prepare_batch(data, index, name) for index, name in enumerate(names)]

    def forward(self, pred_cond: torch.Tensor, pred_uncond: torch.Tensor | None = None) -> GuiderOutput:
        pred, self._condition_gradient = pred_cond.detach(), None
        if pred_uncond is not None:
            pred = pred_uncond + self.config.classifier_free_guidance_scale * (pred - pred_uncond)
        if self._follows_gradient():
            gradient = self.config.guidance_scale * self._gradient(pred_cond)
            if self._leaves_it_to_scheduler:
                self._condition_gradient = gradient
            else:
                pred = pred + prediction_shift(self._scheduler, *self._levels()) * gradient
        return GuiderOutput(pred=pred, pred_cond=pred_cond.detach(), pred_uncond=pred_uncond)

    def _follows_gradient(self) -> bool:
        """Whether this step does."""
        is_asked = self._is_within_interval() and self.config.guidance_scale != 0 and self._has_target
        return is_asked and self._levels()[0] >= MIN_SIGNAL

    def _levels(self) -> tuple[float, float]:
        return input_levels(self._scheduler, float(self._timestep))

    def _is_within_interval(self) -> bool:
        if not self._enabled or self._num_inference_steps is None:
            return self._enabled
        first, last = (int(end * self._num_inference_steps) for end in (self._start, self._stop))
        return first <= self._step < last

    @property
    def is_conditional(self) -> bool:
        return self._count_prepared == 1

    @property
    def num_conditions(self) -> int:
        is_free = self._is_within_interval() and self.config.classifier_free_guidance_scale != 1
        return 2 if is_free else 1


def input_levels(scheduler: SchedulerMixin, timestep: float) -> tuple[float, float]:
    """
    `alpha` and `sigma` of the input of the denoiser, `alpha * x_0 + sigma * noise`, at a timestep.

    Raises:
        ValueError: if the scheduler does not define noise levels.
    """
    config = scheduler.config
    if "sigma_data" in config:  # EDM (Karras et al. 2022, table 1): the timestep is log(sigma / alpha) / 4
        noise_to_signal = math.exp(4 * timestep)
        alpha = (noise_to_signal**2 + config.sigma_data**2) ** -0.5
        return alpha, alpha * noise_to_signal
    if config.get("prediction_type", "flow_prediction") == "flow_prediction":
        sigma = timestep / config.num_train_timesteps
        return 1 - sigma, sigma
    if not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(
            f"Guidance by a gradient needs noise levels, which {type(scheduler).__name__} does not define."
        )
    signal_variance = _between(scheduler.alphas_cumprod, timestep)
    return signal_variance**0.5, (1 - signal_variance) ** 0.5


def prediction_shift(scheduler: SchedulerMixin, alpha: float, sigma: float) -> float:
    """
    The factor from a gradient of log p(y | z), at the input `z = alpha * x_0 + sigma * noise`, to the shift of the
    output.

    The guided image is `x_0 + sigma**2 / alpha * gradient` (Tweedie's formula for the score plus the gradient). The
    corresponding shift of each parametrisation follows with `z` held fixed.
    """
    prediction_type = scheduler.config.get("prediction_type", "flow_prediction")
    if "sigma_data" in scheduler.config:
        sign = -1 if prediction_type == "v_prediction" else 1  # of diffusers' c_out
        return sign * sigma / alpha / scheduler.config.sigma_data
    return {
        "epsilon": -sigma,
        "sample": sigma**2 / alpha,
        "v_prediction": -sigma / alpha,
        "flow_prediction": -sigma / alpha,
    }[prediction_type]


def predicted_image(
    scheduler: SchedulerMixin, alpha: float, sigma: float, sample: torch.Tensor, pred: torch.Tensor
) -> torch.Tensor:
    """`x_0` according to the output of the denoiser at its input `sample`, `alpha * x_0 + sigma * noise`."""
    prediction_type = scheduler.config.get("prediction_type", "flow_prediction")
    if "sigma_data" in scheduler.config:  # Karras et al. 2022, table 1
        data = scheduler.config.sigma_data
        sign = -1 if prediction_type == "v_prediction" else 1
        return alpha * data**2 * sample + sign * sigma * data * pred
    return {
        "epsilon": (sample - sigma * pred) / alpha,
        "sample": pred,
        "v_prediction": alpha * sample - sigma * pred,
        "flow_prediction": sample - sigma * pred,
    }[prediction_type]


def _between(values: torch.Tensor, index: float) -> float:
    """Linear interpolation, because solvers with their own spacing have fractional timesteps."""
    lower = min(max(int(index), 0), len(values) - 1)
    upper = min(lower + 1, len(values) - 1)
    return torch.lerp(values[lower], values[upper], index - lower).item()
