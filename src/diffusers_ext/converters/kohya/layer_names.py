"""The layers of a pipeline's networks, by kohya's names and by diffusers' names."""

import re
from collections import defaultdict

import torch
from diffusers import DiffusionPipeline


Layer = tuple[str, str]  # the name of a network in its pipeline, and the name of a layer in the network

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


def kohya_layers(pipeline: DiffusionPipeline) -> dict[str, list[Layer]]:
    """The layers of a base by kohya's names: several for a name where kohya's network has one layer for them."""
    is_sdxl = hasattr(pipeline, "unet") and pipeline.unet.config.addition_embed_type == "text_time"
    is_numbered = is_sdxl or hasattr(pipeline, "transformer")
    layers = defaultdict(list)
    for network, name in adaptable_layers(pipeline):
        if network.startswith("text_encoder"):
            number = _text_encoder_number(network) if is_numbered else ""
            prefix, original = f"lora_te{number}", text_layer_name(network, name)
        else:
            prefix, original = "lora_unet", name
            if is_sdxl:
                original = _sdxl_name(name, pipeline.unet.config)
            elif network == "transformer":
                original = _sd3_name(name)
        if original is not None:
            layers[_joined_by_underscores(prefix, original)].append((network, name))
    return layers


def layers_by_any_name(pipeline: DiffusionPipeline) -> dict[str, list[Layer]]:
    """The layers of a base by all names that files of kohya's layout give them.

    Beside kohya's own names these are the names of diffusers in kohya's spelling, as diffusers'
    `convert_state_dict_to_kohya` and OneTrainer write them for every base.
    """
    layers = dict(kohya_layers(pipeline))
    for network, name in adaptable_layers(pipeline):
        prefixes, names = ("lora_unet", f"lora_{network}"), (name,)
        if network.startswith("text_encoder"):
            prefixes = (f"lora_te{_text_encoder_number(network)}",)
            names = (name, text_layer_name(network, name))
        for prefix in prefixes:
            for spelling in names:
                layers.setdefault(_joined_by_underscores(prefix, spelling), [(network, name)])
    return layers


def _text_encoder_number(network: str) -> str:
    return network.removeprefix("text_encoder").removeprefix("_") or "1"


def _joined_by_underscores(prefix: str, name: str) -> str:
    return f"{prefix}_{name.replace('.', '_')}"


def adaptable_layers(pipeline: DiffusionPipeline) -> dict[Layer, torch.nn.Module]:
    """The linear and convolutional layers of the networks that can have adapters."""
    networks = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
    found = {}
    for network in networks:
        module = getattr(pipeline, network, None)
        for name, layer in module.named_modules() if module is not None else ():
            if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d)) and ".lora_" not in name:
                # a layer that already has an adapter is one level deeper
                found[network, name.removesuffix(".base_layer")] = layer
    return found


def text_encoder_key(key: str) -> str:
    """The name in files of a layer of a CLIP text encoder, or of a tensor of its adapter.

    It does not depend on the version of transformers.
    """
    key = key if key.startswith(("text_model.", "text_projection")) else f"text_model.{key}"
    return f"{key}.weight" if key.endswith(".lora_magnitude_vector") else key


def text_layer_name(network: str, name: str) -> str:
    """The name in files of a layer of any text encoder, or of a tensor of its adapter."""
    is_t5 = network == "text_encoder_3"
    return name if is_t5 else text_encoder_key(name)


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
