"""The VAE of disentangling-vae."""

import torch

from diffusers_ext.converters.original_arguments import (
    anything,
    check_agreement,
    checked,
    numbers,
    positive_integer,
)
from diffusers_ext.converters.state_dicts import StateDict, check_parts, has, size_of
from diffusers_ext.converters.weight_mapping import Modules, load_converted
from diffusers_ext.models.modeling_autoencoder_burgess import AutoencoderBurgess


# Entries of the original's `specs.json`.
SPECS = {"img_size": numbers, "latent_dim": positive_integer, "model_type": anything}


def convert_disentangling_vae(state_dict: StateDict, **config) -> AutoencoderBurgess:
    r"""
    A VAE of https://github.com/YannDubs/disentangling-vae for images in [0, 1], trained with any of its objectives.

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Entries of the original's `specs.json`: `img_size`, (channels, height, width), `latent_dim` and
            `model_type`. The tensors show all of them, and they must agree with the tensors if they are given.

    Returns:
        [`AutoencoderBurgess`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict
            the tensors.
    """
    config = checked(config, SPECS)
    check_parts(
        state_dict, "a Burgess VAE of disentangling-vae", "encoder.mu_logvar_gen", "encoder.conv1", "decoder.lin1"
    )
    is_64 = has(state_dict, "encoder.conv_64")
    size = 64 if is_64 else 32
    channels = size_of(state_dict, {"encoder.conv1.weight": 1, "decoder.convT3.weight": 1, "decoder.convT3.bias": 0})
    latent_dim = size_of(state_dict, {f"encoder.mu_logvar_gen.{kind}": 0 for kind in ("weight", "bias")}) // 2
    read = {"img_size": [channels, size, size], "latent_dim": latent_dim, "model_type": "Burgess"}
    check_agreement(config, config, read)

    down_names = ["conv1", "conv2", "conv3"] + ["conv_64"] * is_64
    up_names = ["convT_64"] * is_64 + ["convT1", "convT2", "convT3"]
    modules: Modules = {f"encoder.{name}": f"encoder_convs.{i}" for i, name in enumerate(down_names)}
    modules |= {f"decoder.{name}": f"decoder_convs.{i}" for i, name in enumerate(up_names)}
    modules |= {f"encoder.lin{i + 1}": f"encoder_layers.{i}" for i in range(2)}
    modules |= {f"decoder.lin{i + 1}": f"decoder_layers.{i}" for i in range(3)}
    modules["encoder.mu_logvar_gen"] = ("to_mean", "to_logvar")

    def prepare(key: str, tensor: torch.Tensor) -> torch.Tensor:
        # the original stores the mean and the log variance of one coordinate after the other
        if not key.startswith("encoder.mu_logvar_gen."):
            return tensor
        return tensor.unflatten(0, (-1, 2)).transpose(0, 1).flatten(0, 1)

    net_config = {
        "sample_size": size,
        "in_channels": channels,
        "latent_dim": latent_dim,
        "hidden_channels": size_of(state_dict, {f"encoder.{name}.bias": 0 for name in down_names}),
        "hidden_dim": size_of(state_dict, {f"encoder.lin{i}.{k}": 0 for i in (1, 2) for k in ("weight", "bias")}),
        "output_activation": "sigmoid",
        "sample_range": (0.0, 1.0),
    }
    return load_converted(AutoencoderBurgess, net_config, modules, state_dict, prepare)
