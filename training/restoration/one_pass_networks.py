"""The networks of a restoration in one pass: the generator, and the discriminator of its outputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import ModelMixin

from diffusers_ext.models import (
    ContextEncoder,
    DANetUNet,
    DeepDeblurNet,
    FPNMobileNet,
    MSRResNet,
    PatchDiscriminator,
    ResnetGenerator,
    RRDBNet,
    SRGANDiscriminator,
    SRResNet,
    UNetGenerator,
)
from diffusers_ext.pipelines import RestorationPipeline
from diffusers_ext.training.loop.network_options import build_network


GeneratorName = Literal[
    "srresnet", "msrresnet", "rrdb", "unet", "resnet", "deblurgan", "fpn", "deepdeblur", "context_encoder", "danet"
]


def _by_scale(scale: int, arguments: dict) -> dict:
    return {"scale": scale}


def _by_upsamplings(scale: int, arguments: dict) -> dict:
    return {"num_upsamplings": (scale * arguments.get("unshuffle_factor", 1)).bit_length() - 1}


@dataclass(frozen=True)
class Restorer:
    """A kind of generator.

    Args:
        network (`type`): its class.
        black (`float`): its value of black, where white is 1.
        decide (`Callable`): `decide(scale, arguments)` returns what other options decide of its arguments.
    """

    network: type[ModelMixin]
    black: float = 0.0
    decide: Callable[[int, dict], dict] = lambda scale, arguments: {}


RESTORERS = {
    "srresnet": Restorer(SRResNet, decide=_by_scale),
    "msrresnet": Restorer(MSRResNet, decide=_by_scale),
    "rrdb": Restorer(RRDBNet, decide=_by_upsamplings),
    "unet": Restorer(UNetGenerator, black=-1.0),
    "resnet": Restorer(ResnetGenerator, black=-1.0),
    "deblurgan": Restorer(ResnetGenerator, black=-1.0, decide=lambda scale, arguments: {"residual": True}),
    "fpn": Restorer(FPNMobileNet, black=-1.0),
    "deepdeblur": Restorer(DeepDeblurNet),
    "context_encoder": Restorer(ContextEncoder, black=-1.0),
    "danet": Restorer(DANetUNet),
}


def build_restorer(
    kind: GeneratorName, arguments: dict, scale: int, size: tuple[int, int], channels: int
) -> ModelMixin:
    """A new generator.

    Args:
        kind (`str`): a key of `RESTORERS`.
        arguments (`dict`): arguments of its class.
        scale (`int`): how many times as high and wide it makes images.
        size, channels: of the large images.

    Raises:
        ValueError: if the arguments or the scale do not fit the class or the images.
    """
    restorer = RESTORERS[kind]
    decided = {"in_channels": channels, "out_channels": channels, **restorer.decide(scale, arguments)}
    shown = torch.Size((1, channels, *(side // scale for side in size)))

    def trial(network: ModelMixin) -> None:
        network(torch.zeros(shown))

    network = build_network(restorer.network, "--generator_options", arguments, decided=decided, trial=trial)
    own = getattr(network, "scale", 1)
    if own != scale:
        raise ValueError(f"--scale {scale} is not possible for --generator {kind}, which enlarges by {own}.")
    stride, least = getattr(network, "stride", 1), getattr(network, "smallest_side", 1)
    if any(side % stride or side < least for side in shown[2:]):
        raise ValueError(
            f"--resolution must give this generator images whose sides are multiples of {stride} and at least "
            f"{least}, not {tuple(shown[2:])}."
        )
    return network


def pretrained_restorer(name: str, scale: int, channels: int, cache_dir: str | None) -> ModelMixin:
    """The generator of a pipeline, to be trained further.

    Raises:
        ValueError: if it has another scale or other channels.
    """
    generator = RestorationPipeline.from_pretrained(name, cache_dir=cache_dir).generator
    found = {"--scale": getattr(generator, "scale", 1), "--channels": generator.config.in_channels}
    for option, wanted in {"--scale": scale, "--channels": channels}.items():
        if found[option] != wanted:
            raise ValueError(f"{option} is {wanted}, but the network of {name} has {found[option]}.")
    return generator


def build_critic(kind: str, arguments: dict, size: tuple[int, int], channels: int) -> ModelMixin:
    """A new discriminator of images of this size: "patch" or "srgan".

    Raises:
        ValueError: if the arguments do not fit the class or the images.
    """
    usual = {}
    if kind == "patch":
        num_layers = max(layers for layers in range(4) if layers == 0 or min(size) >= 3 * 2**layers)
        usual = {"num_layers": num_layers, "normalization": "none", "spectral_norm": True}
    return build_network(
        {"patch": PatchDiscriminator, "srgan": SRGANDiscriminator}[kind],
        "--discriminator_options",
        arguments,
        usual=usual,
        decided={"in_channels": channels},
        trial=lambda network: network(torch.zeros(1, channels, *size)),
    )
