"""Convolutions with spectral norm, which PyTorch has stored in two ways: as a hook, and as a parametrization."""

from diffusers_ext.converters.state_dicts import StateDict


SPECTRAL = {
    "weight_orig": "parametrizations.weight.original",
    "weight_u": "parametrizations.weight.0._u",
    "weight_v": "parametrizations.weight.0._v",
}


def has_spectral_norm(state_dict: StateDict) -> bool:
    """Whether any weight is divided by its spectral norm."""
    return any(key.endswith(".weight_orig") for key in state_dict)


def spectral_conv(source: str, target: str) -> dict[str, str]:
    """The modules and tensors of a convolution with or without spectral norm, for [`load_converted`]."""
    return {source: target, **{f"{source}.{key}": f"{target}.{name}" for key, name in SPECTRAL.items()}}
