"""The tensors of a LoRA in kohya's layout and in diffusers' layout."""

import math
import re
from collections import Counter, defaultdict

import torch
from diffusers import DiffusionPipeline
from peft.utils.other import get_pattern_key

from diffusers_ext.converters.kohya.layer_names import (
    Layer,
    adaptable_layers,
    kohya_layers,
    layers_by_any_name,
    text_layer_name,
)


State = dict[str, torch.Tensor]
Adapter = tuple[torch.Tensor, torch.Tensor, float, torch.Tensor | None]  # down, up, alpha, and DoRA's scale

KOHYA_PARTS = ("lora_down.weight", "lora_up.weight", "alpha", "dora_scale")
DIFFUSERS_PARTS = ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector", "lora_magnitude_vector.weight")


def is_kohya(state: State) -> bool:
    """Whether tensors have kohya's names."""
    return any(key.startswith(("lora_unet_", "lora_transformer_", "lora_te")) for key in state)


def from_kohya(state: State, pipeline: DiffusionPipeline) -> tuple[State, dict]:
    """kohya's tensors under diffusers' names, such as `unet.<layer>.lora_A.weight`.

    Layers may have kohya's or diffusers' names. In older files no adapter has an alpha, and then alpha is the rank.

    Args:
        state (`dict`): the tensors of a kohya file.
        pipeline (`DiffusionPipeline`): the base that the LoRA is for.

    Returns:
        `tuple`: the tensors, and the metadata from which diffusers builds the adapters, `{"unet.r": 4, ...}`.

    Raises:
        ValueError: if a tensor belongs to no layer of the base or to an adapter of another kind, has another shape, is
            not finite, or is missing.
    """
    layers, modules = layers_by_any_name(pipeline), adaptable_layers(pipeline)
    parts = defaultdict(dict)
    for key, value in state.items():
        name, _, part = key.partition(".")
        if part not in KOHYA_PARTS:
            raise _of_another_kind(key, KOHYA_PARTS)
        if name not in layers:
            raise ValueError(f"The LoRA is for another base: {key} belongs to no layer of this one.")
        parts[name][part] = value
    _check_values(state)
    needed = ("lora_down.weight", "lora_up.weight", "alpha")
    has_alphas = any("alpha" in found for found in parts.values())
    converted, ranks, alphas, names = {}, {}, {}, {}
    for name, found in parts.items():
        for part in needed if has_alphas else needed[:2]:
            if part not in found:
                raise ValueError(f"The LoRA is not complete: {name}.{part} is missing.")
        weights = [modules[layer].weight for layer in layers[name]]
        for layer, adapter in zip(layers[name], _separate(_checked(name, found, weights), weights), strict=True):
            if names.setdefault(layer, name) != name:
                raise ValueError(f"The LoRA has two adapters for {'.'.join(layer)}: {names[layer]} and {name}.")
            down, up, alpha, dora_scale = adapter
            prefix, ranks[layer], alphas[layer] = ".".join(layer), len(down), alpha
            converted[f"{prefix}.lora_A.weight"], converted[f"{prefix}.lora_B.weight"] = down, up
            if dora_scale is not None:
                # peft keeps the magnitudes of convolutions in the shape of their outputs.
                magnitude = dora_scale if down.ndim == 2 else dora_scale.view(1, -1, *[1] * (down.ndim - 2))
                converted[f"{prefix}.lora_magnitude_vector"] = magnitude
    return _with_text_names(converted), _metadata(converted, ranks, alphas)


def to_kohya(state: State, metadata: dict, pipeline: DiffusionPipeline) -> State:
    """The tensors of a diffusers LoRA file under kohya's names; the inverse of [`from_kohya`].

    Raises:
        ValueError: if a tensor belongs to no layer of the base, to an adapter of another kind, or to a layer that
            kohya's files don't have, has another shape, is not finite, or is missing.
    """
    names = {layer: name for name, layers in kohya_layers(pipeline).items() for layer in layers}
    modules = adaptable_layers(pipeline)
    parts = defaultdict(dict)
    for key, value in state.items():
        match = re.fullmatch(rf"([^.]+)\.(.+)\.({'|'.join(map(re.escape, DIFFUSERS_PARTS))})", key)
        if not match:
            raise _of_another_kind(key, DIFFUSERS_PARTS)
        layer = _layer(match[1], match[2], modules)
        if layer not in modules:
            raise ValueError(f"The LoRA is for another base: {key} belongs to no layer of this one.")
        if layer not in names:
            raise ValueError(f"kohya's files can't hold {key}: they have no such layer.")
        part = match[3].removesuffix(".weight")
        if part in parts[layer]:
            raise ValueError(f"The LoRA has two tensors for {'.'.join(layer)}.{part}, one of them {key}.")
        parts[layer][part] = value
    _check_values(state)
    groups = defaultdict(dict)
    for layer, found in parts.items():
        for part in ("lora_A", "lora_B"):
            if part not in found:
                raise ValueError(f"The LoRA is not complete: {'.'.join(layer)}.{part}.weight is missing.")
        groups[names[layer]][layer] = _diffusers_adapter(layer, found, modules[layer].weight, metadata)
    converted = {}
    for name, layers in kohya_layers(pipeline).items():
        if name in groups:
            for layer in layers:
                if layer not in groups[name]:
                    raise ValueError(f"kohya's {name} includes {'.'.join(layer)}, which has no adapter.")
            adapters = [groups[name][layer] for layer in layers]
            converted |= {f"{name}.{part}": value for part, value in _joined(name, adapters).items()}
    return converted


