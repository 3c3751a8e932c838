"""The VanillaVAE of PyTorch-VAE."""

from diffusers_ext.converters.original_arguments import check_agreement, checked, numbers, positive_integer
from diffusers_ext.converters.state_dicts import StateDict, check_parts, count_blocks, size_of
from diffusers_ext.converters.weight_mapping import load_converted
from diffusers_ext.models.modeling_autoencoder_conv import AutoencoderConv


PYTORCH_VAE_ARGUMENTS = {"in_channels": positive_integer, "latent_dim": positive_integer, "hidden_dims": numbers}


def convert_pytorch_vae(state_dict: StateDict, **config) -> AutoencoderConv:
    r"""
    The `VanillaVAE` of https://github.com/AntixK/PyTorch-VAE, and its other models with the same network.

    Args:
        state_dict (`Mapping`):
            The tensors of the original. In a whole Lightning module their names begin with `model.`.
        config:
            Arguments of the original's constructor: `in_channels`, `latent_dim` and `hidden_dims`. The tensors show
            all of them, and they must agree with the tensors if they are given.

    Returns:
        [`AutoencoderConv`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict
            the tensors.
    """
    config = checked(config, PYTORCH_VAE_ARGUMENTS)
    if all(key.startswith("model.") for key in state_dict):
        state_dict = {key.removeprefix("model."): tensor for key, tensor in state_dict.items()}
    parts = ("encoder.0", "fc_mu", "fc_var", "decoder_input", "final_layer")
    check_parts(state_dict, "a VanillaVAE of PyTorch-VAE", *parts)
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
        "sample_size": 2 * 2**num_levels,  # the encoder always ends with 2x2 pixels
        "in_channels": read["in_channels"],
        "latent_dim": read["latent_dim"],
        "block_out_channels": tuple(hidden_dims),
    }
    return load_converted(AutoencoderConv, net_config, modules, state_dict)
