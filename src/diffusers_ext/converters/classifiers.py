"""The noisy classifiers of guided-diffusion, and a LeNet of MNIST."""

import math
from collections.abc import Mapping

import torch

from diffusers_ext.converters.arguments import (
    COMMON,
    check_against,
    check_heads,
    checked,
    in_order_of_diffusers,
    read_heads,
)
from diffusers_ext.converters.layout import Layout, StateDict, has, read_layout, size_of
from diffusers_ext.converters.modules import encoder
from diffusers_ext.converters.unets import block_config
from diffusers_ext.converters.weights import Modules, load_converted
from diffusers_ext.models.modeling_lenet import LeNet
from diffusers_ext.models.modeling_noisy_classifier import NoisyClassifier


LENET = {
    "convnet.c1": "conv1",
    "convnet.c3": "conv2",
    "convnet.c5": "conv3",
    "fc.f6": "fc1",
    "fc.f7": "fc2",
}
ARGUMENTS = (*COMMON, "num_head_channels", "resblock_updown", "use_new_attention_order", "pool")


def convert_guided_diffusion_classifier(state_dict: Mapping[str, torch.Tensor], **config) -> NoisyClassifier:
    r"""
    An `EncoderUNetModel` of https://github.com/openai/guided-diffusion (Dhariwal & Nichol 2021, appendix H,
    https://huggingface.co/papers/2105.05233).

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Arguments of the original's constructor, with its names and meaning. The checkpoint needs
            `num_head_channels` or `num_heads`, `num_res_blocks` where the blocks leave it open, and if it was trained
            with it `use_new_attention_order=True`. What the tensors show need not be given, and must agree with them
            if it is.

    Returns:
        [`NoisyClassifier`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or of wrong shapes, or if arguments are unknown, missing or at
            odds with the tensors.
    """
    config = checked(config, ARGUMENTS)
    if has(state_dict, "output_blocks"):
        raise ValueError("This is no classifier but a whole U-Net, for it has output_blocks.")
    layout = read_layout(state_dict, config.get("num_res_blocks"))
    pool = _read_pool(state_dict)
    image_size = _read_image_size(state_dict, layout) if pool == "attention" else config.get("image_size")
    last = f"out.{'2' if pool in ('spatial', 'attention') else '3'}" + (".c_proj" if pool == "attention" else "")
    num_classes = size_of(state_dict, {f"{last}.weight": 0, f"{last}.bias": 0})
    check_against(
        layout,
        config,
        {},
        image_size=image_size,
        in_channels=layout.in_channels,
        out_channels=num_classes,
        pool=pool,
    )
    heads = read_heads(config)
    check_heads(layout.attention_widths(), heads)
    if pool == "attention" and "attention_head_dim" not in heads:
        raise ValueError("The attention pool needs `num_head_channels`.")
    return load_converted(
        NoisyClassifier,
        {
            "sample_size": image_size,
            "in_channels": layout.in_channels,
            "num_classes": num_classes,
            "time_projection_dim": layout.model_channels,
            "dropout": config.get("dropout", 0.0),
            "pool": pool,
            **{"attention_head_dim": None, **heads},
            **block_config(layout),
        },
        encoder(layout) | _head(pool),
        state_dict,
        in_order_of_diffusers(config, heads),
    )


def _read_pool(state_dict: StateDict) -> str:
    if any(has(state_dict, f"out.2.{part}") for part in ("qkv_proj", "c_proj")):
        return "attention"
    if has(state_dict, "out.2"):
        return "spatial"
    return "spatial_v2" if has(state_dict, "out.1") else "adaptive"


def _read_image_size(state_dict: StateDict, layout: Layout) -> int:
    positions = size_of(state_dict, {"out.2.positional_embedding": 1}) - 1  # and one for the mean
    return math.isqrt(positions) * 2 ** (len(layout.widths) - 1)


def _head(pool: str) -> Modules:
    if pool != "attention":
        return {f"out.{layer}": f"head.{layer}" for layer in range(4)}
    return {
        "out.0": "head.0",
        "out.2.positional_embedding": "head.2.positional_embedding",
        "out.2.qkv_proj": ("head.2.to_q", "head.2.to_k", "head.2.to_v"),
        "out.2.c_proj": "head.2.to_out",
    }


def mnist_lenet(state_dict: StateDict, options: dict) -> tuple[dict, list[str]]:
    """A [`LeNet`]; nothing is assumed."""
    return {"": convert_mnist_lenet(state_dict, **options)}, []


def convert_mnist_lenet(state_dict: Mapping[str, torch.Tensor], **config) -> LeNet:
    r"""
    The `LeNet5` of `mnist_classifier` in https://github.com/csinva/gan-vae-pretrained-pytorch, which takes images of
    1x32x32 in [0, 1].

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            There is nothing to give.

    Raises:
        ValueError: if tensors are missing, unknown or of wrong shapes, or if there are arguments.
    """
    if config:
        raise ValueError(f"A LeNet of MNIST has no argument {next(iter(config))!r}: its tensors show all.")
    return load_converted(LeNet, {"id2label": {label: str(label) for label in range(10)}}, LENET, state_dict)
