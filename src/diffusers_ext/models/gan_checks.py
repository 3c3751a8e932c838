"""Checks of the arguments and inputs of GANs for images: classes, InfoGAN's code, and batch normalization."""

import torch
from torch import nn


GENERATOR_CONDITIONINGS = (None, "concat", "embedding")
DISCRIMINATOR_CONDITIONINGS = (None, "concat", "embedding", "projection")
LATENT_DISTRIBUTIONS = ("normal", "uniform")


def check_generator_arguments(
    latent_dim: int,
    conditioning: str | None,
    num_classes: int | None,
    num_categories: int,
    num_continuous_codes: int,
    latent_distribution: str,
) -> None:
    check_choice("conditioning", conditioning, GENERATOR_CONDITIONINGS)
    check_choice("latent_distribution", latent_distribution, LATENT_DISTRIBUTIONS)
    check_conditioning(conditioning, num_classes, needs_classes=conditioning is not None)
    check_code(num_categories, num_continuous_codes)
    if num_categories + num_continuous_codes > latent_dim:
        raise ValueError(
            f"`latent_dim` must have room for the code of {num_categories} categories and {num_continuous_codes} "
            f"continuous codes, but is {latent_dim}."
        )


def check_discriminator_arguments(
    conditioning: str | None,
    num_classes: int | None,
    auxiliary_classifier: bool,
    num_categories: int,
    num_continuous_codes: int,
) -> None:
    check_choice("conditioning", conditioning, DISCRIMINATOR_CONDITIONINGS)
    check_conditioning(conditioning, num_classes, conditioning is not None or auxiliary_classifier)
    check_code(num_categories, num_continuous_codes)


def check_choice(name: str, value: str | None, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {choices}, but is {value!r}.")


def check_positive(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"`{name}` must be at least 1, but is {number}.")


def check_conditioning(conditioning: str | None, num_classes: int | None, needs_classes: bool) -> None:
    """Refuses `num_classes` that is missing for a network with classes, or given for a network without."""
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"`num_classes` must be at least 1, but is {num_classes}.")
    if needs_classes and num_classes is None:
        raise ValueError(f"`num_classes` must be given for a network with classes, whose {conditioning=}.")
    if num_classes is not None and not needs_classes:
        raise ValueError(f"`num_classes` is {num_classes}, but nothing needs it: choose a `conditioning`.")


def check_code(num_categories: int, num_continuous_codes: int) -> None:
    if num_categories < 0 or num_categories == 1 or num_continuous_codes < 0:
        raise ValueError(
            "`num_categories` must be 0 or at least 2, and `num_continuous_codes` at least 0, but they are "
            f"{num_categories} and {num_continuous_codes}."
        )


def check_latents(latents: torch.Tensor, latent_dim: int) -> None:
    if latents.ndim != 2 or latents.shape[1] != latent_dim:
        raise ValueError(f"`latents` must be (N, {latent_dim}), but are {tuple(latents.shape)}.")


def check_images(sample: torch.Tensor, shape: tuple[int, int, int]) -> None:
    if tuple(sample.shape[1:]) != shape:
        raise ValueError(f"`sample` must be (N, {', '.join(map(str, shape))}), but is {tuple(sample.shape)}.")


def check_labels(
    class_labels: torch.Tensor | None, num_samples: int, conditioning: str | None, num_classes: int | None
) -> None:
    """Refuses labels that the network cannot use. Values are only checked on the CPU, where it costs nothing."""
    if conditioning is None:
        if class_labels is not None:
            raise ValueError("`class_labels` are given, but the network takes none: its `conditioning` is None.")
        return
    if class_labels is None:
        raise ValueError(f"`class_labels` must be given, because the network is conditional on {num_classes} classes.")
    if class_labels.shape != (num_samples,) or class_labels.is_floating_point():
        raise ValueError(
            f"`class_labels` must be integers of the shape ({num_samples},), but are {class_labels.dtype} of the "
            f"shape {tuple(class_labels.shape)}."
        )
    if class_labels.device.type == "cpu" and not torch.compiler.is_compiling():
        outside = class_labels[(class_labels < 0) | (class_labels >= num_classes)]
        if len(outside) > 0:
            raise ValueError(f"`class_labels` must be from 0 to {num_classes - 1}, but hold {outside[0]}.")


def check_batch_size(network: nn.Module, num_samples: int) -> None:
    if network.training and network.config.normalization == "batch" and num_samples == 1:
        raise ValueError("Batch normalization cannot be trained on a batch of one image: use two or more images.")


def resolution_widths(
    sample_size: int, block_out_channels: tuple[int, ...] | None, channel_base: int, smallest: int = 8
) -> list[int]:
    """The channels of the features of each resolution, from 4x4 to `sample_size`; by default those of the papers of
    Karras et al., `min(512, channel_base / resolution)`.

    Raises:
        ValueError: if the size is no power of two, or the channels are not those of its resolutions.
    """
    if not isinstance(sample_size, int) or sample_size < smallest or sample_size & (sample_size - 1):
        raise ValueError(f"`sample_size` must be a power of two and at least {smallest}, but is {sample_size}.")
    sizes = [2**power for power in range(2, sample_size.bit_length())]
    if block_out_channels is None:
        return [min(channel_base // size, 512) for size in sizes]
    if len(block_out_channels) != len(sizes) or min(block_out_channels) < 1:
        raise ValueError(
            f"`block_out_channels` must be {len(sizes)} positive numbers, one for each of the resolutions "
            f"{', '.join(map(str, sizes))}, but is {tuple(block_out_channels)}."
        )
    return list(block_out_channels)


def height_and_width(sample_size: int | tuple[int, int]) -> tuple[int, int]:
    return (sample_size, sample_size) if isinstance(sample_size, int) else tuple(sample_size)
