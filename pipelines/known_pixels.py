"""Inpainting with a network that is shown the known pixels: they are also put into its predictions (GLIDE)."""

import torch
from diffusers import SchedulerMixin

from .schedules import add_noise


def keep_known_pixels(
    scheduler: SchedulerMixin,
    noise_pred: torch.Tensor,
    timestep: torch.Tensor,
    latents: torch.Tensor,
    known: torch.Tensor,
    mask: torch.Tensor,
) -> torch.Tensor:
    """
    A prediction whose x_0 has the known pixels, as in the sampling of https://github.com/openai/glide-text2im.

    With latents `alpha x_0 + sigma noise`, x_0 fixes the noise, and both fix what the network should have predicted.

    Args:
        scheduler ([`SchedulerMixin`]): the scheduler, for the noise level and what is predicted.
        noise_pred (`torch.Tensor` of shape `(N, C, H, W)` or `(N, 2C, H, W)`): the guided prediction, with the
            learned variance perhaps, which stays.
        timestep (`torch.Tensor`): the timestep.
        latents (`torch.Tensor` of shape `(N, C, H, W)`): the latents before the step.
        known (`torch.Tensor` of shape `(N, C, H, W)`): the image, in `[-1, 1]`.
        mask (`torch.Tensor` of shape `(N, 1, H, W)`): 1 where the image is known, 0 where it is made.
    """
    one = torch.ones(1, 1, 1, 1, device=latents.device)
    at = timestep.reshape(1)
    alpha, sigma = (add_noise(scheduler, image, noise, at) for image, noise in ((one, 0 * one), (0 * one, one)))
    noise = (latents - alpha * known) / sigma
    norm = (alpha**2 + sigma**2).sqrt()
    target = {
        "epsilon": noise,
        "sample": known,
        "v_prediction": (alpha * noise - sigma * known) / norm,
        "flow_prediction": noise - known,
    }[scheduler.config.get("prediction_type", "flow_prediction")]
    channels = latents.shape[1]
    pasted = torch.where(mask > 0, target, noise_pred[:, :channels])
    return torch.cat([pasted, noise_pred[:, channels:]], dim=1)
