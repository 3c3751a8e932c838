"""Checkpoints of divided weights: each process writes its parts, and any number of processes can read them.

The files are torch.distributed.checkpoint's, and one more with the options of the optimizers. A checkpoint that
one process has written, with whole tensors, can be read into divided weights as well.
"""

import json
from pathlib import Path

import torch
from accelerate.utils import OPTIMIZER_NAME
from safetensors import safe_open
from torch.distributed import checkpoint
from torch.distributed.checkpoint import CheckpointException, FileSystemReader
from torch.distributed.tensor import DTensor

from diffusers_ext.training.loop.ema import trained_state
from diffusers_ext.training.loop.sharding import divided_like


FOLDER = "shards"
OPTIONS = "optimizer_options.json"


class RunState:
    """All tensors of a run that its checkpoints hold.

    Args:
        networks, optimizers (`dict`): by the name of the network.
        states (`dict`): further states, by name: objects with a `state_dict` and a `load_state_dict`.
    """

    def __init__(self, networks: dict, optimizers: dict, states: dict):
        self.networks, self.optimizers, self.states = networks, optimizers, states

    def save(self, folder: Path) -> None:
        """Write to the folder `shards` in `folder`. All processes call it.

        Raises:
            OSError: if it can't be written, on any process.
        """
        tensors = {**self._weights_and_states(), **self._moments()}
        try:
            checkpoint.save(tensors, checkpoint_id=folder / FOLDER)
        except CheckpointException as error:
            raise OSError(_reasons(error)) from error
        if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
            options = {name: _options(optimizer) for name, optimizer in self.optimizers.items()}
            (folder / FOLDER / OPTIONS).write_text(json.dumps(options))

    def load(self, folder: Path) -> None:
        """Read what `save` wrote, on any number of processes. All processes call it.

        Raises:
            RuntimeError, OSError, ValueError: if it is damaged, or does not fit.
        """
        own = {**self._weights_and_states(), **self._like_moments()}
        saved = FileSystemReader(folder / FOLDER).read_metadata().state_dict_metadata
        tensors = {key: _empty(stored, own.get(key)) for key, stored in saved.items()}
        try:
            checkpoint.load(tensors, checkpoint_id=folder / FOLDER)
        except CheckpointException as error:
            raise RuntimeError(_reasons(error)) from error
        options = json.loads((folder / FOLDER / OPTIONS).read_text())
        for name, network in self.networks.items():
            _copy(_below(tensors, "network", name), trained_state(network))
        for name, optimizer in self.optimizers.items():
            moments = {}
            for key, value in _below(tensors, "optimizer", name).items():
                kind, _, weight = key.partition("/")
                moments.setdefault(weight, {})[kind] = value
            names = _trained_names(self.networks[name])
            _set(optimizer, {names.index(weight): state for weight, state in moments.items()}, options[name])
        for name, kept in self.states.items():
            kept.load_state_dict(_below(tensors, "state", name))

    def load_whole(self, folder: Path) -> None:
        """Read a checkpoint of whole tensors into divided ones.

        Raises:
            OSError, RuntimeError, ValueError, SafetensorError: if it is damaged, or does not fit.
        """
        for index, (name, network) in enumerate(self.networks.items()):
            with safe_open(folder / f"{name}.safetensors", framework="pt") as file:
                _copy(_Lazy(file), trained_state(network))
            file_name = f"{OPTIMIZER_NAME}.bin" if index == 0 else f"{OPTIMIZER_NAME}_{index}.bin"
            saved = torch.load(folder / file_name, mmap=True, weights_only=True, map_location="cpu")
            weights = self.optimizers[name].param_groups[0]["params"]
            state = {
                place: {
                    kind: value if kind == "step" else divided_like(value, weights[place])
                    for kind, value in moments.items()
                }
                for place, moments in saved["state"].items()
            }
            _set(self.optimizers[name], state, saved["param_groups"][0])
        for name, kept in self.states.items():
            with safe_open(folder / f"{name}.safetensors", framework="pt") as file:
                kept.load_state_dict({key: file.get_tensor(key) for key in file.keys()})

    def _weights_and_states(self) -> dict[str, torch.Tensor]:
        tensors = {}
        for name, network in self.networks.items():
            tensors |= {f"network/{name}/{key}": tensor for key, tensor in trained_state(network).items()}
        for name, kept in self.states.items():
            tensors |= {f"state/{name}/{key}": tensor for key, tensor in kept.state_dict().items()}
        return tensors

    def _moments(self) -> dict[str, torch.Tensor]:
        """What the optimizers keep for each weight."""
        return {
            f"optimizer/{name}/{kind}/{weight}": value
            for name, optimizer in self.optimizers.items()
            for weight, state in _by_weight(optimizer, self.networks[name]).items()
            for kind, value in state.items()
        }

    def _like_moments(self) -> dict[str, torch.Tensor]:
        """Tensors that are divided like the moments, which new optimizers don't have yet."""
        return {
            f"optimizer/{name}/{kind}/{weight}": tensor
            for name, network in self.networks.items()
            for weight, tensor in trained_state(network).items()
            for kind in ("exp_avg", "exp_avg_sq")
        }


class _Lazy(dict):
    """The tensors of a safetensors file, each read when it is asked for."""

    def __init__(self, file):
        super().__init__(dict.fromkeys(file.keys()))
        self._file = file

    def __getitem__(self, key: str) -> torch.Tensor:
        return self._file.get_tensor(key)


def _trained_names(network: torch.nn.Module) -> list[str]:
    return [name for name, weight in network.named_parameters() if weight.requires_grad]


def _by_weight(optimizer: torch.optim.Optimizer, network: torch.nn.Module) -> dict[str, dict[str, torch.Tensor]]:
    names = _trained_names(network)
    return {names[index]: state for index, state in optimizer.state_dict()["state"].items()}


def _options(optimizer: torch.optim.Optimizer) -> dict:
    (group,) = optimizer.param_groups
    return {name: value for name, value in group.items() if name != "params"}


def _set(optimizer: torch.optim.Optimizer, state: dict[int, dict], options: dict) -> None:
    (group,) = optimizer.state_dict()["param_groups"]
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    optimizer.load_state_dict({"state": state, "param_groups": [{**options, "params": group["params"]}]})


def _below(tensors: dict[str, torch.Tensor], kind: str, name: str) -> dict[str, torch.Tensor]:
    prefix = f"{kind}/{name}/"
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


@torch.no_grad()
def _copy(source: dict[str, torch.Tensor], target: dict[str, torch.Tensor]) -> None:
    if source.keys() != target.keys():
        raise ValueError(f"{sorted(source.keys() ^ target.keys())} are missing or left over")
    for name, tensor in target.items():
        tensor.copy_(divided_like(source[name], tensor))


def _empty(stored, like: torch.Tensor | None) -> torch.Tensor:
    """Memory for a saved tensor, divided like `like` if that is divided."""
    if isinstance(like, DTensor) and like.shape == stored.size:
        return torch.empty_like(like.detach(), dtype=stored.properties.dtype)
    return torch.empty(stored.size, dtype=stored.properties.dtype)


def _reasons(error: CheckpointException) -> str:
    """The failures of the processes, in one line."""
    failures = [f"{type(failure[0]).__name__}: {failure[0]}" for failure in error.failures.values()]
    return "; ".join(dict.fromkeys(failures))
