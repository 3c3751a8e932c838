"""Convolutions with spectral norm, which PyTorch has stored in two ways, and the normalization after them."""

from diffusers_ext.converters.state_dicts import StateDict, has


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


def normalization_after(state_dict: StateDict, layer: str) -> str:
    """The normalization in a layer, which without one is the bare convolution."""
    if not has(state_dict, f"{layer}.0"):
        return "none"
    return "batch" if has(state_dict, f"{layer}.1") else "instance"


def normalized_conv(layer: str, normalization: str, conv: str, norm: str) -> dict[str, str]:
    """The modules and tensors of a layer of a convolution and its normalization, for [`load_converted`]."""
    if normalization == "none":
        return spectral_conv(layer, conv)
    return {**spectral_conv(f"{layer}.0", conv), f"{layer}.1": norm}
