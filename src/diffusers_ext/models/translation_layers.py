"""Normalization and initial weights of the networks for image translation: pix2pix and CycleGAN."""

from torch import nn


NORMALIZATIONS = ("batch", "instance", "none")


def normalization_layer(normalization: str, channels: int) -> nn.Module:
    layers = {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d, "none": nn.Identity}
    return layers[normalization](channels)


def initialize_weights(module: nn.Module) -> None:
    """Normal weights with standard deviation 0.02 (Isola et al. 2017, section 3.3; Zhu et al. 2017, appendix 7.1)."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
