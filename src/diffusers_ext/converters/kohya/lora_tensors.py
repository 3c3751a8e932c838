"""The tensors of a LoRA in kohya's layout and in that of diffusers."""

import math
import re
from collections import Counter, defaultdict

import torch
from diffusers import DiffusionPipeline
from peft.utils.other import get_pattern_key

from diffusers_ext.converters.kohya.layer_names import Layer, adaptable_layers, kohya_layers, text_layer_name


State = dict[str, torch.Tensor]


def is_kohya(state: State) -> bool:
    """Whether tensors have kohya's names."""
    return any(key.startswith(("lora_unet_", "lora_te")) for key in state)


def from_kohya(state: State, pipeline: DiffusionPipeline) -> tuple[State, dict]:
    """kohya's tensors under diffusers' names, such as `unet.<layer>.lora_A.weight`.

    Args:
        state (`dict`): the tensors of a kohya file.
        pipeline (`DiffusionPipeline`): the base that the LoRA is for.

    Returns:
        `tuple`: the tensors, and the metadata from which diffusers builds the adapters, `{"unet.r": 4, ...}`.

    Raises:
        ValueError: if a tensor belongs to no layer of the base, has another shape, or is missing.
    """
    layers, modules = kohya_layers(pipeline), adaptable_layers(pipeline)
    parts = defaultdict(dict)
    for key, value in state.items():
        name, _, part = key.partition(".")
        if name not in layers or part not in ("lora_down.weight", "lora_up.weight", "alpha", "dora_scale"):
            raise ValueError(f"The LoRA is for another base: {key} belongs to no layer of this one.")
        parts[name][part] = value
    converted, ranks, alphas = {}, {}, {}
    for name, found in parts.items():
        for part in ("lora_down.weight", "lora_up.weight", "alpha"):
            if part not in found:
                raise ValueError(f"The LoRA is not complete: {name}.{part} is missing.")
        for layer, adapter in zip(layers[name], _separate(found, len(layers[name])), strict=True):
            down, up, alpha, dora_scale = adapter
            _check_shape(name, modules[layer], down, up)
            prefix, ranks[layer], alphas[layer] = ".".join(layer), len(down), alpha
            converted[f"{prefix}.lora_A.weight"], converted[f"{prefix}.lora_B.weight"] = down, up
            if dora_scale is not None:
                magnitude = dora_scale.flatten()
                # peft keeps the magnitudes of convolutions in the shape of their outputs.
                magnitude = magnitude if down.ndim == 2 else magnitude.view(1, -1, 1, 1)
                converted[f"{prefix}.lora_magnitude_vector"] = magnitude
    return _with_text_names(converted), _metadata(converted, ranks, alphas)


def to_kohya(state: State, metadata: dict, pipeline: DiffusionPipeline) -> State:
    """The tensors of a diffusers LoRA file under kohya's names; the inverse of [`from_kohya`].

    Raises:
        ValueError: if a tensor belongs to no layer of the base, or to a layer that kohya's files don't have, has
            another shape, or is missing.
    """
    names = {layer: name for name, layers in kohya_layers(pipeline).items() for layer in layers}
    modules = adaptable_layers(pipeline)
    parts = defaultdict(dict)
    for key, value in state.items():
        match = re.fullmatch(r"([^.]+)\.(.+)\.(lora_A\.weight|lora_B\.weight|lora_magnitude_vector(?:\.weight)?)", key)
        layer = match and _layer(match[1], match[2], modules)
        if layer not in modules:
            raise ValueError(f"The LoRA is for another base: {key} belongs to no layer of this one.")
        if layer not in names:
            raise ValueError(f"kohya's files can't hold {key}: they have no such layer.")
        parts[layer][match[3].removesuffix(".weight")] = value
    groups = defaultdict(dict)
    for layer, found in parts.items():
        for part in ("lora_A", "lora_B"):
            if part not in found:
                raise ValueError(f"The LoRA is not complete: {'.'.join(layer)}.{part}.weight is missing.")
        _check_shape(".".join(layer), modules[layer], found["lora_A"], found["lora_B"])
        alpha = _alpha(layer, len(found["lora_A"]), metadata)
        groups[names[layer]][layer] = (found["lora_A"], found["lora_B"], alpha, found.get("lora_magnitude_vector"))
    converted = {}
    for name, layers in kohya_layers(pipeline).items():
        if name in groups:
            for layer in layers:
                if layer not in groups[name]:
                    raise ValueError(f"kohya's {name} includes {'.'.join(layer)}, which has no adapter.")
            adapters = [groups[name][layer] for layer in layers]
            converted |= {f"{name}.{part}": value for part, value in _joined(name, adapters).items()}
    return converted


