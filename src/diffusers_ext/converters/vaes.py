"""Autoencoders between images and vectors: those of csinva, pythae, disentangling-vae and PyTorch-VAE.

All but PyTorch-VAE's work on images in [0, 1].
"""

import math
from collections.abc import Mapping

import torch

from diffusers_ext.converters.arguments import check_agreement, checked
from diffusers_ext.converters.layout import StateDict, count_blocks, has, size_of
from diffusers_ext.converters.weights import Modules, load_converted
from diffusers_ext.models.modeling_autoencoder_burgess import AutoencoderBurgess
from diffusers_ext.models.modeling_autoencoder_conv import AutoencoderConv
from diffusers_ext.models.modeling_autoencoder_mlp import AutoencoderMLP
from diffusers_ext.models.modeling_vqvae import VQVAEModel
from diffusers_ext.pipelines import AutoencoderPipeline


# The file beside a checkpoint that tells more than the tensors, and what is read from it, by family.
COMPANIONS = {
    "pythae": (
        "model_config.json",
        ("input_dim", "latent_dim", "num_embeddings", "commitment_loss_factor", "use_ema", "decay"),
    ),
    "disentangling_vae": ("specs.json", ("img_size", "latent_dim", "model_type")),
}
UNIT_RANGE = {"output_activation": "sigmoid", "sample_range": (0.0, 1.0)}
PYTHAE_MNIST = (1, 28, 28)  # of its convolutional benchmark networks


def mnist_mlp_vae(state_dict: StateDict, options: dict) -> tuple[dict, list[str]]:
    """An [`AutoencoderPipeline`], and nothing that was assumed."""
    return {"": AutoencoderPipeline(convert_mnist_mlp_vae(state_dict, **options))}, []


def pythae(state_dict: StateDict, options: dict) -> tuple[dict, list[str]]:
    """An [`AutoencoderPipeline`], and nothing that was assumed."""
    return {"": AutoencoderPipeline(convert_pythae(state_dict, **options))}, []


def disentangling_vae(state_dict: StateDict, options: dict) -> tuple[dict, list[str]]:
    """An [`AutoencoderPipeline`], and nothing that was assumed."""
    return {"": AutoencoderPipeline(convert_disentangling_vae(state_dict, **options))}, []


def pytorch_vae(state_dict: StateDict, options: dict) -> tuple[dict, list[str]]:
    """An [`AutoencoderPipeline`], and nothing that was assumed."""
    return {"": AutoencoderPipeline(convert_pytorch_vae(state_dict, **options))}, []


def convert_mnist_mlp_vae(state_dict: Mapping[str, torch.Tensor], **config) -> AutoencoderMLP:
    r"""
    The VAE of https://github.com/csinva/gan-vae-pretrained-pytorch, `mnist_vae`, and of pytorch/examples.

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            `image_size`, the height and width of the gray images, which must agree with the tensors.

    Raises:
        ValueError: if tensors are missing, unknown or of wrong shapes, or if arguments are unknown or at odds with
            the tensors.
    """
    config = checked(config, ("image_size",))
    _check_parts(state_dict, "MLP VAE of pytorch/examples", "fc1", "fc21", "fc22", "fc3", "fc4")
    num_pixels = size_of(state_dict, {"fc1.weight": 1, "fc4.weight": 0, "fc4.bias": 0})
    image_size = math.isqrt(num_pixels)
    if image_size**2 != num_pixels:
        raise ValueError(f"The network is of gray square images, but the checkpoint has {num_pixels} pixels.")
    check_agreement(config, config, {"image_size": image_size})
    net_config = {
        "sample_size": image_size,
        "in_channels": 1,
        "latent_dim": size_of(state_dict, {"fc21.weight": 0, "fc21.bias": 0, "fc22.weight": 0, "fc22.bias": 0}),
        "hidden_dims": (size_of(state_dict, {"fc1.weight": 0, "fc1.bias": 0, "fc3.weight": 0, "fc3.bias": 0}),),
        **UNIT_RANGE,
    }
    modules = {
        "fc1": "encoder_layers.0",
        "fc21": "to_mean",
        "fc22": "to_logvar",
        "fc3": "decoder_layers.0",
        "fc4": "to_sample",
    }
    return load_converted(AutoencoderMLP, net_config, modules, state_dict)


