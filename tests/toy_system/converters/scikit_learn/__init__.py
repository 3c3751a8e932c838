"""scikit-learn's PCA of images, saved as a state dict of its attributes."""

import math

import torch

from diffusers_ext.converters.family import Conversion, Family
from diffusers_ext.converters.original_arguments import positive_integer
from diffusers_ext.models.modeling_pca_generator import PCAGenerator


def convert_scikit_learn_pca(state_dict: dict[str, torch.Tensor], out_channels: int = 1) -> PCAGenerator:
    """The generator with the maximum-likelihood weights (Tipping & Bishop 1999, eq. 7): U (L - sigma**2 I)**0.5."""
    components, noise = state_dict["components_"], state_dict["noise_variance_"]
    weight = components.T * (state_dict["explained_variance_"] - noise).sqrt()
    size = math.isqrt(len(weight) // out_channels)
    model = PCAGenerator(size, out_channels, latent_dim=weight.shape[1])
    model.load_state_dict({"decoder.weight": weight, "decoder.bias": state_dict["mean_"], "log_variance": noise.log()})
    return model


FAMILIES = (
    Family(
        name="scikit_learn_pca",
        description="PCA of scikit-learn: torch.save of its attributes becomes a PCAGenerator.",
        example="pca.pt pca",
        convert=lambda state_dict, options: Conversion({"": convert_scikit_learn_pca(state_dict, **options)}),
        options={"out_channels": positive_integer},
        functions=(convert_scikit_learn_pca,),
    ),
)
