"""The latent mappers of StyleCLIP: from their tensors to a [`LatentMapper`]."""

from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.converters.weight_mapping import load_converted
from diffusers_ext.models.modeling_latent_mapper import LatentMapper


LEVELS = {"course_mapping": "coarse", "medium_mapping": "medium", "fine_mapping": "fine"}  # the first is misspelt
NUM_LAYERS = 4


def convert_latent_mapper(state_dict: StateDict, num_styles: int = 18) -> LatentMapper:
    """A `LevelsMapper` of https://github.com/orpatashnik/StyleCLIP as a [`LatentMapper`].

    Args:
        state_dict (`Mapping`): the tensors of the mapper.
        num_styles (`int`, defaults to 18): the styles of the generator's images, 18 for 1024 pixels.

    Raises:
        ValueError: if tensors are missing, unknown, or of other shapes.
    """
    found = [name for name in LEVELS if f"{name}.mapping.1.weight" in state_dict]
    if not found:
        raise ValueError(f"This is no LevelsMapper of StyleCLIP: it has none of {', '.join(LEVELS)}.")
    config = {
        "num_styles": num_styles,
        "style_dim": len(state_dict[f"{found[0]}.mapping.1.weight"]),
        "levels": tuple(LEVELS[name] for name in found),
        "num_layers": NUM_LAYERS,
    }
    modules = {
        # the first module of the original has no tensors
        f"{name}.mapping.{layer + 1}": f"mappers.{LEVELS[name]}.{layer}"
        for name in found
        for layer in range(NUM_LAYERS)
    }
    return load_converted(LatentMapper, config, modules, state_dict)
