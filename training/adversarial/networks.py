"""The networks of a GAN: new ones, or a published pipeline's."""

import logging

import torch
from torch import nn

from diffusers_ext.data.loading import check_resolution
from diffusers_ext.losses.discriminator_outputs import has_batch_norm
from diffusers_ext.models import DCGANDiscriminator, DCGANGenerator, MLPDiscriminator, MLPGenerator
from diffusers_ext.pipelines import GANPipeline
from diffusers_ext.training.loop.network_options import build_network


logger = logging.getLogger(__name__)

GENERATORS = {"dcgan": DCGANGenerator, "mlp": MLPGenerator}
DISCRIMINATORS = {"dcgan": DCGANDiscriminator, "mlp": MLPDiscriminator}


def new_generator(
    architecture: str,
    arguments: dict,
    *,
    size: tuple[int, int],
    channels: int,
    num_classes: int | None = None,
    conditioning: str = "projection",
    num_categories: int = 0,
    num_continuous_codes: int = 0,
) -> nn.Module:
    """A new generator, from latents to images.

    Args:
        architecture (`str`): "dcgan" or "mlp".
        arguments (`dict`): further arguments of its class.
        size, channels: of the images; size is height and width.
        num_classes (`int`, *optional*): how many classes it makes; by default it is unconditional.
        conditioning (`str`): how classes enter the discriminator. With "concat" they enter the generator in the same
            way, as one-hot vectors; otherwise as learned vectors.
        num_categories, num_continuous_codes (`int`): the parts of InfoGAN's code, at the end of the latents.

    Raises:
        ValueError: if the arguments do not fit the class or the images.
    """
    label_entry = "concat" if conditioning == "concat" else "embedding"
    usual = {
        "conditioning": None if num_classes is None else label_entry,
        "num_categories": num_categories,
        "num_continuous_codes": num_continuous_codes,
    }
    decided = {"sample_size": size, "out_channels": channels, "num_classes": num_classes}

    def trial(generator: nn.Module) -> None:
        labels = None if num_classes is None else torch.zeros(2, dtype=torch.int64)
        generator(torch.zeros(2, generator.config.latent_dim), class_labels=labels)

    return build_network(GENERATORS[architecture], "--generator", arguments, usual=usual, decided=decided, trial=trial)


def new_discriminator(
    architecture: str,
    arguments: dict,
    *,
    size: tuple[int, int],
    channels: int,
    num_classes: int | None = None,
    conditioning: str = "projection",
    num_categories: int = 0,
    num_continuous_codes: int = 0,
    spectral_norm: bool = False,
    normalization: str = "batch",
) -> nn.Module:
    """A new discriminator, from images to logits.

    Args:
        architecture, arguments, size, channels, num_classes, num_categories, num_continuous_codes: see
            [`new_generator`].
        conditioning (`str`): "concat", "embedding" or "projection"; or "auxiliary" for one that does not see the
            classes and predicts them (AC-GAN).
        spectral_norm (`bool`): whether its weights are divided by their spectral norms.
        normalization (`str`): a DCGAN's normalization, unless `arguments` have another one.

    Raises:
        ValueError: if the arguments do not fit the class or the images.
    """
    usual = {
        "num_categories": num_categories,
        "num_continuous_codes": num_continuous_codes,
        "spectral_norm": spectral_norm,
    }
    if num_classes is not None:
        is_auxiliary = conditioning == "auxiliary"
        usual |= {"conditioning": None if is_auxiliary else conditioning, "auxiliary_classifier": is_auxiliary}
    if architecture == "dcgan":
        usual["normalization"] = normalization
    decided = {"sample_size": size, "in_channels": channels, "num_classes": num_classes}

    def trial(discriminator: nn.Module) -> None:
        takes_labels = num_classes is not None and discriminator.config.conditioning is not None
        labels = torch.zeros(2, dtype=torch.int64) if takes_labels else None
        discriminator(torch.zeros(2, channels, *size), class_labels=labels)

    return build_network(
        DISCRIMINATORS[architecture], "--discriminator", arguments, usual=usual, decided=decided, trial=trial
    )


def pretrained_gan(
    name: str,
    *,
    size: tuple[int, int],
    channels: int,
    num_classes: int | None = None,
    id2label: dict[int, str] | None = None,
    num_categories: int = 0,
    num_continuous_codes: int = 0,
    spectral_norm: bool = False,
    cache_dir: str | None = None,
) -> tuple[nn.Module, nn.Module | None]:
    """The generator of a [`GANPipeline`], and its discriminator, or `None` if the pipeline has none.

    Args:
        name (`str`): the pipeline's folder, or its name on the Hub.
        size, channels: of the images; size is height and width.
        num_classes (`int`, *optional*), id2label (`dict[int, str]`, *optional*): the classes, and their names.
        num_categories, num_continuous_codes (`int`): the parts of InfoGAN's code; 0 accepts what the pipeline has.
        spectral_norm (`bool`): whether its discriminator must have spectral norm.
        cache_dir (`str`, *optional*): where a download is kept.

    Raises:
        ValueError: if they do not fit the images, the classes or these options.
    """
    pipeline = GANPipeline.from_pretrained(name, cache_dir=cache_dir)
    generator, discriminator = pipeline.generator, pipeline.discriminator
    found_size = check_resolution(generator.config.sample_size)
    if generator.config.out_channels != channels:
        raise ValueError(
            f"{name} makes images of {generator.config.out_channels} channels, but this run has --channels {channels}."
        )
    if found_size != size:
        raise ValueError(f"{name} makes images of the size {found_size}, but --resolution is {size}.")
    found, wanted = generator.config.num_classes or 0, num_classes or 0
    if found != wanted:
        raise ValueError(f"{name} has {found} classes, but this run has {wanted}: see --class_conditional.")
    if pipeline.config.id2label not in (None, id2label):
        raise ValueError(f"{name} and the data set have different classes.")
    for part, number in (("num_categories", num_categories), ("num_continuous_codes", num_continuous_codes)):
        if number not in (0, generator.config[part]):
            raise ValueError(
                f"{name} has a code with {part}={generator.config[part]}, but this run has --{part} {number}."
            )
    if discriminator is None:
        logger.warning(f"{name} has no discriminator: a new one is trained with its generator.")
    elif spectral_norm and not discriminator.config.spectral_norm:
        raise ValueError(f"The discriminator of {name} has no spectral norm: leave out --spectral_norm.")
    return generator, discriminator


def check_batch_norm(generator: nn.Module, discriminator: nn.Module, *, batch_size: int, is_penalised: bool) -> None:
    """Refuse batch norm where it can't work.

    Args:
        generator, discriminator (`nn.Module`): the networks.
        batch_size (`int`): images per process and step.
        is_penalised (`bool`): whether the discriminator's gradients at single images are penalised.

    Raises:
        ValueError: if so.
    """
    for name, network in (("generator", generator), ("discriminator", discriminator)):
        if has_batch_norm(network) and batch_size == 1:
            raise ValueError(f"The {name} has batch normalization, which needs --train_batch_size 2 or more.")
    if has_batch_norm(discriminator) and is_penalised:
        raise ValueError(
            "--gradient_penalty, --r1 and --r2 are about single images, which batch normalization mixes: give the "
            'discriminator "normalization": "layer", "instance" or "none".'
        )
