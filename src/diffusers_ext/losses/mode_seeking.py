"""Mode seeking: different latents should give different images."""

import torch


def mode_seeking_loss(
    samples: tuple[torch.Tensor, torch.Tensor], latents: tuple[torch.Tensor, torch.Tensor], eps: float = 1e-5
) -> torch.Tensor:
    """1 / (distance of two images / distance of their latents), of shape (N,), float32.

    What Mao et al. (2019, "MSGAN", eq. 3) maximise, turned over as in their code, for each pair instead of the mean
    over a batch. Distances are mean absolute differences.

    Args:
        samples (pair of `torch.Tensor` of shape (N, C, H, W)): made from the latents under the same conditions.
        latents (pair of `torch.Tensor` of shape (N, D)): what they were made from.
        eps (`float`): added to the ratio, so that equal images have a loss (of 1 / eps), and no infinite one.
    """
    (first, second), (first_latents, second_latents) = samples, latents
    image_distance = (first.float() - second.float()).abs().flatten(1).mean(dim=1)
    latent_distance = (first_latents.float() - second_latents.float()).abs().flatten(1).mean(dim=1)
    return 1 / (image_distance / latent_distance + eps)
