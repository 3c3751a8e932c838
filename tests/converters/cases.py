"""Golden cases of the originals: random weights under the original's names, inputs, and what the original computes."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file


GOLDEN = Path(__file__).parent / "golden"
PALETTE = Path(__file__).parents[1] / "pipelines" / "golden" / "palette"


@dataclass
class Case:
    name: str
    config: dict
    weights: dict[str, torch.Tensor]
    inputs: dict[str, torch.Tensor]
    outputs: dict[str, torch.Tensor]

    @property
    def args(self) -> dict:
        """The arguments of the original's constructor."""
        return self.config["args"]


def load_case(family: str, name: str) -> Case:
    folder = (PALETTE if family == "palette" else GOLDEN / family) / name
    tensors = load_file(folder / "case.safetensors")
    parts = {
        part: {key.removeprefix(f"{part}."): tensor for key, tensor in tensors.items() if key.startswith(f"{part}.")}
        for part in ("weights", "inputs", "outputs")
    }
    return Case(name, json.loads((folder / "case.json").read_text())["config"], **parts)


def every_case(*families: str) -> list:
    """Parameters `(family, name)` for all the cases of these families."""
    folders = [folder for family in families for folder in sorted((GOLDEN / family).iterdir())]
    return [pytest.param(folder.parent.name, folder.name, id=folder.name) for folder in folders]
