"""LoRA files of kohya's sd-scripts (as WebUIs read them) to and from those of diffusers, with the same numbers.

    python -m diffusers_ext.converters.kohya lora.safetensors out/ --base stabilityai/stable-diffusion-xl-base-1.0

The direction follows from the file. kohya's names are those of the original networks with `_` for `.`, so that only
the networks themselves tell which layer is meant: SD 1.x and 2.x go by diffusers' names, SDXL and SD3 by their
authors'. SD3 has one layer for query, key and value there. Three adapters of the same input become one of the same
rank, others one of three times the rank whose three parts don't touch; reading takes either apart again.
"""

import argparse
import json
import math
import re
from collections import Counter, defaultdict
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY, LORA_WEIGHT_NAME_SAFE
from peft.utils.other import get_pattern_key
from safetensors import safe_open
from safetensors.torch import load_file, save

from diffusers_ext.hub.alignment import aligned
from diffusers_ext.hub.atomic import write_bytes_atomically


Layer = tuple[str, str]  # the name of a network in its pipeline, and that of a layer in the network
State = dict[str, torch.Tensor]

_RESNET = {"conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1"}
_RESNET |= {"conv_shortcut": "skip_connection"}
_SDXL = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_SD3 = {
    "context_embedder": "context_embedder",
    "pos_embed.proj": "x_embedder.proj",
    "proj_out": "final_layer.linear",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
}
_SD3_BLOCK = {
    **{f"attn.to_{part}": "x_block.attn.qkv" for part in "qkv"},
    **{f"attn.add_{part}_proj": "context_block.attn.qkv" for part in "qkv"},
    **{f"attn2.to_{part}": "x_block.attn2.qkv" for part in "qkv"},
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "attn2.to_out.0": "x_block.attn2.proj",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
    "norm1.linear": "x_block.adaLN_modulation.1",
}


def is_kohya(state: State) -> bool:
    """Whether tensors have kohya's names."""
    return any(key.startswith(("lora_unet_", "lora_te")) for key in state)


def from_kohya(state: State, pipeline: DiffusionPipeline) -> tuple[State, dict]:
    """kohya's tensors by diffusers' names, `unet.<layer>.lora_A.weight` and so on.

    Args:
        state (`dict`): the tensors of a kohya file.
        pipeline (`DiffusionPipeline`): the base that the LoRA is for.

    Returns:
        `tuple`: the tensors, and the metadata that diffusers builds the adapters from, `{"unet.r": 4, ...}`.

    Raises:
        ValueError: if a tensor belongs to no layer of the base, has another shape, or one is missing.
    """
    layers, modules = kohya_layers(pipeline), _modules(pipeline)
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
    """The tensors of a diffusers LoRA file by kohya's names; see [`from_kohya`].

    Raises:
        ValueError: if a tensor belongs to no layer of the base or to one that kohya's files don't have, has another
            shape, or one is missing.
    """
    names = {layer: name for name, layers in kohya_layers(pipeline).items() for layer in layers}
    modules = _modules(pipeline)
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
                    raise ValueError(f"kohya's {name} is one with {'.'.join(layer)}, which has no adapter.")
            adapters = [groups[name][layer] for layer in layers]
            converted |= {f"{name}.{part}": value for part, value in _joined(name, adapters).items()}
    return converted


def kohya_layers(pipeline: DiffusionPipeline) -> dict[str, list[Layer]]:
    """The layers of a base by kohya's names; several, where kohya's networks have one layer for them."""
    is_sdxl = hasattr(pipeline, "unet") and pipeline.unet.config.addition_embed_type == "text_time"
    is_numbered = is_sdxl or hasattr(pipeline, "transformer")
    layers = defaultdict(list)
    for network, name in _modules(pipeline):
        if network.startswith("text_encoder"):
            number = network.removeprefix("text_encoder_") if "_2" in network or "_3" in network else "1"
            prefix, original = f"lora_te{number if is_numbered else ''}", _text_name(network, name)
        else:
            prefix, original = "lora_unet", name
            if is_sdxl:
                original = _sdxl_name(name, pipeline.unet.config)
            elif network == "transformer":
                original = _sd3_name(name)
        if original is not None:
            layers[f"{prefix}_{original.replace('.', '_')}"].append((network, name))
    return layers


def _modules(pipeline: DiffusionPipeline) -> dict[Layer, torch.nn.Module]:
    """The linear and convolutional layers of the networks that can have adapters."""
    networks = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
    found = {}
    for network in networks:
        module = getattr(pipeline, network, None)
        for name, layer in module.named_modules() if module is not None else ():
            if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d)) and ".lora_" not in name:
                # What has an adapter already stands one level deeper.
                found[network, name.removesuffix(".base_layer")] = layer
    return found


