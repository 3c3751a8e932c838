"""A GAN of dense layers, a plain sequence: the widths of the layers show what it is."""

from diffusers_ext.converters.original_arguments import check_agreement, checked, positive_integer
from diffusers_ext.converters.state_dicts import StateDict, first_names, layers_of, size_of
from diffusers_ext.converters.weight_mapping import load_converted
from diffusers_ext.models.modeling_mlp_gan import MLPDiscriminator, MLPGenerator


MNIST_SIZE = 28
MLP_GAN_ARGUMENTS = dict.fromkeys(("image_size", "latent_size", "hidden_size"), positive_integer)
OF_GENERATOR = ("latent_size",)  # arguments that a discriminator does not have


def convert_mlp_gan(state_dict: StateDict, **config) -> MLPGenerator | MLPDiscriminator:
    r"""
    A generator or discriminator of `mnist_gan_mlp` in https://github.com/csinva/gan-vae-pretrained-pytorch.

    Args:
        state_dict (`Mapping`):
            The tensors of the original, `G--*.ckpt` or `D--*.ckpt`.
        config:
            `image_size`, the height and width of the images, is by default MNIST's size, 28. The tensors show the
            original's `latent_size` and `hidden_size`, which must agree with them if they are given.

    Returns:
        [`MLPGenerator`] or [`MLPDiscriminator`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict
            the tensors.
    """
    config = checked(config, MLP_GAN_ARGUMENTS)
    layers = layers_of(state_dict, "", ndim=2)
    if len(layers) < 2 or layers != list(range(0, 2 * len(layers), 2)):
        raise ValueError(
            f"This is not a GAN of dense layers `0`, `2`, `4` ...: its tensors are {first_names(state_dict)}."
        )
    image_size = config.get("image_size", MNIST_SIZE)
    first, last = layers[0], layers[-1]
    hidden_dims = tuple(size_of(state_dict, {f"{layer}.weight": 0, f"{layer}.bias": 0}) for layer in layers[:-1])
    inputs = size_of(state_dict, {f"{first}.weight": 1})
    outputs = size_of(state_dict, {f"{last}.weight": 0, f"{last}.bias": 0})
    is_generator = outputs > 1
    num_values = outputs if is_generator else inputs
    if num_values % image_size**2 != 0:
        raise ValueError(
            f"`image_size` is {image_size}, but images of that size can't have the checkpoint's {num_values} values."
        )
    channels = num_values // image_size**2
    check_agreement(
        config, config, {"hidden_size": hidden_dims[0]} | ({"latent_size": inputs} if is_generator else {})
    )

    modules = {str(layer): f"layers.{position}.0" for position, layer in enumerate(layers[:-1])}
    modules[str(last)] = "proj_out"
    arguments = {"sample_size": image_size, "hidden_dims": hidden_dims}
    if is_generator:
        arguments |= {"out_channels": channels, "latent_dim": inputs}
        return load_converted(MLPGenerator, arguments, modules, state_dict)
    return load_converted(MLPDiscriminator, {**arguments, "in_channels": channels}, modules, state_dict)
