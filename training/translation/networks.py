"""The networks of a translation: generators from one domain to the other, and discriminators of patches."""

from diffusers_ext.models import MultiScalePatchDiscriminator, PatchDiscriminator, ResnetGenerator, UNetGenerator
from diffusers_ext.pipelines import ImageTranslationPipeline


# By the side of a patch in pixels, the layers of a discriminator that halve.
PATCH_LAYERS = {1: 0, 16: 1, 34: 2, 70: 3, 142: 4, 286: 5}


def build_generator(config) -> UNetGenerator | ResnetGenerator:
    """A new generator.

    Args:
        config ([`~diffusers_ext.training.train_translation.TranslationConfig`]): the options.

    Raises:
        ValueError, TypeError: if it does not fit the images, or takes no such options.
    """
    common = {
        "sample_size": config.size,
        "in_channels": config.channels,
        "out_channels": config.channels,
        "normalization": config.normalization,
    }
    if config.generator == "unet":
        usual = default_unet(config.size, config.generator_channels)
        network = UNetGenerator(**{**usual, **config.generator_options, **common})
    else:
        usual = {"num_blocks": 9 if min(config.size) >= 256 else 6, "base_channels": config.generator_channels}
        network = ResnetGenerator(**{**usual, **config.generator_options, **common})
    _check_size(network, config.size)
    return network


def default_unet(size: tuple[int, int], channels: int) -> dict:
    """Arguments of a [`UNetGenerator`] that halves images as often as they can be, up to eight times.

    The channels and the layers with dropout are those of https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix.
    """
    levels = 1
    while levels < 8 and all(side % 2 ** (levels + 1) == 0 for side in size):
        levels += 1
    return {
        "block_out_channels": tuple(channels * min(2**level, 8) for level in range(levels)),
        "num_dropout_layers": max(levels - 5, 0),
    }


def _check_size(network: UNetGenerator | ResnetGenerator, size: tuple[int, int]) -> None:
    least = getattr(network, "smallest_side", network.stride)
    if any(side % network.stride or side < least for side in size):
        raise ValueError(
            f"--resolution must be a multiple of {network.stride}, and at least {least}, for this generator, not "
            f"{size}."
        )


def pretrained_generators(config, count: int) -> list[UNetGenerator | ResnetGenerator]:
    """The generators of the pipeline to start from: that from A to B, and with a `count` of 2 that back, too.

    Raises:
        ValueError: if there are fewer, or if they do not fit the images.
    """
    name = config.pretrained_model_name_or_path
    pipeline = ImageTranslationPipeline.from_pretrained(name, cache_dir=config.cache_dir)
    generators = [pipeline.generator, pipeline.reverse_generator][:count]
    if None in generators:
        raise ValueError(f"{name} has no reverse_generator, which --method {config.method} needs.")
    for generator in generators:
        for key in ("in_channels", "out_channels"):
            if generator.config[key] != config.channels:
                raise ValueError(
                    f"{name} has a generator of {key}={generator.config[key]}, but this run has --channels "
                    f"{config.channels}."
                )
        _check_size(generator, config.size)
        generator.register_to_config(sample_size=config.size)
    return generators


def build_discriminator(config, in_channels: int) -> PatchDiscriminator | MultiScalePatchDiscriminator:
    """A new discriminator of images, or of pairs, of `in_channels` channels.

    Raises:
        ValueError: if the images are too small for the patches.
    """
    options = {
        "in_channels": in_channels,
        "base_channels": config.discriminator_channels,
        "num_layers": _patch_layers(config),
        "normalization": config.normalization,
        "spectral_norm": config.spectral_norm,
    }
    if config.num_scales > 1:
        return MultiScalePatchDiscriminator(config.num_scales, **options)
    return PatchDiscriminator(**options)


def _patch_layers(config) -> int:
    """The layers of the patch size asked for, if the images of the coarsest scale are large enough for it."""
    side = min(config.size)
    for _ in range(config.num_scales - 1):
        side = (side + 1) // 2
    possible = {size: layers for size, layers in PATCH_LAYERS.items() if layers == 0 or side >= 3 * 2**layers}
    wanted = config.patch_size
    if wanted is None:
        return max(layers for size, layers in possible.items() if size <= 70)
    if wanted not in possible:
        raise ValueError(
            f"--patch_size must be at most {max(possible)} for images of the size {config.size} at "
            f"--num_scales {config.num_scales}, not {wanted}."
        )
    return possible[wanted]