def _layer(network: str, name: str, modules: dict) -> Layer:
    # Only some versions of transformers have CLIP's layers in a `text_model`, but the names in files always do.
    bare = (network, name.removeprefix("text_model."))
    return bare if bare in modules else (network, name)


def _with_text_names(state: State) -> State:
    names = {}
    for key, value in state.items():
        network, _, rest = key.partition(".")
        names[f"{network}.{text_layer_name(network, rest)}" if network.startswith("text_encoder") else key] = value
    return names


def _check_shape(name: str, module: torch.nn.Module, down: torch.Tensor, up: torch.Tensor) -> None:
    weight = module.weight
    rank = len(down)
    wanted = (rank, *weight.shape[1:]), (len(weight), rank, *[1] * (weight.ndim - 2))
    if (tuple(down.shape), tuple(up.shape)) != wanted:
        raise ValueError(
            f"The LoRA is for another base: {name} is {tuple(down.shape)} and {tuple(up.shape)}, but this one needs "
            f"{wanted[0]} and {wanted[1]}."
        )


def _separate(found: State, count: int) -> list[tuple]:
    """The adapters of `count` layers that are one in kohya's network: (down, up, alpha, DoRA's scale) of each."""
    down, up, alpha = found["lora_down.weight"], found["lora_up.weight"], found["alpha"].item()
    scales = [None] * count
    if "dora_scale" in found:
        scales = found["dora_scale"].chunk(count)
    if count == 1:
        return [(down, up, alpha, scales[0])]
    ups = up.chunk(count)
    if len(down) % count == 0:
        rank = len(down) // count
        blocks = [part[:, i * rank : (i + 1) * rank] for i, part in enumerate(ups)]
        if torch.equal(torch.block_diag(*blocks), up):
            downs = down.chunk(count)
            return [(downs[i].contiguous(), blocks[i].contiguous(), alpha / count, scales[i]) for i in range(count)]
    return [(down.clone(), part.contiguous(), alpha, scale) for part, scale in zip(ups, scales, strict=True)]


def _joined(name: str, adapters: list[tuple]) -> State:
    """kohya's tensors for the adapters of layers that are one in its network."""
    downs, ups, alphas, magnitudes = zip(*adapters, strict=True)
    if len({len(down) for down in downs}) > 1 or len(set(alphas)) > 1:
        raise ValueError(f"kohya's {name} is one layer: query, key and value need the same rank and alpha.")
    down, up, alpha = downs[0], ups[0], alphas[0]
    if len(adapters) > 1:
        if all(torch.equal(other, down) for other in downs):
            up = torch.cat(ups)
        else:
            down, up, alpha = torch.cat(downs), torch.block_diag(*ups), alpha * len(adapters)
    joined = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(float(alpha))}
    if magnitudes[0] is not None:
        scale = torch.cat([magnitude.flatten() for magnitude in magnitudes])
        joined["dora_scale"] = scale.view(-1, *[1] * (down.ndim - 1))
    return {part: value.contiguous() for part, value in joined.items()}


def _alpha(layer: Layer, rank: int, metadata: dict) -> float:
    network, name = layer
    pattern = metadata.get(f"{network}.alpha_pattern", {})
    alpha = pattern.get(get_pattern_key(pattern.keys(), name), metadata.get(f"{network}.lora_alpha", rank))
    return alpha * math.sqrt(rank) if metadata.get(f"{network}.use_rslora") else alpha


def _metadata(state: State, ranks: dict[Layer, int], alphas: dict[Layer, float]) -> dict:
    metadata = {}
    for network in dict.fromkeys(network for network, _ in ranks):
        own = [name for part, name in ranks if part == network]
        rank = Counter(ranks[network, name] for name in own).most_common(1)[0][0]
        alpha = Counter(alphas[network, name] for name in own).most_common(1)[0][0]
        values = {
            "r": rank,
            "lora_alpha": alpha,
            "target_modules": own,
            "rank_pattern": {f"^{n}": ranks[network, n] for n in own if ranks[network, n] != rank},
            "alpha_pattern": {f"^{n}": alphas[network, n] for n in own if alphas[network, n] != alpha},
            "use_dora": any(key.startswith(f"{network}.") and "magnitude" in key for key in state),
        }
        metadata |= {f"{network}.{name}": value for name, value in values.items()}
    return metadata