def convert_pythae(state_dict: Mapping[str, torch.Tensor], **config) -> AutoencoderMLP | AutoencoderConv | VQVAEModel:
    r"""
    An autoencoder of https://github.com/clementchadebec/benchmark_VAE (pythae): AE, VAE, BetaVAE and others with its
    default networks or its convolutional ones for MNIST, or a VQVAE with its default networks.

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Entries of the original's `model_config.json`: `input_dim`, (channels, height, width), which the default
            networks need, `commitment_loss_factor` and `decay` of a VQVAE, for training, and what the tensors show,
            `latent_dim`, `num_embeddings` and `use_ema`, which must agree with them.

    Raises:
        ValueError: if tensors are missing, unknown or of wrong shapes, or if arguments are missing, unknown or at odds
            with the tensors.
    """
    config = checked(config, COMPANIONS["pythae"][1])
    _check_parts(state_dict, "autoencoder of pythae", "encoder.layers", "encoder.embedding", "decoder.layers")
    is_vq = has(state_dict, "quantizer")
    weight = state_dict.get("encoder.layers.0.0.weight")
    is_conv = weight is not None and weight.ndim == 4
    input_dim = tuple(config.get("input_dim") or (PYTHAE_MNIST if is_conv else ()))
    if len(input_dim) != 3 or not all(isinstance(side, int) and side > 0 for side in input_dim):
        raise ValueError(
            "`input_dim` must be given as (channels, height, width) of the images, for the checkpoint does not show it"
            + (f", but is {input_dim}." if input_dim else ".")
        )
    if is_conv and is_vq:
        raise ValueError("A VQVAE of pythae is converted with its default networks only, and this has others.")
    latent_dim = size_of(state_dict, {"encoder.embedding.weight": 0, "encoder.embedding.bias": 0})
    read = {"latent_dim": latent_dim}
    if is_vq:
        read["num_embeddings"] = size_of(
            state_dict, {name: 0 for name in ("quantizer.embeddings", "quantizer.embeddings.weight")}
        )
        read["use_ema"] = "quantizer.embeddings" in state_dict
    check_agreement(config, config, read)
    net_config = {
        "sample_size": input_dim[1:],
        "in_channels": input_dim[0],
        "latent_dim": latent_dim,
        **UNIT_RANGE,
    }
    if is_conv:
        return _convert_pythae_mnist(state_dict, net_config)

    num_hidden = count_blocks(state_dict, "encoder.layers")
    net_config["hidden_dims"] = tuple(
        size_of(state_dict, {f"encoder.layers.{i}.0.{kind}": 0 for kind in ("weight", "bias")})
        for i in range(num_hidden)
    )
    if is_vq:
        net_config |= {
            "body": "mlp",
            "num_embeddings": read["num_embeddings"],
            "embedding_dim": 1,  # its quantizer takes the coordinates of a vector one by one
            "commitment_cost": config.get("commitment_loss_factor", 0.25),
            "use_ema": read["use_ema"],
            "ema_decay": config.get("decay", 0.99),
            "revival_threshold": 0.0,
        }
        modules = {
            "encoder.embedding": "to_latents",
            "quantizer.embeddings": "quantizer.embeddings",
            "quantizer.embeddings.weight": "quantizer.embeddings",
            "quantizer.cluster_size": "quantizer.cluster_sizes",
            "quantizer.ema_embed": "quantizer.cluster_sums",
        }
        # a parameter of an embedding module, or a buffer
        del modules["quantizer.embeddings.weight" if read["use_ema"] else "quantizer.embeddings"]
        modules |= {f"encoder.layers.{i}.0": f"encoder.layers.{i}" for i in range(num_hidden)}
        modules |= {f"decoder.layers.{i}.0": f"decoder.layers.{i}" for i in range(num_hidden + 1)}
        return load_converted(VQVAEModel, net_config, modules, state_dict)
    net_config["variational"] = has(state_dict, "encoder.log_var")
    modules = {
        "encoder.embedding": "to_mean",
        "encoder.log_var": "to_logvar",
        f"decoder.layers.{num_hidden}.0": "to_sample",
    }
    for part in ("encoder", "decoder"):
        modules |= {f"{part}.layers.{i}.0": f"{part}_layers.{i}" for i in range(num_hidden)}
    return load_converted(AutoencoderMLP, net_config, modules, state_dict)


def _convert_pythae_mnist(state_dict: StateDict, net_config: dict) -> AutoencoderConv:
    """The decoder has one level less than the encoder: it starts from 4x4 pixels, and the encoder ends with one."""
    num_downs, num_ups = count_blocks(state_dict, "encoder.layers"), count_blocks(state_dict, "decoder.layers") - 1
    net_config |= {
        "block_out_channels": tuple(
            size_of(state_dict, {f"encoder.layers.{i}.0.{kind}": 0 for kind in ("weight", "bias")})
            for i in range(num_downs)
        ),
        "kernel_size": 4,
        "decoder_block_out_channels": tuple(
            size_of(state_dict, {f"decoder.layers.{i}.0.weight": 0}) for i in range(1, num_ups + 1)
        ),
        "decoder_kernel_size": 3,
        "add_conv_out": False,
        "variational": has(state_dict, "encoder.log_var"),
        "activation": "relu",
    }
    modules = {
        "encoder.embedding": "to_mean",
        "encoder.log_var": "to_logvar",
        "decoder.layers.0": "from_latents",
    }
    for layer, name in (("0", "conv"), ("1", "norm")):
        modules |= {f"encoder.layers.{i}.{layer}": f"down_blocks.{i}.{name}" for i in range(num_downs)}
        modules |= {f"decoder.layers.{i + 1}.{layer}": f"up_blocks.{i}.{name}" for i in range(num_ups)}
    return load_converted(AutoencoderConv, net_config, modules, state_dict)


