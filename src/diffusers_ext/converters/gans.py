"""Generators and discriminators of noise-to-image GANs: DCGAN of pytorch/examples, and csinva's GAN of dense layers.

Both are plain sequences of layers, whose numbers are all that a checkpoint tells of what lies between them.
"""

from collections.abc import Callable, Mapping

import torch
from diffusers import ModelMixin

from diffusers_ext.converters.arguments import check_agreement, checked
from diffusers_ext.converters.layout import StateDict, size_of
from diffusers_ext.converters.reading import read_state_dict
from diffusers_ext.converters.weights import load_converted
from diffusers_ext.models.modeling_dcgan import DCGANDiscriminator, DCGANGenerator
from diffusers_ext.models.modeling_mlp_gan import MLPDiscriminator, MLPGenerator
from diffusers_ext.pipelines import GANPipeline


DCGAN_SIZE = 64  # of the images of pytorch/examples, which has no other
DCGAN_LEVELS = 4
MNIST_SIZE = 28
OF_GENERATORS = ("nz", "ngf", "latent_size")  # arguments that a discriminator has not
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def dcgan(state_dict: StateDict, options: dict) -> tuple[dict, list[str]]:
    """A [`GANPipeline`] around a generator, or a [`DCGANDiscriminator`]; and what was assumed."""
    return _components(convert_dcgan, DCGANGenerator, state_dict, options), []


def mnist_mlp_gan(state_dict: StateDict, options: dict) -> tuple[dict, list[str]]:
    """A [`GANPipeline`] around a generator, or an [`MLPDiscriminator`]; and what was assumed."""
    assumed = [] if "image_size" in options else [f"image_size={MNIST_SIZE}"]
    return _components(convert_mlp_gan, MLPGenerator, state_dict, options), assumed


def _components(
    convert: Callable[..., ModelMixin], generator_class: type[ModelMixin], state_dict: StateDict, options: dict
) -> dict:
    options = dict(options)
    discriminator_file = options.pop("discriminator_file", None)
    network = convert(state_dict, **options)
    if discriminator_file is None:
        return {"": GANPipeline(network) if isinstance(network, generator_class) else network}
    if not isinstance(network, generator_class):
        raise ValueError("`discriminator_file` goes with a generator, but the checkpoint itself is a discriminator.")
    for_both = {name: value for name, value in options.items() if name not in OF_GENERATORS}
    discriminator = convert(read_state_dict(str(discriminator_file)), **for_both)
    if isinstance(discriminator, generator_class):
        raise ValueError(f"`discriminator_file` must be a discriminator, but {discriminator_file} is a generator.")
    if network.config.out_channels != discriminator.config.in_channels:
        raise ValueError(
            f"The generator makes images of {network.config.out_channels} channels, and the discriminator of "
            f"{discriminator_file} takes {discriminator.config.in_channels}."
        )
    return {"": GANPipeline(network, discriminator)}


