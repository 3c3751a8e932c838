"""The autoencoders of pythae, with its default networks or its convolutional ones for MNIST."""

from diffusers_ext.converters.original_arguments import (
    boolean,
    check_agreement,
    checked,
    non_negative_number,
    numbers,
    positive_integer,
)
from diffusers_ext.converters.state_dicts import StateDict, check_parts, count_blocks, has, size_of
from diffusers_ext.converters.weight_mapping import load_converted
from diffusers_ext.models.modeling_autoencoder_conv import AutoencoderConv
from diffusers_ext.models.modeling_autoencoder_mlp import AutoencoderMLP
from diffusers_ext.models.modeling_vqvae import VQVAEModel


MNIST = (1, 28, 28)  # the images of its convolutional networks
# Entries of the original's `model_config.json`.
MODEL_CONFIG = {
    "input_dim": numbers,
    "latent_dim": positive_integer,
    "num_embeddings": positive_integer,
    "commitment_loss_factor": non_negative_number,
    "quantization_loss_factor": non_negative_number,
    "use_ema": boolean,
    "decay": non_negative_number,
}


def convert_pythae(state_dict: StateDict, **config) -> AutoencoderMLP | AutoencoderConv | VQVAEModel:
    r"""
    An autoencoder of https://github.com/clementchadebec/benchmark_VAE (pythae) for images in [0, 1]: AE, VAE, BetaVAE
    and others with its default networks or its convolutional ones for MNIST, or a VQVAE with its default networks.

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Entries of the original's `model_config.json`. `input_dim`, (channels, height, width), is needed for the
            default networks. `commitment_loss_factor`, `quantization_loss_factor` and `decay` of a VQVAE are for
            training. The tensors show `latent_dim`, `num_embeddings` and `use_ema`, which must agree with them if they
            are given.

    Returns:
        [`AutoencoderMLP`], [`AutoencoderConv`] or [`VQVAEModel`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are missing, unknown or
            contradict the tensors.
    """
    config = checked(config, MODEL_CONFIG)
    check_parts(state_dict, "an autoencoder of pythae", "encoder.layers", "encoder.embedding", "decoder.layers")
    is_vq = has(state_dict, "quantizer")
    weight = state_dict.get("encoder.layers.0.0.weight")
    is_conv = weight is not None and weight.ndim == 4
    input_dim = _checked_input_dim(config.get("input_dim"), default=MNIST if is_conv else ())
    if is_conv and is_vq:
        raise ValueError("Only VQVAEs of pythae with its default networks are converted, but this one has others.")
    latent_dim = size_of(state_dict, {"encoder.embedding.weight": 0, "encoder.embedding.bias": 0})
    shared = {
        "sample_size": input_dim[1:],
        "in_channels": input_dim[0],
        "latent_dim": latent_dim,
        "output_activation": "sigmoid",
        "sample_range": (0.0, 1.0),
    }
    if is_vq:
        codebook = size_of(state_dict, {"quantizer.embeddings": 0, "quantizer.embeddings.weight": 0})
        uses_ema = "quantizer.embeddings" in state_dict
        read = {"latent_dim": latent_dim, "num_embeddings": codebook, "use_ema": uses_ema}
        check_agreement(config, config, read)
        return _convert_vqvae(
            state_dict,
            shared,
            num_embeddings=codebook,
            use_ema=uses_ema,
            commitment_cost=config.get("commitment_loss_factor", 0.25),
            codebook_cost=config.get("quantization_loss_factor", 1.0),
            ema_decay=config.get("decay", 0.99),
        )
    check_agreement(config, config, {"latent_dim": latent_dim})
    return _convert_conv(state_dict, shared) if is_conv else _convert_mlp(state_dict, shared)


def _checked_input_dim(input_dim: list | None, default: tuple[int, ...]) -> tuple[int, ...]:
    input_dim = tuple(input_dim or default)
    if len(input_dim) != 3 or not all(isinstance(side, int) and side > 0 for side in input_dim):
        raise ValueError(
            "`input_dim` must be given as (channels, height, width) of the images, because the checkpoint does not "
            "show it" + (f", but is {input_dim}." if input_dim else ".")
        )
    return input_dim


def _hidden_dims(state_dict: StateDict) -> tuple[int, ...]:
    """The widths of the encoder's layers."""
    return tuple(
        size_of(state_dict, {f"encoder.layers.{i}.0.{kind}": 0 for kind in ("weight", "bias")})
        for i in range(count_blocks(state_dict, "encoder.layers"))
    )


def _convert_mlp(state_dict: StateDict, shared: dict) -> AutoencoderMLP:
    hidden_dims = _hidden_dims(state_dict)
    num_hidden = len(hidden_dims)
    config = shared | {"hidden_dims": hidden_dims, "variational": has(state_dict, "encoder.log_var")}
    modules = {
        "encoder.embedding": "to_mean",
        "encoder.log_var": "to_logvar",
        f"decoder.layers.{num_hidden}.0": "to_sample",
    }
    for part in ("encoder", "decoder"):
        modules |= {f"{part}.layers.{i}.0": f"{part}_layers.{i}" for i in range(num_hidden)}
    return load_converted(AutoencoderMLP, config, modules, state_dict)


def _convert_conv(state_dict: StateDict, shared: dict) -> AutoencoderConv:
    """The decoder has one level less than the encoder: it starts from 4x4 pixels, and the encoder ends with one."""
    widths = _hidden_dims(state_dict)
    num_downs, num_ups = len(widths), count_blocks(state_dict, "decoder.layers") - 1
    config = shared | {
        "block_out_channels": widths,
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
    return load_converted(AutoencoderConv, config, modules, state_dict)


def _convert_vqvae(
    state_dict: StateDict,
    shared: dict,
    num_embeddings: int,
    use_ema: bool,
    commitment_cost: float,
    codebook_cost: float,
    ema_decay: float,
) -> VQVAEModel:
    hidden_dims = _hidden_dims(state_dict)
    num_hidden = len(hidden_dims)
    config = shared | {
        "hidden_dims": hidden_dims,
        "body": "mlp",
        "num_embeddings": num_embeddings,
        "embedding_dim": 1,  # the original quantizes the coordinates of a vector one by one
        "commitment_cost": commitment_cost,
        "codebook_cost": codebook_cost,
        "use_ema": use_ema,
        "ema_decay": ema_decay,
        "revival_threshold": 0.0,
    }
    # the codebook is a buffer with EMA, and otherwise the parameter of an embedding module
    codebook = "quantizer.embeddings" if use_ema else "quantizer.embeddings.weight"
    modules = {
        "encoder.embedding": "to_latents",
        codebook: "quantizer.embeddings",
        "quantizer.cluster_size": "quantizer.cluster_sizes",
        "quantizer.ema_embed": "quantizer.cluster_sums",
    }
    modules |= {f"encoder.layers.{i}.0": f"encoder.layers.{i}" for i in range(num_hidden)}
    modules |= {f"decoder.layers.{i}.0": f"decoder.layers.{i}" for i in range(num_hidden + 1)}
    return load_converted(VQVAEModel, config, modules, state_dict)
