"""Generators that make images from latents or from styles, as pipelines use them."""

import torch
from diffusers import ModelMixin


LATENT_SPACES = ("z", "w", "w+")  # latents; styles, one for all layers; styles, one for each


def check_latent_generator(generator: ModelMixin) -> None:
    """Refuses a network that does not make images from latents, or from images too, with a `ValueError`."""
    config = generator.config
    if not {"latent_dim", "out_channels"} <= set(config) or "in_channels" in config:
        raise ValueError(
            "`generator` must make images from latents, with `latent_dim` and `out_channels` in its "
            f"configuration, but its class is {type(generator).__name__}."
        )


def make_images(
    network: ModelMixin,
    space: str,
    latents: torch.Tensor,
    class_labels: torch.Tensor | None = None,
    noise: list[torch.Tensor] | None = None,
) -> torch.Tensor:
    """
    What a generator makes.

    Args:
        network ([`ModelMixin`]): the generator.
        space (`str`): `"z"`, or `"w"` or `"w+"`, where `latents` are styles.
        latents (`torch.Tensor` of shape `(N, ...)`): the latents or styles.
        class_labels (`torch.Tensor` of shape `(N,)`, *optional*): for the space z.
        noise (`list[torch.Tensor]`, *optional*): the maps of noise, by default those that are stored.

    Returns:
        `torch.Tensor` of shape `(N, C, H, W)`: images around `[-1, 1]`, float32.
    """
    latents = latents.to(network.dtype)
    options = {"noise": [maps.to(network.dtype) for maps in noise]} if noise else {}
    if space == "z":
        return network(latents, class_labels, return_dict=False, **options)[0].float()
    return network(styles=latents, return_dict=False, **options)[0].float()
