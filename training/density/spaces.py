"""The latents of an autoencoder that a density is fitted to."""

import torch
from diffusers import ModelMixin

from diffusers_ext.pipelines.latent_space import LatentSpace, LatentVectors
from diffusers_ext.training.loop.configuration import ImageConfig


def latent_shape(vae: ModelMixin, config: ImageConfig) -> tuple[int, ...]:
    """The shape of the latents of an image: `(latent_dim,)`, or `(C, h, w)`.

    Args:
        vae (`ModelMixin`): the autoencoder.
        config (`ImageConfig`): has the size and the channels of the images.

    Raises:
        ValueError: if the autoencoder is not for these images.
    """
    has_vectors = vae.config.get("latent_dim") is not None and vae.config.get("embedding_dim") is None
    try:
        space = LatentVectors(vae) if has_vectors else LatentSpace(vae)
        with torch.no_grad():
            return tuple(space.encode(torch.zeros(1, config.channels, *config.size)).shape[1:])
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"--vae can't encode images of --channels {config.channels} and --resolution "
            f"{' '.join(map(str, config.size))}: {reason}"
        ) from error
