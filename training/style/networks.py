"""The networks of style transfer: those that paint, and the layers of those that see content and style."""

import re
from collections.abc import Sequence

import torch

from diffusers_ext.losses.style_features import ImageModelFeatures, load_style_features, normalize_activations
from diffusers_ext.models import VGG, AdaINStyleNet, FastStyleNet
from diffusers_ext.pipelines import StyleTransferPipeline
from diffusers_ext.training.evaluation.pipeline_classes import load_pipeline


def load_feature_network(name: str, device: str | torch.device = "cpu") -> VGG | ImageModelFeatures:
    """The network of `--feature_network`, see [`load_style_features`].

    Raises:
        ValueError: naming the option, if there is no such network, or it has no maps.
    """
    try:
        return load_style_features(name, device)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split()).partition(". ")[0]  # what follows is advice about the Hub
        raise ValueError(
            f"--feature_network {name} is neither a VGG nor an image model of Transformers, in a folder or on the "
            f"Hub: {reason}"
        ) from error


def usual_layers(layers: Sequence[str]) -> tuple[str, list[str]]:
    """The layer of the content and those of the style, among `layers`, as Johnson et al. (2016, section 4.1) choose.

    The style is seen by the last layer of each of four levels (relu1_2, relu2_2, relu3_3 and relu4_3 of VGG-16), and
    the content by the second of these. Stages of other networks count as levels.
    """
    last = list({re.sub(r"(relu\d+)_\d+$", r"\1", name): name for name in layers}.values())[:4]
    return last[min(1, len(last) - 1)], last


def adain_from_vgg(vgg: VGG, name: str, images: torch.Tensor) -> AdaINStyleNet:
    """An AdaIN network with a new decoder, and with the first levels of a VGG as its encoder.

    The channels of the encoder are scaled to a mean square of 1 over `images`; otherwise, layers with large values
    would rule the loss. (The VGG of Huang and Belongie (2017) is scaled too, to means of 1.)

    Args:
        vgg ([`VGG`]): the network, which is changed.
        name (`str`): its name, for errors.
        images (`torch.Tensor` of shape `(N, 3, H, W)`): in `[0, 1]`.

    Raises:
        ValueError: if its levels do not have the layers of VGG-19.
    """
    counts, widths = tuple(vgg.config.layers_per_block), vgg.config.block_out_channels
    if counts[:3] != (2, 2, 4) or len(counts) < 4:
        raise ValueError(
            "--feature_network must have four levels for AdaIN, with 2, 2 and 4 layers in the first three, as VGG-19 "
            f"has, but {name} has levels of {', '.join(map(str, counts))} layers."
        )
    normalize_activations(vgg, images)
    network = AdaINStyleNet(tuple(widths[:4]))
    scale = torch.tensor(vgg.config.image_std).reciprocal()
    with torch.no_grad():
        network.conv_colors.weight.copy_(torch.diag(scale)[:, :, None, None])
        network.conv_colors.bias.copy_(-torch.tensor(vgg.config.image_mean) * scale)
    convs = [conv for block in vgg.blocks for conv in block]
    encoder = [layer.conv for stage in network.stages for layer in stage]
    for layer, conv in zip(encoder, convs[: len(encoder)], strict=True):  # relu4_1 is the last
        layer.load_state_dict(conv.state_dict())
    return freeze_encoder(network)


def freeze_encoder(network: AdaINStyleNet) -> AdaINStyleNet:
    """The network, of which only the decoder is trained."""
    network.conv_colors.requires_grad_(False)
    network.stages.requires_grad_(False)
    return network


def pretrained_style_net(
    name: str, network_class: type[AdaINStyleNet | FastStyleNet], cache_dir: str | None
) -> AdaINStyleNet | FastStyleNet:
    """The network of a pipeline, to be trained further.

    Raises:
        ValueError: if it is of another kind.
    """
    option = "--pretrained_model_name_or_path"
    generator = load_pipeline(name, cache_dir, option, StyleTransferPipeline).generator
    if not isinstance(generator, network_class):
        raise ValueError(
            f"{option} must have {'an' if network_class is AdaINStyleNet else 'a'} "
            f"{network_class.__name__}, but {name} has a {type(generator).__name__}."
        )
    return generator
