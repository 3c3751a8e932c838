"""LoRA files, read and written."""

import json
from pathlib import Path

from diffusers import DiffusionPipeline
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY, LORA_WEIGHT_NAME_SAFE
from safetensors import safe_open
from safetensors.torch import load_file, save

from diffusers_ext.converters.kohya.lora_tensors import from_kohya, is_kohya, to_kohya
from diffusers_ext.hub.alignment import aligned
from diffusers_ext.hub.atomic import write_bytes_atomically


def convert_lora_file(source: Path, destination: Path, pipeline: DiffusionPipeline) -> Path:
    """Writes a LoRA file in the other layout.

    Args:
        source (`Path`): a safetensors file of kohya's or diffusers' layout.
        destination (`Path`): the file to write, or a folder for it.
        pipeline (`DiffusionPipeline`): the base that the LoRA is for.

    Returns:
        `Path`: the file.

    Raises:
        ValueError: if the LoRA does not fit the base, is not complete, or has no counterpart in the other layout.
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


def lora_metadata(file: Path) -> dict:
    """The description of the adapters in a LoRA file of diffusers; empty if there is none."""
    with safe_open(file, "pt") as content:
        return json.loads((content.metadata() or {}).get(LORA_ADAPTER_METADATA_KEY, "{}"))
