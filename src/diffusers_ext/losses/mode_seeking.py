"""The mode-seeking loss, with which different latents give different images."""

import torch


def mode_seeking_loss(
    samples: tuple[torch.Tensor, torch.Tensor], latents: tuple[torch.Tensor, torch.Tensor], eps: float = 1e-5
) -> torch.Tensor:
    """1 / (distance of two images / distance of their latents), of shape (N,), float32.

    The inverse of the ratio that Mao et al. (2019, "MSGAN", eq. 3) maximise, as in their code, but for each pair
    instead of the mean over a batch. Distances are mean absolute differences.

    Args:
        samples (pair of `torch.Tensor` of shape (N, C, H, W)): images from these latents, with the same conditions.
        latents (pair of `torch.Tensor` of shape (N, D)): the latents of the images.
        eps (`float`): is added to the ratio, so that the loss of equal images is 1 / eps and not infinite.
    """
    (first, second), (first_latents, second_latents) = samples, latents
    image_distance = (first.float() - second.float()).abs().flatten(1).mean(dim=1)
    latent_distance = (first_latents.float() - second_latents.float()).abs().flatten(1).mean(dim=1)
    return 1 / (image_distance / latent_distance + eps)
