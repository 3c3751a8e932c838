"""From the tensors of an original checkpoint to a network of diffusers, key by key."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from diffusers import ModelMixin

from diffusers_ext.converters.state_dicts import StateDict, listed


# The name of an original module, and of its counterpart, or of several that the original computes as one.
Modules = dict[str, str | tuple[str, ...]]
COUNTER = ".num_batches_tracked"  # an integer that counts training steps, missing in files from before PyTorch 0.4.1
# The tensors of a module: parameters and the statistics of a batch norm; "" if the name is a tensor's own name.
KINDS = (".weight", ".bias", ".running_mean", ".running_var", COUNTER, "")


def load_converted(
    model_class: type[ModelMixin],
    config: dict,
    modules: Modules,
    state_dict: StateDict,
    prepare: Callable[[str, torch.Tensor], torch.Tensor] = lambda key, tensor: tensor,
    other_shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
    copies: Mapping[str, str] = MappingProxyType({}),
) -> ModelMixin:
    """A network with converted weights, in float32 and in eval mode.

    Args:
        model_class (`type`): the class of the network.
        config (`dict`): the arguments of its constructor.
        modules (`dict`): the counterpart of each module of the original. Those that a network of this `config` does
            not have are ignored.
        state_dict (`Mapping`): the original's tensors. Convolutions of size 1 may become linear layers.
        prepare (`Callable`): `prepare(key, tensor)` changes a tensor after its shape was checked.
        other_shapes (`Mapping`): the original shapes of tensors to which `prepare` gives the network's shapes.
        copies (`Mapping`): from a parameter's name to the name of another with the same values, where the network
            has several copies of one tensor of the original.

    Raises:
        ValueError: if tensors are missing, unknown, have another shape, are not floats, or are not finite in float32;
            lists them by their original names.
    """
    with torch.device("meta"):
        model = model_class(**config)
    expected = model.state_dict()
    targets = _targets(modules, expected)
    shapes = {source: _joint_shape(names, expected) for source, names in targets.items()}
    shapes |= {source: shape for source, shape in other_shapes.items() if source in targets}
    state_dict = {**{source: torch.tensor(0) for source in targets if source.endswith(COUNTER)}, **state_dict}
    _check(state_dict, shapes)

    converted = {}
    for source, names in targets.items():
        tensor = state_dict[source].long() if source.endswith(COUNTER) else state_dict[source].float()
        tensor = prepare(source, tensor.reshape(shapes[source]))
        # cloned, because parts of one tensor can't be saved, and training must not change the caller's tensors
        parts = [tensor] if len(names) == 1 else tensor.chunk(len(names))
        converted |= {name: part.clone() for name, part in zip(names, parts, strict=True)}
    converted |= {name: converted[other].clone() for name, other in copies.items()}
    model.load_state_dict(converted, assign=True)
    return model.eval()


def _targets(modules: Modules, expected: StateDict) -> dict[str, list[str]]:
    """The parameters and buffers of the network that each original tensor holds."""
    targets = {}
    for source, target in modules.items():
        for kind in KINDS:
            names = [name + kind for name in ([target] if isinstance(target, str) else target)]
            if names[0] in expected:
                targets[source + kind] = names
    return targets


def _joint_shape(names: list[str], expected: StateDict) -> tuple[int, ...]:
    if len(names) == 1:
        return tuple(expected[names[0]].shape)
    return (sum(expected[name].shape[0] for name in names), *expected[names[0]].shape[1:])


def _check(state_dict: StateDict, shapes: Mapping[str, tuple[int, ...]]) -> None:
    missing = [key for key in shapes if key not in state_dict]
    unknown = [key for key in state_dict if key not in shapes]
    misfitting = []
    for key, wanted in shapes.items():
        if key in state_dict:
            shape = tuple(state_dict[key].shape)
            if shape != wanted + (1,) * (len(shape) - len(wanted)):
                misfitting.append(f"{key} {shape} instead of {wanted}")
    known = {key: state_dict[key] for key in shapes if key in state_dict}
    floats = {key: tensor for key, tensor in known.items() if tensor.is_floating_point()}
    others = [f"{key} ({t.dtype})" for key, t in known.items() if key not in floats and not key.endswith(COUNTER)]
    # a tensor on the meta device has a shape, but no values to check
    broken = [key for key, tensor in floats.items() if not (tensor.is_meta or tensor.float().isfinite().all())]
    problems = {
        "missing": missing,
        "unknown": unknown,
        "of another shape": misfitting,
        "not floats": others,
        "with NaN or infinite values": broken,
    }
    found = [f"{len(keys)} {problem}: {listed(keys)}" for problem, keys in problems.items() if keys]
    if found:
        raise ValueError(f"The checkpoint does not fit the network ({'; '.join(found)}).")
