"""Classifier guidance: guidance by the gradient of a classifier of noisy images."""

import inspect
import math
from numbers import Real

import torch
from diffusers import BaseGuidance, ModelMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.guiders.guider_utils import GuiderOutput


# Pure noise has no information about the class. The classifier's gradient is only an error there, and 1 / alpha would
# amplify it.
MIN_SIGNAL = 1e-3


class ClassifierGuidance(BaseGuidance):
    r"""
    Classifier guidance (Dhariwal & Nichol 2021, section 4, https://huggingface.co/papers/2105.05233), alone or
    combined with classifier-free guidance (Ho & Salimans 2022, https://huggingface.co/papers/2207.12598).

    Each step is guided by `guidance_scale * grad log p(y | x_t)`, the gradient at the noisy sample `x_t`, which is the
    input of the denoiser. If the `step` of the scheduler has an argument `condition_gradient`, it gets the gradient
    and uses it as in the paper: an ancestral scheduler shifts the mean (algorithm 1), DDIM shifts the score (algorithm
    2). For other schedulers, the prediction itself is shifted here. This generalises algorithm 2, which does so for
    noise, to each parametrisation (equation 14).

    A pipeline uses it like any guider, but must call [`~ClassifierGuidance.guide`] with the classifier before the
    first step.

    Args:
        guidance_scale (`float`, defaults to 1.0):
            The scale of the gradient: 0 disables classifier guidance, 1 samples from p(x) p(y | x), and larger scales
            are sharper.
        classifier_free_guidance_scale (`float`, defaults to 1.0):
            The scale of classifier-free guidance between conditional and unconditional predictions of the denoiser; 1
            uses only the conditional prediction.
        start, stop (`float`, default to 0.0 and 1.0):
            The interval of steps with guidance of either kind, as fractions of the number of steps.
        enabled (`bool`, defaults to `True`):
            Whether there is any guidance.

    Raises:
        ValueError: if a scale is not a finite number, or the interval is invalid.
    """

    _input_predictions = ["pred_cond", "pred_uncond"]

    @register_to_config
    def __init__(
        self,
        guidance_scale: float = 1.0,
        classifier_free_guidance_scale: float = 1.0,
        start: float = 0.0,
        stop: float = 1.0,
        enabled: bool = True,
    ):
        super().__init__(start, stop, enabled)
        for name, scale in (
            ("guidance_scale", guidance_scale),
            ("classifier_free_guidance_scale", classifier_free_guidance_scale),
        ):
            if not isinstance(scale, Real) or not math.isfinite(scale):
                raise ValueError(f"`{name}` must be a finite number, but is {scale!r}.")
        self._classifier = self._scheduler = self._class_labels = self._sample = None
        self._condition_gradient = None

    def guide(self, classifier: ModelMixin, scheduler: SchedulerMixin, class_labels: torch.Tensor | None) -> None:
        """
        Sets the classifier and the classes that guide the next steps.

        Args:
            classifier ([`ModelMixin`]):
                `classifier(sample, timesteps, return_dict=False)[0]` returns the logits `(N, num_classes)` of samples
                `(N, C, H, W)`, which have the same noise as the input of the denoiser.
            scheduler ([`SchedulerMixin`]):
                The scheduler, for the noise level of each timestep and the prediction type of the denoiser.
            class_labels (`torch.Tensor` of shape `(N,)`, *optional*):
                The classes to guide to. Without them there is no classifier guidance.
        """
        self._classifier, self._scheduler, self._class_labels = classifier, scheduler, class_labels
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
        pred, self._condition_gradient = pred_cond, None
        if pred_uncond is not None:
            pred = pred_uncond + self.config.classifier_free_guidance_scale * (pred_cond - pred_uncond)
        if self._is_within_interval() and self.config.guidance_scale != 0 and self._class_labels is not None:
            alpha, sigma = input_levels(self._scheduler, float(self._timestep))
            if alpha >= MIN_SIGNAL:
                gradient = self.config.guidance_scale * self._gradient()
                if self._leaves_it_to_scheduler:
                    self._condition_gradient = gradient
                else:
                    pred = pred + prediction_shift(self._scheduler, alpha, sigma) * gradient
        return GuiderOutput(pred=pred, pred_cond=pred_cond, pred_uncond=pred_uncond)

    @torch.enable_grad()
    def _gradient(self) -> torch.Tensor:
        """grad log p(y | x_t) at the input of the denoiser, `(N, C, H, W)` in float32."""
        sample = self._sample.detach().float().requires_grad_()
        timesteps = torch.as_tensor(self._timestep, device=sample.device).expand(len(sample))
        logits = self._classifier(sample.to(self._classifier.dtype), timesteps, return_dict=False)[0]
        log_probabilities = logits.float().log_softmax(dim=1).gather(1, self._class_labels[:, None])
        return torch.autograd.grad(log_probabilities.sum(), sample)[0]

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
        raise ValueError(f"Classifier guidance needs noise levels, which {type(scheduler).__name__} does not define.")
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


def _between(values: torch.Tensor, index: float) -> float:
    """Linear interpolation, because solvers with their own spacing have fractional timesteps."""
    lower = min(max(int(index), 0), len(values) - 1)
    upper = min(lower + 1, len(values) - 1)
    return torch.lerp(values[lower], values[upper], index - lower).item()
