"""The generator of pytorch-pretrained-BigGAN: weights with spectral norm, which are divided by it here."""

import torch

from diffusers_ext.converters.original_arguments import check_agreement, checked, positive_integer, positive_number
from diffusers_ext.converters.state_dicts import StateDict, check_parts, count_blocks, has, size_of
from diffusers_ext.converters.weight_mapping import Modules, load_converted
from diffusers_ext.models.modeling_biggan import COARSEST_SIZE, BigGANGenerator


def layer_list(name: str, value) -> list[tuple[bool, int, int]]:
    """`[doubles, in, out]` for each block, with channels in multiples of `channel_width`."""
    entries = value if isinstance(value, (list, tuple)) else [None]
    for entry in entries:
        is_entry = isinstance(entry, (list, tuple)) and [type(part) for part in entry] == [bool, int, int]
        if not is_entry:
            raise ValueError(f"`{name}` must be a list of [true or false, integer, integer], but has {entry!r}.")
    return [tuple(entry) for entry in entries]


NORM_EPS = 1e-4
BIGGAN_DEEP_ARGUMENTS = {
    **dict.fromkeys(("output_dim", "z_dim", "class_embed_dim", "channel_width", "num_classes"), positive_integer),
    "layers": layer_list,
    "attention_layer_position": positive_integer,
    "eps": positive_number,
    "n_stats": positive_integer,
}
IMAGE_CHANNELS = 3  # of the last convolution, which has more that are thrown away


def convert_biggan_deep(state_dict: StateDict, **config) -> BigGANGenerator:
    r"""
    A `BigGAN` of https://github.com/huggingface/pytorch-pretrained-BigGAN.

    Args:
        state_dict (`Mapping`):
            The tensors of the original network.
        config:
            Arguments of the original's `BigGANConfig`. No tensor shows `eps` (1e-4), nor which `layers` double height
            and width (every second one). The others are seen in the tensors, and must agree with them if they are
            given.

    Returns:
        [`BigGANGenerator`]: in eval mode, in float32, with weights that are divided by their spectral norms.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict
            the tensors.
    """
    config = checked(config, BIGGAN_DEEP_ARGUMENTS)
    check_parts(state_dict, "a BigGAN of pytorch-pretrained-BigGAN", "embeddings", "generator.gen_z")
    state_dict = divided_by_spectral_norms(state_dict)

    num_layers = count_blocks(state_dict, "generator.layers")
    attention = [n for n in range(num_layers) if has(state_dict, f"generator.layers.{n}.snconv1x1_theta")]
    names = [f"generator.layers.{number}" for number in range(num_layers) if number not in attention]
    width = size_of(state_dict, {"generator.bn.weight": 0, "generator.bn.bias": 0})
    widths = [size_of(state_dict, {"generator.gen_z.weight": 0, "generator.gen_z.bias": 0}) // COARSEST_SIZE**2]
    widths += [size_of(state_dict, {f"{name}.conv_3.weight": 0, f"{name}.conv_3.bias": 0}) for name in names]
    embed_dim = size_of(state_dict, {"embeddings.weight": 0})
    layers = config.get("layers")
    doubles = [position % 2 == 1 for position in range(len(names))] if layers is None else [one for one, *_ in layers]
    sizes = [COARSEST_SIZE << sum(doubles[: position + 1]) for position in range(len(doubles))]
    read = {
        "z_dim": size_of(state_dict, {"generator.gen_z.weight": 1}) - embed_dim,
        "class_embed_dim": embed_dim,
        "channel_width": width,
        "num_classes": size_of(state_dict, {"embeddings.weight": 1}),
        "n_stats": size_of(state_dict, {"generator.bn.running_means": 0, "generator.bn.running_vars": 0}),
        "output_dim": sizes[-1] if sizes else COARSEST_SIZE,
    }
    if attention:
        read["attention_layer_position"] = attention[0]
    if layers is not None:
        read["layers"] = [
            (one, before // width, after // width)
            for one, before, after in zip(doubles, widths[:-1], widths[1:], strict=False)
        ]
    check_agreement(config, config, read)
    if attention and (len(attention) > 1 or not 0 < attention[0] < num_layers or not doubles[attention[0] - 1]):
        raise ValueError(f"The attention must follow a layer that doubles, but stands at {attention}.")

    arguments = {
        "sample_size": read["output_dim"],
        "out_channels": IMAGE_CHANNELS,
        "latent_dim": read["z_dim"],
        "num_classes": read["num_classes"],
        "class_embed_dim": embed_dim,
        "block_out_channels": tuple(widths),
        "block_doubles": tuple(doubles),
        "attention_size": sizes[attention[0] - 1] if attention else None,
        "spectral_norm": False,
        "num_truncations": read["n_stats"],
        "latent_distribution": "truncated_normal",
        "norm_eps": config.get("eps", NORM_EPS),
    }
    modules = _modules(names)
    if attention:
        names_of_attention = {"theta": "query", "phi": "key", "g": "value", "o_conv": "conv_out"}
        theirs = f"generator.layers.{attention[0]}"
        modules |= {f"{theirs}.snconv1x1_{old}": f"attention.{new}" for old, new in names_of_attention.items()}
        modules[f"{theirs}.gamma"] = "attention.gamma"

    def prepare(key: str, tensor: torch.Tensor) -> torch.Tensor:
        if key.startswith("generator.gen_z."):  # its features have their channels last
            places = tensor.unflatten(0, (COARSEST_SIZE, COARSEST_SIZE, widths[0]))
            return places.movedim(2, 0).flatten(0, 2)
        return tensor[:IMAGE_CHANNELS] if key.startswith("generator.conv_to_rgb.") else tensor

    whole = {"generator.conv_to_rgb.weight": (width, width, 3, 3), "generator.conv_to_rgb.bias": (width,)}
    return load_converted(BigGANGenerator, arguments, modules, state_dict, prepare, whole)


def _modules(names: list[str]) -> Modules:
    """Ours by the names of the original's, without the attention."""
    modules: Modules = {
        "embeddings": "class_embedding",
        "generator.gen_z": "linear_in",
        "generator.conv_to_rgb": "conv_out",
        "generator.bn.weight": "scale_out",
        "generator.bn.bias": "offset_out",
        **_statistics("generator.bn", "norm_out"),
    }
    for number, name in enumerate(names):
        for position in range(4):
            norm, ours = f"{name}.bn_{position}", f"blocks.{number}.norms.{position}"
            modules[f"{name}.conv_{position}"] = f"blocks.{number}.convs.{position}"
            modules |= {f"{norm}.{kind}": f"{ours}.{kind}" for kind in ("scale", "offset")}
            modules |= _statistics(norm, f"{ours}.norm")
    return modules


def _statistics(theirs: str, ours: str) -> Modules:
    return {f"{theirs}.running_means": f"{ours}.means", f"{theirs}.running_vars": f"{ours}.variances"}


def divided_by_spectral_norms(state_dict: StateDict) -> dict[str, torch.Tensor]:
    """Weights instead of `weight_orig`, `weight_u` and `weight_v`, which `torch.nn.utils.spectral_norm` stores."""
    plain = dict(state_dict)
    for key in state_dict:
        name = key.removesuffix("_orig")
        kinds = [f"{name}_{kind}" for kind in ("orig", "u", "v")]
        if not key.endswith(".weight_orig") or any(kind not in state_dict for kind in kinds):
            continue
        weight, left, right = (plain.pop(kind).float() for kind in kinds)
        plain[name] = weight / (left @ (weight.flatten(1) @ right))
    return plain
