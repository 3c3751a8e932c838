"""Two classes of images with known distributions: the exact denoiser and the exact classifier of noisy images.

A pixel of class y is normal with mean +-MEAN and deviation DEVIATION, so at the noise level (alpha, sigma) it is
normal with mean +-alpha * MEAN and variance alpha**2 * DEVIATION**2 + sigma**2.
"""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config


MEAN, DEVIATION = 0.5, 0.3


def noise_levels(timesteps, scheduler) -> tuple[torch.Tensor, torch.Tensor]:
    timesteps = torch.as_tensor(timesteps).reshape(-1, 1, 1, 1)
    if scheduler.config.get("sigma_data"):
        sigma = (4 * timesteps).exp()
        scale = (sigma**2 + scheduler.config.sigma_data**2).rsqrt()
        return scale, scale * sigma
    if scheduler.config.get("prediction_type", "flow_prediction") == "flow_prediction":
        return 1 - timesteps / 1000, timesteps / 1000
    signal_variance = scheduler.alphas_cumprod[timesteps.long()]
    return signal_variance.sqrt(), (1 - signal_variance).sqrt()


class ExactDenoiser(ModelMixin, ConfigMixin):
    """The prediction of a perfect network for the mixture of both classes, or for one class if a label is given."""

    @register_to_config
    def __init__(self, in_channels: int = 1, sample_size: int = 4, num_class_embeds: int | None = None):
        super().__init__()
        self.scheduler = None
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, sample, timestep, class_labels=None, return_dict=True):
        alpha, sigma = noise_levels(timestep, self.scheduler)
        if class_labels is None:
            p = log_posterior(sample, alpha, sigma).exp()
            sign = (p[:, 1] - p[:, 0]).reshape(-1, 1, 1, 1)
        else:
            sign = 2.0 * class_labels.reshape(-1, 1, 1, 1) - 1
        variance = alpha**2 * DEVIATION**2 + sigma**2
        clean = sign * MEAN + alpha * DEVIATION**2 / variance * (sample - alpha * sign * MEAN)
        noise = (sample - alpha * clean) / sigma
        scheduler = self.scheduler.config
        if scheduler.get("sigma_data"):
            level = sigma / alpha
            total = (level**2 + scheduler.sigma_data**2).sqrt()
            unscaled = sample * total
            skip, out = scheduler.sigma_data**2 / total**2, level * scheduler.sigma_data / total
            return ((clean - skip * unscaled) / out,)
        predictions = {
            "epsilon": noise,
            "sample": clean,
            "v_prediction": alpha * noise - sigma * clean,
            "flow_prediction": noise - clean,
        }
        return (predictions[scheduler.get("prediction_type", "flow_prediction")],)


def log_posterior(sample, alpha, sigma) -> torch.Tensor:
    """log p(y | x_t), `(N, 2)`."""
    variance = alpha**2 * DEVIATION**2 + sigma**2
    logits = (2 * alpha * MEAN * sample / variance).sum(dim=(1, 2, 3))
    return torch.stack([torch.zeros_like(logits), logits], dim=1).log_softmax(dim=1)


class ExactClassifier(ModelMixin, ConfigMixin):
    @register_to_config
    def __init__(self, num_classes: int = 2):
        super().__init__()
        self.scheduler = None
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, sample, timestep, return_dict=True):
        return (log_posterior(sample, *noise_levels(timestep, self.scheduler)),)