def convert_dcgan(state_dict: Mapping[str, torch.Tensor], **config) -> DCGANGenerator | DCGANDiscriminator:
    r"""
    A `Generator` or `Discriminator` of https://github.com/pytorch/examples, `dcgan/main.py`.

    Args:
        state_dict (`Mapping`):
            The tensors of the original, `netG_epoch_*.pth` or `netD_epoch_*.pth`.
        config:
            Arguments of the original's command: `nz`, `ngf`, `ndf`, `nc`, `imageSize`. The tensors show them all, and
            they must agree if they are given.

    Raises:
        ValueError: if tensors are missing, unknown or of wrong shapes, or if arguments are unknown or at odds with
            the tensors.
    """
    config = checked(config, ("nz", "ngf", "ndf", "nc", "imageSize"))
    convs = [index for index in range(100) if _is(state_dict, f"main.{index}.weight", ndim=4)]
    is_generator = convs == [3 * level for level in range(DCGAN_LEVELS + 1)]
    if not is_generator and convs != [0, *range(2, 3 * DCGAN_LEVELS, 3)]:
        found = f"convolutions at {convs} of `main`" if convs else ", ".join(list(state_dict)[:3]) + " ..."
        raise ValueError(
            "This is no DCGAN of pytorch/examples, whose generator has convolutions at [0, 3, 6, 9, 12] of `main` and "
            f"whose discriminator has them at [0, 2, 5, 8, 11]: it has {found}."
        )
    first, last = f"main.{convs[0]}.weight", f"main.{convs[-1]}.weight"
    if is_generator:
        model_class = DCGANGenerator
        read = {"nz": size_of(state_dict, {first: 0}), "ngf": size_of(state_dict, {last: 0})}
        read["nc"] = size_of(state_dict, {last: 1})
        arguments = {"latent_dim": read["nz"], "channels": read["ngf"], "out_channels": read["nc"]}
    else:
        model_class = DCGANDiscriminator
        read = {"ndf": size_of(state_dict, {first: 0}), "nc": size_of(state_dict, {first: 1})}
        arguments = {"channels": read["ndf"], "in_channels": read["nc"]}
    read["imageSize"] = DCGAN_SIZE
    check_agreement(config, config, read)

    tensors, modules = dict(state_dict), {last.removesuffix(".weight"): "conv_out"}
    for block, conv in enumerate(convs[:-1]):
        modules[f"main.{conv}"] = f"blocks.{block}.0"
        norm = f"main.{conv + 1}"
        if is_generator or block > 0:
            modules |= {norm: f"blocks.{block}.1"} | {f"{norm}.{name}": f"blocks.{block}.1.{name}" for name in BUFFERS}
            # PyTorch before 0.4.1 did not count
            count = state_dict.get(f"{norm}.num_batches_tracked", torch.zeros(()))
            tensors[f"{norm}.num_batches_tracked"] = count.float()

    def prepare(key: str, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.long() if key.endswith(".num_batches_tracked") else tensor

    return load_converted(model_class, {"sample_size": DCGAN_SIZE, **arguments}, modules, tensors, prepare)


def convert_mlp_gan(state_dict: Mapping[str, torch.Tensor], **config) -> MLPGenerator | MLPDiscriminator:
    r"""
    A generator or discriminator of `mnist_gan_mlp` in https://github.com/csinva/gan-vae-pretrained-pytorch.

    Args:
        state_dict (`Mapping`):
            The tensors of the original, `G--*.ckpt` or `D--*.ckpt`.
        config:
            `image_size`, the height and width of the images, by default that of MNIST, 28; and `latent_size`,
            `hidden_size`, as in the original, which the tensors show, and which must agree if they are given.

    Raises:
        ValueError: if tensors are missing, unknown or of wrong shapes, or if arguments are unknown or at odds with
            the tensors.
    """
    config = checked(config, ("image_size", "latent_size", "hidden_size"))
    layers = [index for index in range(100) if _is(state_dict, f"{index}.weight", ndim=2)]
    if len(layers) < 2 or layers != list(range(0, 2 * len(layers), 2)):
        found = ", ".join(list(state_dict)[:3])
        raise ValueError(f"This is no GAN of dense layers `0`, `2`, `4` ...: it has {found} ...")
    image_size = config.get("image_size", MNIST_SIZE)
    first, last = f"{layers[0]}.weight", f"{layers[-1]}.weight"
    hidden_dims = tuple(size_of(state_dict, {f"{layer}.weight": 0, f"{layer}.bias": 0}) for layer in layers[:-1])
    inputs = size_of(state_dict, {first: 1})
    outputs = size_of(state_dict, {last: 0, f"{last.removesuffix('weight')}bias": 0})
    is_generator = outputs > 1
    num_values = outputs if is_generator else inputs
    if num_values % image_size**2 != 0:
        raise ValueError(
            f"`image_size` must be that of images of {num_values} values, as the checkpoint has them, but is "
            f"{image_size}."
        )
    channels = num_values // image_size**2
    read = {"hidden_size": hidden_dims[0]} | ({"latent_size": inputs} if is_generator else {})
    check_agreement(config, config, read)

    modules = {str(layer): f"layers.{position}.0" for position, layer in enumerate(layers[:-1])}
    modules[str(layers[-1])] = "proj_out"
    arguments = {"sample_size": image_size, "hidden_dims": hidden_dims}
    if is_generator:
        arguments |= {"out_channels": channels, "latent_dim": inputs}
        return load_converted(MLPGenerator, arguments, modules, state_dict)
    return load_converted(MLPDiscriminator, {**arguments, "in_channels": channels}, modules, state_dict)


def _is(state_dict: StateDict, key: str, ndim: int) -> bool:
    return key in state_dict and state_dict[key].ndim == ndim
