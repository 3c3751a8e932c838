"""The networks of pixel diffusion: a new UNet2DModel that suits the images, or a pretrained one."""

import math
from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline, UNet2DModel

from diffusers_ext.training.diffusion.objectives import process
from diffusers_ext.training.loop.configuration import Config, JSONObject, option
from diffusers_ext.training.loop.network_options import build_network


WIDTHS = (128, 256, 256, 256, 512, 512, 512)  # the usual channels of the levels


@dataclass
class DenoiserConfig(Config):
    """Which network is trained."""

    unet: JSONObject = option(
        JSONObject(),
        help="Arguments of diffusers' UNet2DModel, as JSON or a YAML mapping; by default one to suit the resolution.",
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
) -> UNet2DModel:
    """A new denoiser.

    Args:
        size (`tuple[int, int]`): height and width of the images.
        in_channels, out_channels (`int`): of the network.
        num_class_embeds (`int`, *optional*): how many labels it has, the label for "no class" included.
        arguments (`dict`, *optional*): those of UNet2DModel; by default [`default_unet`] for images of this size.

    Raises:
        ValueError: if the arguments don't fit each other, or the network can't halve images of this size.
    """
    decided = {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "num_class_embeds": num_class_embeds,
        "sample_size": size,
    }

    def trial(unet: UNet2DModel) -> None:
        _check_size(unet, size)
        labels = None if num_class_embeds is None else torch.zeros(1, dtype=torch.int64)
        unet(torch.zeros(1, in_channels, *size), torch.zeros(1), class_labels=labels)

    given = arguments or {}
    usual = derived_arguments(given, size) if given else default_unet(size)
    unet = build_network(UNet2DModel, "--unet", given, usual=usual, decided=decided, trial=trial)
    _check_size(unet, size)
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


def pretrained_unet(
    pipeline_class: type[DiffusionPipeline],
    name: str,
    *,
    size: tuple[int, int],
    in_channels: int,
    out_channels: int,
    num_class_embeds: int | None = None,
    cache_dir: str | None = None,
    **trained_for,
) -> UNet2DModel:
    """The denoiser of a pipeline, to be trained on.

    Args:
        pipeline_class (`type`): the class of the pipeline.
        name (`str`): its folder, or its name on the Hub.
        size, in_channels, out_channels, num_class_embeds: as in [`build_unet`]; all but the size must be equal.
        cache_dir (`str`, *optional*): where a download is kept.
        trained_for: what else the pipeline must have been trained for: entries of its configuration, or of the
            [`process`] of its scheduler.

    Raises:
        ValueError: if the pipeline is for something else, or the network can't halve images of this size.
    """
    needed = {"in_channels": in_channels, "out_channels": out_channels, "num_class_embeds": num_class_embeds}
    pipeline = pipeline_class.from_pretrained(name, cache_dir=cache_dir)
    found = {**pipeline.unet.config, **pipeline.config, **process(pipeline.scheduler)}
    for key, value in {**needed, **trained_for}.items():
        if found.get(key) != value:
            raise ValueError(f"{name} has {key}={found.get(key)}, but this run needs {value}.")
    pipeline.unet.register_to_config(sample_size=size)
    _check_size(pipeline.unet, size)
    return pipeline.unet


def num_labels(id2label: dict[int, str] | None, null_class_label: int | None) -> int | None:
    """How many labels a network has: one per class, and perhaps one for "no class"; `None` without classes."""
    return None if id2label is None else len(id2label) + (null_class_label is not None)


def _check_size(unet: UNet2DModel, size: tuple[int, int]) -> None:
    multiple = 2 ** (len(unet.config.block_out_channels) - 1)
    if any(side % multiple for side in size):
        raise ValueError(f"--resolution must be a multiple of {multiple} for this network, not {size}.")


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
