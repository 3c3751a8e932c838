"""Golden cases: random weights under the original's names, inputs, and the outputs that the original computes."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.converters.computed_weights import computed_weights


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
    config = json.loads((folder / "case.json").read_text())["config"]
    parts["weights"] |= computed_weights(config.get("computed_weights", {}))
    return Case(name, config, **parts)


def every_case(*families: str) -> list:
    """Parameters `(family, name)` for all cases of these families."""
    folders = [folder for family in families for folder in sorted((GOLDEN / family).iterdir())]
    return [pytest.param(folder.parent.name, folder.name, id=folder.name) for folder in folders]


# Options of golden cases, on the command line.
IMPROVED = ["image_size=8", "num_heads=4", "diffusion_steps=4000", "noise_schedule=cosine", "rescale_timesteps=true"]
CLASS_COND = [
    "image_size=16",
    "num_head_channels=8",
    "use_new_attention_order=true",
    "diffusion_steps=1000",
    "noise_schedule=linear",
    "channel_mult=1,1",
    "attention_resolutions=2",
]


def save(case: Case, path: Path) -> str:
    """Writes the weights as the originals do."""
    torch.save(case.weights, path)
    return str(path)


def assert_near(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal up to 1e-5 of the largest expected value, whatever the shape."""
    expected = expected.view_as(actual)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def assert_refused(convert, state_dict: dict, options: dict, message: str) -> None:
    """In one line that matches `message`."""
    with pytest.raises(ValueError, match=message) as refusal:
        convert(state_dict, **options)
    assert "\n" not in str(refusal.value)