def convert_disentangling_vae(state_dict: Mapping[str, torch.Tensor], **config) -> AutoencoderBurgess:
    r"""
    A VAE of https://github.com/YannDubs/disentangling-vae, whatever objective it was trained with.

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Entries of the original's `specs.json`: `img_size`, (channels, height, width), `latent_dim` and
            `model_type`. The tensors show them all, and they must agree if they are given.

    Raises:
        ValueError: if tensors are missing, unknown or of wrong shapes, or if arguments are unknown or at odds with
            the tensors.
    """
    config = checked(config, COMPANIONS["disentangling_vae"][1])
    _check_parts(
        state_dict, "Burgess VAE of disentangling-vae", "encoder.mu_logvar_gen", "encoder.conv1", "decoder.lin1"
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
        # the mean and the log variance of a coordinate lie side by side
        if not key.startswith("encoder.mu_logvar_gen."):
            return tensor
        return tensor.unflatten(0, (-1, 2)).transpose(0, 1).flatten(0, 1)

    net_config = {
        "sample_size": size,
        "in_channels": channels,
        "latent_dim": latent_dim,
        "hidden_channels": size_of(state_dict, {f"encoder.{name}.bias": 0 for name in down_names}),
        "hidden_dim": size_of(state_dict, {f"encoder.lin{i}.{k}": 0 for i in (1, 2) for k in ("weight", "bias")}),
        **UNIT_RANGE,
    }
    return load_converted(AutoencoderBurgess, net_config, modules, state_dict, prepare)


def convert_pytorch_vae(state_dict: Mapping[str, torch.Tensor], **config) -> AutoencoderConv:
    r"""
    The `VanillaVAE` of https://github.com/AntixK/PyTorch-VAE, and those of its models that have the same network.

    Args:
        state_dict (`Mapping`):
            The tensors of the original; those of a whole Lightning module begin with `model.`.
        config:
            Arguments of the original's constructor: `in_channels`, `latent_dim` and `hidden_dims`. The tensors show
            them all, and they must agree if they are given.

    Raises:
        ValueError: if tensors are missing, unknown or of wrong shapes, or if arguments are unknown or at odds with
            the tensors.
    """
    config = checked(config, ("in_channels", "latent_dim", "hidden_dims"))
    if all(key.startswith("model.") for key in state_dict):
        state_dict = {key.removeprefix("model."): tensor for key, tensor in state_dict.items()}
    _check_parts(
        state_dict, "VanillaVAE of PyTorch-VAE", "encoder.0", "fc_mu", "fc_var", "decoder_input", "final_layer"
    )
    num_levels = count_blocks(state_dict, "encoder")
    hidden_dims = [
        size_of(state_dict, {f"encoder.{i}.{name}": 0 for name in ("0.weight", "0.bias", "1.weight", "1.bias")})
        for i in range(num_levels)
    ]
    read = {
        "in_channels": size_of(
            state_dict, {"encoder.0.0.weight": 1, "final_layer.3.weight": 0, "final_layer.3.bias": 0}
        ),
        "latent_dim": size_of(
            state_dict, {f"{name}.{kind}": 0 for name in ("fc_mu", "fc_var") for kind in ("weight", "bias")}
        ),
        "hidden_dims": hidden_dims,
    }
    check_agreement(config, config, read)

    modules = {"fc_mu": "to_mean", "fc_var": "to_logvar", "decoder_input": "from_latents", "final_layer.3": "conv_out"}
    for i in range(num_levels):
        up = f"decoder.{i}" if i < num_levels - 1 else "final_layer"
        modules |= {f"encoder.{i}.0": f"down_blocks.{i}.conv", f"encoder.{i}.1": f"down_blocks.{i}.norm"}
        modules |= {f"{up}.0": f"up_blocks.{i}.conv", f"{up}.1": f"up_blocks.{i}.norm"}
    net_config = {
        "sample_size": 2 * 2**num_levels,  # it always leaves 2x2 pixels
        "in_channels": read["in_channels"],
        "latent_dim": read["latent_dim"],
        "block_out_channels": tuple(hidden_dims),
    }
    return load_converted(AutoencoderConv, net_config, modules, state_dict)


def _check_parts(state_dict: StateDict, network: str, *parts: str) -> None:
    """Refuses another network by the first part that it lacks."""
    for part in parts:
        if not has(state_dict, part):
            raise ValueError(f"This is no {network}: it has no {part}, but {', '.join(list(state_dict)[:3])} ...")
