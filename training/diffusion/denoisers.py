"""The networks of diffusion in pixels or latents: a new one that suits the images, or a pretrained one."""

import math
from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline, DiTTransformer2DModel, ModelMixin, UNet2DModel

from diffusers_ext.pipelines.networks import get_num_labels, get_size_multiple
from diffusers_ext.training.diffusion.objectives import process
from diffusers_ext.training.evaluation.pipeline_classes import load_pipeline
from diffusers_ext.training.loop.configuration import Config, JSONObject, option
from diffusers_ext.training.loop.network_options import build_network
from diffusers_ext.training.loop.weights import weights_fingerprint


WIDTHS = (128, 256, 256, 256, 512, 512, 512)  # the usual channels of the levels


@dataclass
class DenoiserConfig(Config):
    """Which network is trained."""

    option_group = "network"

    unet: JSONObject = option(
        JSONObject(),
        help="Arguments of the denoiser's class in diffusers, UNet2DModel if nothing else is said, as JSON or a YAML "
        "mapping; by default those that suit the size of the images or latents.",
    )
    pretrained_model_name_or_path: str | None = option(help="A pipeline to start from, instead of random weights.")

    def __post_init__(self):
        super().__post_init__()
        self.require(
            not (self.unet and self.pretrained_model_name_or_path),
            "--unet and --pretrained_model_name_or_path exclude each other: a pretrained network has its shape",
        )


def build_unet(
    *,
    size: tuple[int, int],
    in_channels: int,
    out_channels: int,
    num_class_embeds: int | None = None,
    arguments: dict | None = None,
    pixels_per_latent: int = 1,
) -> UNet2DModel:
    """A new denoiser.

    Args:
        size (`tuple[int, int]`): height and width of the images, or of their latents.
        in_channels, out_channels (`int`): of the network.
        num_class_embeds (`int`, *optional*): how many labels it has, the label for "no class" included.
        arguments (`dict`, *optional*): arguments of UNet2DModel; by default [`default_unet`] for images of this size.
        pixels_per_latent (`int`): how many pixels of the images a position stands for along each side.

    Raises:
        ValueError: if the arguments don't fit each other, or the network can't halve images of this size.
    """
    decided = {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "num_class_embeds": num_class_embeds,
        "sample_size": sample_size(size),
    }

    def trial(unet: UNet2DModel) -> None:
        check_size(unet, size, pixels_per_latent)
        labels = None if num_class_embeds is None else torch.zeros(1, dtype=torch.int64)
        unet(torch.zeros(1, in_channels, *size), torch.zeros(1), class_labels=labels)

    given = arguments or {}
    usual = derived_arguments(given, size) if given else default_unet(size)
    unet = build_network(UNet2DModel, "--unet", given, usual=usual, decided=decided, trial=trial)
    check_size(unet, size, pixels_per_latent)
    return unet


def derived_arguments(given: dict, size: tuple[int, int]) -> dict:
    """Arguments of a UNet2DModel that follow from those that are given: blocks, widths and the groups of norms.

    Blocks have attention from 16 pixels down. Those that go up mirror those that go down.
    """
    widths, down, up = (given.get(name) for name in ("block_out_channels", "down_block_types", "up_block_types"))
    if not any(isinstance(blocks, (list, tuple)) for blocks in (widths, down, up)):
        usual = default_unet(size)
        widths, down = usual["block_out_channels"], usual["down_block_types"]
    levels = len(next(blocks for blocks in (widths, down, up) if isinstance(blocks, (list, tuple))))
    if widths is None:
        widths = WIDTHS[:levels]
    if down is None and up is None:
        down = ["AttnDownBlock2D" if min(size) >> level <= 16 else "DownBlock2D" for level in range(levels)]
    if down is None:
        down = [_mirrored(block) for block in reversed(up)]
    if up is None:
        up = [_mirrored(block) for block in reversed(down)]
    derived = {"block_out_channels": widths, "down_block_types": down, "up_block_types": up}
    if all(isinstance(width, int) and width > 0 for width in widths):
        derived |= {"norm_num_groups": math.gcd(32, *widths), "attention_head_dim": math.gcd(8, *widths)}
    return derived


def _mirrored(block: str) -> str:
    """The block that goes up beside one that goes down, and the other way round."""
    block = str(block)
    return block.replace("Down", "Up") if "Down" in block else block.replace("Up", "Down")


