"""The feature matching loss, with which generated images look like the true ones to a discriminator's layers."""

from collections.abc import Sequence

import torch


def feature_matching_loss(
    fake_features: Sequence[Sequence[torch.Tensor]], real_features: Sequence[Sequence[torch.Tensor]]
) -> torch.Tensor:
    """The mean absolute difference of features, summed over layers and averaged over scales, of shape (N,), float32.

    Wang et al. (2018, "pix2pixHD", eq. 4), as in https://github.com/NVlabs/SPADE.

    Args:
        fake_features, real_features: for each scale the features (N, C, H, W) of each layer, as the `hidden_states` of
            a [`MultiScalePatchDiscriminator`], for generated images and for the true ones. The latter get no gradient.
    """
    scales = []
    for fakes, reals in zip(fake_features, real_features, strict=True):
        layers = [
            (fake.float() - real.detach().float()).abs().flatten(1).mean(dim=1)
            for fake, real in zip(fakes, reals, strict=True)
        ]
        scales.append(torch.stack(layers).sum(dim=0))
    return torch.stack(scales).mean(dim=0)
