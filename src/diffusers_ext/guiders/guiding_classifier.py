"""Classifier guidance: guidance by the gradient of a classifier of noisy images."""

import torch
from diffusers import ModelMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config

from .gradients import GradientGuidance


class ClassifierGuidance(GradientGuidance):
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

    @register_to_config
    def __init__(
        self,
        guidance_scale: float = 1.0,
        classifier_free_guidance_scale: float = 1.0,
        start: float = 0.0,
        stop: float = 1.0,
        enabled: bool = True,
    ):
        super().__init__(guidance_scale, classifier_free_guidance_scale, start, stop, enabled)
        self._classifier = self._class_labels = None

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
        self._classifier, self._class_labels = classifier, class_labels
        self._use_scheduler(scheduler)

    @property
    def _has_target(self) -> bool:
        return self._class_labels is not None

    @torch.enable_grad()
    def _gradient(self, pred: torch.Tensor) -> torch.Tensor:
        """grad log p(y | x_t) at the input of the denoiser, `(N, C, H, W)` in float32."""
        sample = self._sample.detach().float().requires_grad_()
        timesteps = torch.as_tensor(self._timestep, device=sample.device).expand(len(sample))
        logits = self._classifier(sample.to(self._classifier.dtype), timesteps, return_dict=False)[0]
        log_probabilities = logits.float().log_softmax(dim=1).gather(1, self._class_labels[:, None])
        return torch.autograd.grad(log_probabilities.sum(), sample)[0]