def pretrained_networks(
    pipeline_class: type[DiffusionPipeline],
    name: str,
    *,
    size: tuple[int, int],
    in_channels: int,
    out_channels: int,
    num_class_embeds: int | None = None,
    cache_dir: str | None = None,
    pixels_per_latent: int = 1,
    vae: ModelMixin | None = None,
    **trained_for,
) -> dict[str, torch.nn.Module]:
    """The denoiser of a pipeline, and the networks of its condition, to be trained on.

    Args:
        pipeline_class (`type`): the class of the pipeline.
        name (`str`): its folder, or its name on the Hub.
        size, in_channels, out_channels, num_class_embeds, pixels_per_latent: as in [`build_unet`]; all but the size
            must be equal.
        cache_dir (`str`, *optional*): where a download is kept.
        vae (`ModelMixin`, *optional*): the autoencoder of this run; the pipeline must have the same.
        trained_for: what else the pipeline must have been trained for: entries of its configuration, or of the
            [`process`] of its scheduler.

    Returns:
        `dict`: "unet", and perhaps "class_embedder" or "conditioner".

    Raises:
        ValueError: if the pipeline is for something else, or the network can't halve images of this size.
    """
    pipeline = load_pipeline(name, cache_dir, "--pretrained_model_name_or_path", pipeline_class)
    _check_autoencoder(name, getattr(pipeline, "vae", None), vae)
    networks = {part: getattr(pipeline, part, None) for part in ("unet", "class_embedder", "conditioner")}
    networks = {part: network for part, network in networks.items() if network is not None}
    needed = {"in_channels": in_channels, "out_channels": out_channels, "num_class_embeds": num_class_embeds}
    labels = {"num_class_embeds": get_num_labels(networks.get("class_embedder", pipeline.unet))}
    found = {**pipeline.unet.config, **labels, **pipeline.config, **process(pipeline.scheduler)}
    for key, value in {**needed, **trained_for}.items():
        if found.get(key) != value:
            raise ValueError(f"{name} has {key}={found.get(key)}, but this run needs {value}.")
    if not isinstance(pipeline.unet, DiTTransformer2DModel):  # whose embeddings of positions are for one size
        pipeline.unet.register_to_config(sample_size=sample_size(size))
    check_size(pipeline.unet, size, pixels_per_latent)
    return networks


def _check_autoencoder(name: str, own: ModelMixin | None, given: ModelMixin | None) -> None:
    """Refuse an autoencoder in whose latents a pretrained denoiser was not trained."""
    if (own is None) != (given is None):
        needs = "makes pixels: leave out --vae" if own is None else f"makes latents: give --vae {name} too"
        raise ValueError(f"--pretrained_model_name_or_path {name} {needs}.")
    if own is not None and weights_fingerprint(own) != weights_fingerprint(given):
        raise ValueError(f"--vae is not the autoencoder of --pretrained_model_name_or_path {name}: give --vae {name}.")


def num_labels(id2label: dict[int, str] | None, null_class_label: int | None) -> int | None:
    """How many labels a network has: one per class, and perhaps one for "no class"; `None` without classes."""
    return None if id2label is None else len(id2label) + (null_class_label is not None)


def check_size(network: ModelMixin, size: tuple[int, int], pixels_per_latent: int = 1) -> None:
    """Refuse images whose sides, or those of their latents, a network can't halve often enough or cut into patches.

    Raises:
        ValueError: naming `--resolution`.
    """
    multiple = get_size_multiple(network)
    if any(side % multiple for side in size):
        pixels = tuple(side * pixels_per_latent for side in size)
        raise ValueError(
            f"--resolution must be a multiple of {multiple * pixels_per_latent} for this network, not {pixels}."
        )


def sample_size(size: tuple[int, int]) -> int | tuple[int, int]:
    """Height and width in a network's configuration: one number for squares, which is all that LDMPipeline reads."""
    return size[0] if size[0] == size[1] else size


def default_unet(size: tuple[int, int]) -> dict:
    """Arguments of a UNet2DModel of the usual width: down to 4 to 8 pixels, with attention from 16 pixels down."""
    smallest = min(size)
    levels = max(2, smallest.bit_length() - 3)
    while levels > 1 and any(side % 2 ** (levels - 1) for side in size):
        levels -= 1
    widths = WIDTHS[:levels]
    has_attention = [smallest >> level <= 16 for level in range(levels)]
    return {
        "block_out_channels": tuple(widths),
        "down_block_types": tuple("AttnDownBlock2D" if has else "DownBlock2D" for has in has_attention),
        "up_block_types": tuple("AttnUpBlock2D" if has else "UpBlock2D" for has in reversed(has_attention)),
        "layers_per_block": 2,
        "attention_head_dim": 64,
    }