def _of_another_kind(key: str, parts: tuple[str, ...]) -> ValueError:
    return ValueError(
        f"The LoRA can't be converted: {key} is none of {', '.join(parts[:-1])} and {parts[-1]}. Only LoRA and DoRA "
        "have a counterpart; LoHa, LoKr, Tucker decompositions and others do not."
    )


def _check_values(state: State) -> None:
    for key, value in state.items():
        if not (value.is_floating_point() or key.endswith(".alpha")):
            raise ValueError(f"The LoRA is damaged: {key} must hold floats, but is of {value.dtype}.")
        if not value.float().isfinite().all():
            raise ValueError(f"The LoRA is damaged: {key} has NaN or infinite values.")


def _checked(name: str, found: State, weights: list[torch.Tensor]) -> Adapter:
    """A kohya adapter in the shapes of its layers, of which kohya's network may have one for several here."""
    down, up = found["lora_down.weight"], found["lora_up.weight"]
    outputs = sum(len(weight) for weight in weights)
    down, up = _matrices(name, down, up, (outputs, *weights[0].shape[1:]))
    alpha, scale = found.get("alpha"), found.get("dora_scale")
    if alpha is not None and alpha.numel() != 1:
        raise ValueError(f"The LoRA is damaged: {name}.alpha must be one number, but is {tuple(alpha.shape)}.")
    if scale is not None:
        if _without_last_ones(scale.shape) != _without_last_ones((outputs,)):
            raise ValueError(
                f"The LoRA can't be converted: {name}.dora_scale is {tuple(scale.shape)}, but peft holds one number "
                f"per output of a layer, {(outputs, *[1] * (down.ndim - 1))}."
            )
        scale = scale.reshape(outputs)
    return down, up, float(len(down) if alpha is None else alpha), scale


def _diffusers_adapter(layer: Layer, found: State, weight: torch.Tensor, metadata: dict) -> Adapter:
    name = ".".join(layer)
    down, up = _matrices(name, found["lora_A"], found["lora_B"], tuple(weight.shape))
    magnitude = found.get("lora_magnitude_vector")
    if magnitude is not None:
        wanted = (len(weight),) if weight.ndim == 2 else (1, len(weight), *[1] * (weight.ndim - 2))
        if magnitude.shape not in (wanted, (len(weight),)):
            raise ValueError(
                f"The LoRA is damaged: {name}.lora_magnitude_vector is {tuple(magnitude.shape)}, but must be {wanted}."
            )
        magnitude = magnitude.flatten()
    return down, up, _alpha(layer, len(down), metadata), magnitude


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


def _matrices(
    name: str, down: torch.Tensor, up: torch.Tensor, weight: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both matrices of an adapter, for a layer whose weight has a given shape.

    A convolution of size 1 may be stored as a linear layer, or the other way round.
    """
    rank = max(1, len(down) if down.ndim else 0)
    wanted = (rank, *weight[1:]), (weight[0], rank, *[1] * (len(weight) - 2))
    if tuple(map(_without_last_ones, (down.shape, up.shape))) != tuple(map(_without_last_ones, wanted)):
        raise ValueError(
            f"The LoRA is for another base: {name} is {tuple(down.shape)} and {tuple(up.shape)}, but this one needs "
            f"{wanted[0]} and {wanted[1]}."
        )
    return down.reshape(wanted[0]), up.reshape(wanted[1])


def _without_last_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape of at least one dimension, without the dimensions of size 1 behind the first two."""
    sizes = [*shape, 1, 1][: max(2, len(shape))]
    while len(sizes) > 2 and sizes[-1] == 1:
        sizes.pop()
    return tuple(sizes)


def _separate(adapter: Adapter, weights: list[torch.Tensor]) -> list[Adapter]:
    """The adapters of the layers with these weights, which are one in kohya's network."""
    if len(weights) == 1:
        return [adapter]
    down, up, alpha, scale = adapter
    count, sizes = len(weights), [len(weight) for weight in weights]
    scales = [None] * count if scale is None else scale.split(sizes)
    ups = up.split(sizes)
    if len(down) % count == 0:
        rank = len(down) // count
        blocks = [part[:, i * rank : (i + 1) * rank] for i, part in enumerate(ups)]
        if torch.equal(torch.block_diag(*blocks), up):
            downs = down.chunk(count)
            return [(downs[i].contiguous(), blocks[i].contiguous(), alpha / count, scales[i]) for i in range(count)]
    return [(down.clone(), part.contiguous(), alpha, scale) for part, scale in zip(ups, scales, strict=True)]


def _joined(name: str, adapters: list[Adapter]) -> State:
    """kohya's tensors for the adapters of layers that are one in its network."""
    downs, ups, alphas, magnitudes = zip(*adapters, strict=True)
    if len({len(down) for down in downs}) > 1 or len(set(alphas)) > 1:
        raise ValueError(f"kohya's {name} is one layer: query, key and value need the same rank and alpha.")
    if len({magnitude is None for magnitude in magnitudes}) > 1:
        raise ValueError(f"kohya's {name} is one layer: either all of query, key and value need DoRA, or none.")
    down, up, alpha = downs[0], ups[0], alphas[0]
    if len(adapters) > 1:
        if all(torch.equal(other, down) for other in downs):
            up = torch.cat(ups)
        else:
            down, up, alpha = torch.cat(downs), torch.block_diag(*ups), alpha * len(adapters)
    joined = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(float(alpha))}
    if magnitudes[0] is not None:
        scale = torch.cat(magnitudes)
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
