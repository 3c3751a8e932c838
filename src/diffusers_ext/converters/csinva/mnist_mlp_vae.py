"""A VAE of dense layers for the digits of MNIST."""

import math

from diffusers_ext.converters.original_arguments import check_agreement, checked, positive_integer
from diffusers_ext.converters.state_dicts import StateDict, check_parts, size_of
from diffusers_ext.converters.weight_mapping import load_converted
from diffusers_ext.models.modeling_autoencoder_mlp import AutoencoderMLP


MLP_VAE_ARGUMENTS = {"image_size": positive_integer}
MODULES = {
    "fc1": "encoder_layers.0",
    "fc21": "to_mean",
    "fc22": "to_logvar",
    "fc3": "decoder_layers.0",
    "fc4": "to_sample",
}


def convert_mnist_mlp_vae(state_dict: StateDict, **config) -> AutoencoderMLP:
    r"""
    The VAE of https://github.com/csinva/gan-vae-pretrained-pytorch, `mnist_vae`, and of pytorch/examples, for images
    in [0, 1].

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            `image_size`, the height and width of the gray images. It must agree with the tensors.

    Returns:
        [`AutoencoderMLP`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict
            the tensors.
    """
    config = checked(config, MLP_VAE_ARGUMENTS)
    check_parts(state_dict, "an MLP VAE of pytorch/examples", *MODULES)
    num_pixels = size_of(state_dict, {"fc1.weight": 1, "fc4.weight": 0, "fc4.bias": 0})
    image_size = math.isqrt(num_pixels)
    if image_size**2 != num_pixels:
        raise ValueError(f"The network takes square gray images, but the checkpoint has {num_pixels} pixels.")
    check_agreement(config, config, {"image_size": image_size})
    net_config = {
        "sample_size": image_size,
        "in_channels": 1,
        "latent_dim": size_of(state_dict, {"fc21.weight": 0, "fc21.bias": 0, "fc22.weight": 0, "fc22.bias": 0}),
        "hidden_dims": (size_of(state_dict, {"fc1.weight": 0, "fc1.bias": 0, "fc3.weight": 0, "fc3.bias": 0}),),
        "output_activation": "sigmoid",
        "sample_range": (0.0, 1.0),
    }
    return load_converted(AutoencoderMLP, net_config, MODULES, state_dict)
