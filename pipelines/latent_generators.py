"""Generators that make images from latents or from styles, as pipelines use them."""

import torch
from diffusers import ModelMixin

from .labels import ClassLabels, check_class_labels_given, look_up_labels
from .networks import get_sample_size


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


class LatentPipelineMixin:
    """What pipelines of such a `generator` share, which have `id2label` in their configuration."""

    @property
    def image_shape(self) -> tuple[int, int | None, int | None]:
        """Channels, height and width of the images."""
        return (self.generator.config.out_channels, *get_sample_size(self.generator))

    @property
    def num_classes(self) -> int | None:
        """The number of classes of the generator; `None` for an unconditional one."""
        return self.generator.config.get("num_classes")

    def get_label_ids(self, class_labels: ClassLabels, num_images: int | None = None) -> list[int]:
        r"""
        The class ids of labels that are given by id or by name. Names are spelled as in `id2label`.

        Args:
            class_labels (`int`, `str`, a list of them, `torch.Tensor` or `np.ndarray`): one label or several.
            num_images (`int`, *optional*): if given, the labels are one for all images or one for each.

        Returns:
            `list[int]`: one id for each label, or with `num_images`, for each image.

        Raises:
            ValueError: for no label at all, an unknown or ambiguous name, an id out of range, another number of
                labels, or anything else, and if the generator has no classes.
        """
        check_class_labels_given(class_labels, self.num_classes is not None, None, "the generator")
        return look_up_labels(class_labels, self.config.id2label, self.num_classes, num_images=num_images)