def _layer(network: str, name: str, modules: dict) -> Layer:
    # Some versions of transformers have CLIP's layers in a `text_model`, some don't; files always say it.
    bare = (network, name.removeprefix("text_model."))
    return bare if bare in modules else (network, name)


def text_encoder_key(key: str) -> str:
    """What a layer of a CLIP text encoder, or a tensor of its adapter, is called in files, for every transformers."""
    key = key if key.startswith(("text_model.", "text_projection")) else f"text_model.{key}"
    return f"{key}.weight" if key.endswith(".lora_magnitude_vector") else key


def _text_name(network: str, name: str) -> str:
    return name if network == "text_encoder_3" else text_encoder_key(name)  # that is T5


def _with_text_names(state: State) -> State:
    names = {}
    for key, value in state.items():
        network, _, rest = key.partition(".")
        names[f"{network}.{_text_name(network, rest)}" if network.startswith("text_encoder") else key] = value
    return names


def _sdxl_name(name: str, config) -> str | None:
    if name in _SDXL:
        return _SDXL[name]
    per_level = config.layers_per_block + 1
    match = re.fullmatch(
        r"(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", name
    )
    if match:
        level, layer, rest = int(match[2]), int(match[4]), match[5]
        if match[3] == "downsamplers":
            return f"input_blocks.{(level + 1) * per_level}.0.op" if rest == "conv" else None
        if match[3] == "upsamplers":
            place = 2 if "Attn" in config.up_block_types[level] else 1
            return f"output_blocks.{level * per_level + per_level - 1}.{place}.{rest}"
        side, first = ("input_blocks", 1) if match[1] == "down_blocks" else ("output_blocks", 0)
        place = f"{side}.{level * per_level + layer + first}"
        return f"{place}.0.{_RESNET[rest]}" if match[3] == "resnets" else f"{place}.1.{rest}"
    match = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", name)
    if match is None:
        return None
    if match[1] == "resnets":
        return f"middle_block.{2 * int(match[2])}.{_RESNET[match[3]]}"
    return f"middle_block.1.{match[3]}"


def _sd3_name(name: str) -> str | None:
    match = re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)", name)
    if match is None:
        return _SD3.get(name)
    return f"joint_blocks.{match[1]}.{_SD3_BLOCK[match[2]]}" if match[2] in _SD3_BLOCK else None


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
    """The adapters of `count` layers that kohya has as one: (down, up, alpha, DoRA's scale) of each."""
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
    """The adapters of layers that kohya has as one, as its tensors."""
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


def lora_metadata(file: Path) -> dict:
    """What a LoRA file of diffusers says of its adapters; empty if it says nothing."""
    with safe_open(file, "pt") as content:
        return json.loads((content.metadata() or {}).get(LORA_ADAPTER_METADATA_KEY, "{}"))


def convert_lora_file(source: Path, destination: Path, pipeline: DiffusionPipeline) -> Path:
    """Write the other layout of a LoRA file.

    Args:
        source (`Path`): a safetensors file of kohya's or diffusers' layout.
        destination (`Path`): the file to write, or a folder for it.
        pipeline (`DiffusionPipeline`): the base that the LoRA is for.

    Returns:
        `Path`: the file.
    """
    state = load_file(source)
    if is_kohya(state):
        state, metadata = from_kohya(state, pipeline)
        notes, name = {"format": "pt", LORA_ADAPTER_METADATA_KEY: json.dumps(metadata)}, LORA_WEIGHT_NAME_SAFE
    else:
        state, notes, name = to_kohya(state, lora_metadata(source), pipeline), {"format": "pt"}, "lora.safetensors"
    file = destination if destination.suffix == ".safetensors" else destination / name
    write_bytes_atomically(file, aligned(save(state, notes)))
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description="LoRA files of kohya's layout to that of diffusers, and back.")
    parser.add_argument("source", type=Path, help="The file to convert.")
    parser.add_argument("destination", type=Path, help="The file or folder to write.")
    parser.add_argument("--base", required=True, help="The pipeline that the LoRA is for: a folder or a Hub name.")
    arguments = parser.parse_args()
    try:
        pipeline = DiffusionPipeline.from_pretrained(arguments.base)
        print(convert_lora_file(arguments.source, arguments.destination, pipeline))
    except (ValueError, OSError) as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
