"""The networks of a translation: generators from one domain to the other, and discriminators of patches."""

import torch

from diffusers_ext.models import MultiScalePatchDiscriminator, PatchDiscriminator, ResnetGenerator, UNetGenerator
from diffusers_ext.pipelines import ImageTranslationPipeline
from diffusers_ext.training.loop.network_options import build_network


# The number of layers that halve the image, by the side of a patch in pixels.
PATCH_LAYERS = {1: 0, 16: 1, 34: 2, 70: 3, 142: 4, 286: 5}


def build_generator(
    kind: str,
    arguments: dict,
    *,
    size: tuple[int, int],
    channels: int,
    base_channels: int,
    normalization: str,
    latent_dim: int | None = None,
) -> UNetGenerator | ResnetGenerator:
    """A new generator.

    Args:
        kind (`str`): "unet" or "resnet".
        arguments (`dict`): arguments of its class that replace the usual ones for images of this size.
        size, channels: of the images; size is height and width.
        base_channels (`int`): the channels of the first layer.
        normalization (`str`): "batch", "instance" or "none".
        latent_dim (`int`, *optional*): the length of the latents of a U-Net; by default it has none.

    Raises:
        ValueError: if the arguments do not fit the class or the images.
    """
    decided = {"sample_size": size, "in_channels": channels, "out_channels": channels, "normalization": normalization}
    network_class, usual = UNetGenerator, default_unet(size, base_channels)
    if kind == "resnet":
        network_class = ResnetGenerator
        usual = {"num_blocks": 9 if min(size) >= 256 else 6, "base_channels": base_channels}
    else:
        decided["latent_dim"] = latent_dim

    def trial(network: UNetGenerator | ResnetGenerator) -> None:
        check_size(network, size)
        latents = [] if latent_dim is None else [torch.zeros(1, latent_dim)]
        network(torch.zeros(1, channels, *size), *latents)

    network = build_network(network_class, "--generator_options", arguments, usual=usual, decided=decided, trial=trial)
    check_size(network, size)
    return network


def default_unet(size: tuple[int, int], channels: int) -> dict:
    """Arguments of a [`UNetGenerator`] that halves images as often as possible, up to eight times.

    The channels and the layers with dropout are as in https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix.
    """
    levels = 1
    while levels < 8 and all(side % 2 ** (levels + 1) == 0 for side in size):
        levels += 1
    return {
        "block_out_channels": tuple(channels * min(2**level, 8) for level in range(levels)),
        "num_dropout_layers": max(levels - 5, 0),
    }


def check_size(network: UNetGenerator | ResnetGenerator, size: tuple[int, int]) -> None:
    least = getattr(network, "smallest_side", network.stride)
    if any(side % network.stride or side < least for side in size):
        raise ValueError(
            f"--resolution must be a multiple of {network.stride}, and at least {least}, for this generator, not "
            f"{size}."
        )


def pretrained_generators(
    name: str, count: int, *, size: tuple[int, int], channels: int, cache_dir: str | None = None
) -> list[UNetGenerator | ResnetGenerator]:
    """The generators of a pipeline, to be trained further.

    Args:
        name (`str`): the pipeline's folder, or its name on the Hub.
        count (`int`): 1 for the generator from A to B, 2 for that from B to A too.
        size, channels: of the images; size is height and width.
        cache_dir (`str`, *optional*): where a download is kept.

    Raises:
        ValueError: if the pipeline has fewer generators, or they do not fit the images.
    """
    pipeline = ImageTranslationPipeline.from_pretrained(name, cache_dir=cache_dir)
    generators = [pipeline.generator, pipeline.reverse_generator][:count]
    if None in generators:
        raise ValueError(f"{name} has no reverse_generator, which a translation in both directions needs.")
    for generator in generators:
        for key in ("in_channels", "out_channels"):
            if generator.config[key] != channels:
                raise ValueError(
                    f"{name} has a generator of {key}={generator.config[key]}, but this run has --channels {channels}."
                )
        if generator.config.get("latent_dim") is not None:
            raise ValueError(f"{name} has a generator with latents, which train_multimodal_translation.py trains.")
        check_size(generator, size)
        generator.register_to_config(sample_size=size)
    return generators


def build_discriminator(
    *,
    size: tuple[int, int],
    in_channels: int,
    base_channels: int,
    normalization: str,
    patch_size: int | None = None,
    num_scales: int = 1,
    spectral_norm: bool | str = False,
    padding: int = 1,
) -> PatchDiscriminator | MultiScalePatchDiscriminator:
    """A new discriminator of patches.

    Args:
        size (`tuple[int, int]`): height and width of the images.
        in_channels (`int`): the channels of an image, or of a pair of images.
        base_channels (`int`): the channels of the first layer.
        normalization (`str`): "batch", "instance" or "none".
        patch_size (`int`, *optional*): the side of a patch in pixels, a key of `PATCH_LAYERS`; by default 70, or less
            for small images.
        num_scales (`int`): how many sizes of the image it judges, each half of the one before.
        spectral_norm (`bool` or `str`): whether its weights are divided by their spectral norms; "blocks" for those
            between the first and the last layer.
        padding (`int`): how many zeros are added on each side before each convolution.

    Raises:
        ValueError: if the images are too small for the patches.
    """
    options = {
        "in_channels": in_channels,
        "base_channels": base_channels,
        "num_layers": _patch_layers(size, patch_size, num_scales),
        "normalization": normalization,
        "spectral_norm": spectral_norm,
        "padding": padding,
    }
    if num_scales > 1:
        return MultiScalePatchDiscriminator(num_scales, **options)
    return PatchDiscriminator(**options)


def _patch_layers(size: tuple[int, int], patch_size: int | None, num_scales: int) -> int:
    """The layers for this patch size, if the images of the coarsest scale are large enough for it."""
    side = min(size)
    for _ in range(num_scales - 1):
        side = (side + 1) // 2
    possible = {patch: layers for patch, layers in PATCH_LAYERS.items() if layers == 0 or side >= 3 * 2**layers}
    if patch_size is None:
        return max(layers for patch, layers in possible.items() if patch <= 70)
    if patch_size not in possible:
        raise ValueError(
            f"--patch_size must be at most {max(possible)} for images of the size {size} at --num_scales "
            f"{num_scales}, not {patch_size}."
        )
    return possible[patch_size]
