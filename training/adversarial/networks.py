"""The networks of a GAN: new ones, or those of a pipeline to go on with."""

import logging

from torch import nn

from diffusers_ext.data.loading import check_resolution
from diffusers_ext.models import DCGANDiscriminator, DCGANGenerator, MLPDiscriminator, MLPGenerator
from diffusers_ext.pipelines import GANPipeline
from diffusers_ext.training.adversarial.judging import has_batch_norm


logger = logging.getLogger(__name__)

ARCHITECTURES = {
    "dcgan": (DCGANGenerator, DCGANDiscriminator),
    "mlp": (MLPGenerator, MLPDiscriminator),
}


def build_gan(config, id2label: dict[int, str] | None) -> tuple[nn.Module, nn.Module]:
    """A generator and a discriminator.

    Args:
        config ([`~diffusers_ext.training.train_gan.GANConfig`]): the options.
        id2label (`dict[int, str]` or `None`): the classes that they are told.

    Raises:
        ValueError: if they do not fit the images, the classes or the options.
    """
    num_classes = None if id2label is None else len(id2label)
    if config.pretrained_model_name_or_path is None:
        generator, discriminator = _new_generator(config, num_classes), _new_discriminator(config, num_classes)
    else:
        generator, discriminator = _pretrained(config, id2label)
    _check_batch_norm(config, generator, discriminator)
    return generator, discriminator


def _new_generator(config, num_classes: int | None) -> nn.Module:
    conditioning = None
    if num_classes is not None:
        conditioning = "concat" if config.conditioning == "concat" else "embedding"
    return ARCHITECTURES[config.architecture][0](
        **{
            "conditioning": conditioning,
            "num_categories": config.num_categories,
            "num_continuous_codes": config.num_continuous_codes,
            **config.generator,
            "sample_size": config.size,
            "out_channels": config.channels,
            "num_classes": num_classes,
        }
    )


def _new_discriminator(config, num_classes: int | None) -> nn.Module:
    conditions = {}
    if num_classes is not None:
        is_auxiliary = config.conditioning == "auxiliary"
        conditions["conditioning"] = None if is_auxiliary else config.conditioning
        conditions["auxiliary_classifier"] = is_auxiliary
    if config.architecture == "dcgan":
        conditions["normalization"] = _default_normalization(config)
    return ARCHITECTURES[config.architecture][1](
        **{
            **conditions,
            "num_categories": config.num_categories,
            "num_continuous_codes": config.num_continuous_codes,
            "spectral_norm": config.spectral_norm,
            **config.discriminator,
            "sample_size": config.size,
            "in_channels": config.channels,
            "num_classes": num_classes,
        }
    )


def _default_normalization(config) -> str:
    if config.gradient_penalty > 0:
        return "layer"  # Gulrajani et al. 2017, section 4
    return "none" if config.spectral_norm or config.has_penalty else "batch"


def _pretrained(config, id2label: dict[int, str] | None) -> tuple[nn.Module, nn.Module]:
    name, wanted = config.pretrained_model_name_or_path, len(id2label or ())
    pipeline = GANPipeline.from_pretrained(name, cache_dir=config.cache_dir)
    generator, discriminator = pipeline.generator, pipeline.discriminator
    size, found = check_resolution(generator.config.sample_size), generator.config.num_classes or 0
    if generator.config.out_channels != config.channels:
        raise ValueError(
            f"{name} makes images of {generator.config.out_channels} channels, but this run has --channels "
            f"{config.channels}."
        )
    if size != config.size:
        raise ValueError(f"{name} makes images of the size {size}, but --resolution is {config.size}.")
    if found != wanted:
        raise ValueError(f"{name} has {found} classes, but this run has {wanted}: see --class_conditional.")
    if pipeline.config.id2label not in (None, id2label):
        raise ValueError(f"{name} and the data set have different classes.")
    for part in ("num_categories", "num_continuous_codes"):
        if getattr(config, part) not in (0, generator.config[part]):
            raise ValueError(
                f"{name} has a code with {part}={generator.config[part]}, but this run has --{part} "
                f"{getattr(config, part)}."
            )
    if discriminator is None:
        logger.warning(f"{name} has no discriminator: a new one is trained with its generator.")
        discriminator = _new_discriminator(config, wanted or None)
    if config.spectral_norm and not discriminator.config.spectral_norm:
        raise ValueError(f"The discriminator of {name} has no spectral norm: leave out --spectral_norm.")
    return generator, discriminator


def _check_batch_norm(config, generator: nn.Module, discriminator: nn.Module) -> None:
    for name, network in (("generator", generator), ("discriminator", discriminator)):
        if has_batch_norm(network) and config.train_batch_size == 1:
            raise ValueError(f"The {name} has batch normalization, which needs --train_batch_size 2 or more.")
    if has_batch_norm(discriminator) and config.has_penalty:
        raise ValueError(
            "--gradient_penalty, --r1 and --r2 are of single images, which batch normalization mixes: give the "
            'discriminator "normalization": "layer", "instance" or "none".'
        )
