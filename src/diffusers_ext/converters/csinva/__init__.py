"""https://github.com/csinva/gan-vae-pretrained-pytorch: its small networks of MNIST."""

from diffusers_ext.converters.adversarial_pairs import generator_and_discriminator
from diffusers_ext.converters.csinva.mnist_lenet import convert_mnist_lenet
from diffusers_ext.converters.csinva.mnist_mlp_gan import (
    MLP_GAN_ARGUMENTS,
    MNIST_SIZE,
    OF_GENERATOR,
    convert_mlp_gan,
)
from diffusers_ext.converters.csinva.mnist_mlp_vae import MLP_VAE_ARGUMENTS, convert_mnist_mlp_vae
from diffusers_ext.converters.family import Conversion, Family, assumptions
from diffusers_ext.converters.original_arguments import path
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.models.modeling_mlp_gan import MLPGenerator
from diffusers_ext.pipelines import AutoencoderPipeline


def _mlp_gan(state_dict: StateDict, options: dict) -> Conversion:
    assumed = assumptions(options, {"image_size": MNIST_SIZE})
    components = generator_and_discriminator(convert_mlp_gan, MLPGenerator, state_dict, options, OF_GENERATOR)
    return Conversion(components, assumed)


def _mlp_vae(state_dict: StateDict, options: dict) -> Conversion:
    return Conversion({"": AutoencoderPipeline(convert_mnist_mlp_vae(state_dict, **options))})


def _lenet(state_dict: StateDict, options: dict) -> Conversion:
    return Conversion({"": convert_mnist_lenet(state_dict, **options)})


FAMILIES = (
    Family(
        name="mnist_mlp_gan",
        description="A generator of csinva's mnist_gan_mlp becomes a GANPipeline, together with its discriminator if "
        "`discriminator_file` names it. A discriminator alone becomes an MLPDiscriminator.",
        example="G--300.ckpt digits --option discriminator_file=D--300.ckpt",
        convert=_mlp_gan,
        options={**MLP_GAN_ARGUMENTS, "discriminator_file": path},
        functions=(convert_mlp_gan,),
    ),
    Family(
        name="mnist_mlp_vae",
        description="A VAE of csinva's mnist_vae or of pytorch/examples becomes an AutoencoderPipeline.",
        example="vae_epoch_25.pth digits-vae",
        convert=_mlp_vae,
        options=MLP_VAE_ARGUMENTS,
        functions=(convert_mnist_mlp_vae,),
    ),
    Family(
        name="mnist_lenet",
        description="The LeNet of csinva's mnist_classifier becomes a LeNet.",
        example="lenet_epoch=12_test_acc=0.991.pth lenet",
        convert=_lenet,
        options={},
        functions=(convert_mnist_lenet,),
    ),
)
