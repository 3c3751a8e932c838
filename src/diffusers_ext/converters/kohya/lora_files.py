"""LoRA files, read and written."""

import json
from math import isfinite
from pathlib import Path

from diffusers import DiffusionPipeline
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY, LORA_WEIGHT_NAME_SAFE
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from diffusers_ext.atomic import write_bytes_atomically
from diffusers_ext.converters.kohya.lora_tensors import State, from_kohya, is_kohya, to_kohya
from diffusers_ext.converters.state_dicts import listed
from diffusers_ext.hub.alignment import aligned


def convert_lora_file(source: Path, destination: Path, pipeline: DiffusionPipeline) -> Path:
    """Writes a LoRA file in the other layout.

    Args:
        source (`Path`): a safetensors file of kohya's or diffusers' layout.
        destination (`Path`): the file to write, or a folder for it.
        pipeline (`DiffusionPipeline`): the base that the LoRA is for.

    Returns:
        `Path`: the file.

    Raises:
        OSError: if there is no such file, it is damaged, or the file to write exists already.
        ValueError: if the LoRA does not fit the base, is not complete, or has no counterpart in the other layout.
    """
    state, metadata = read_lora_file(source)
    if is_kohya(state):
        state, metadata = from_kohya(state, pipeline)
        notes, name = {"format": "pt", LORA_ADAPTER_METADATA_KEY: json.dumps(metadata)}, LORA_WEIGHT_NAME_SAFE
    else:
        state, notes, name = to_kohya(state, metadata, pipeline), {"format": "pt"}, "lora.safetensors"
    file = destination if destination.suffix == ".safetensors" else destination / name
    if file.exists():
        raise FileExistsError(f"{file} exists already: give another file to write.")
    write_bytes_atomically(file, aligned(save(state, notes)))
    return file


def read_lora_file(file: Path) -> tuple[State, dict]:
    """The tensors of a LoRA file of either layout, and the description of the adapters; empty if there is none.

    Raises:
        OSError: if there is no such file, or it is damaged.
    """
    try:
        with safe_open(file, "pt") as content:
            state = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118 (it is no dict)
            metadata = json.loads((content.metadata() or {}).get(LORA_ADAPTER_METADATA_KEY, "{}"))
        unprintable = [repr(key) for key in state if not key.isprintable()]
        if unprintable:
            raise ValueError(f"these names of tensors can't be printed: {listed(unprintable)}")
        _check_metadata(metadata)
    except (SafetensorError, OSError, ValueError) as error:
        raise OSError(f"{file} can't be read as a LoRA file: {' '.join(str(error).split())}") from error
    return state, metadata


def _check_metadata(metadata) -> None:
    """Refuses a description whose alphas are no numbers."""
    if not isinstance(metadata, dict):
        raise ValueError("the description of its adapters is no JSON object")
    alphas = {name: alpha for name, alpha in metadata.items() if name.endswith(".lora_alpha")}
    for name, pattern in metadata.items():
        if name.endswith(".alpha_pattern"):
            if not isinstance(pattern, dict):
                raise ValueError(f"{name} in its metadata must hold alphas by layer, but is {pattern!r}")
            alphas |= {f"{name} of {layer}": alpha for layer, alpha in pattern.items()}
    for name, alpha in alphas.items():
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not isfinite(alpha):
            raise ValueError(f"{name} in its metadata must be a number, but is {alpha!r}")
