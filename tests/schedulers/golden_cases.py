"""Reference vectors: `golden/<family>/<case>/`, with the configuration in the terms of the reference."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file


ROOT = Path(__file__).parent / "golden"


def case_names(family: str, prefix: str | tuple[str, ...] = "") -> list[str]:
    return sorted(path.name for path in (ROOT / family).iterdir() if path.name.startswith(prefix))


def load_case(family: str, name: str) -> tuple[dict, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The configuration, the inputs and the outputs."""
    folder = ROOT / family / name
    config = json.loads((folder / "case.json").read_text())["config"]
    tensors = load_file(folder / "case.safetensors")
    parts = ({}, {})
    for key, tensor in tensors.items():
        kind, name = key.split(".", 1)
        parts[kind == "outputs"][name] = tensor
    return config, *parts
