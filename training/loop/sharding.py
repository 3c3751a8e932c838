"""Networks larger than one device: FSDP2 through Accelerate, which divides every weight among the processes.

A divided weight is a DTensor, of which each process holds a part. No other file needs to know that: those that handle
weights ask the functions below for the parts, or for whole tensors. Where nothing is divided, these change nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedType,
    FullyShardedDataParallelPlugin,
    convert_outputs_to_fp32,
    get_mixed_precision_context_manager,
)
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from torch.distributed.tensor import DTensor, Replicate


# The blocks of diffusers' networks that don't name their blocks, such as UNet2DModel.
USUAL_BLOCKS = {"ResnetBlock2D", "BasicTransformerBlock", "Attention"}


def is_sharding(accelerator: Accelerator) -> bool:
    """Whether Accelerate is configured to divide the weights."""
    return accelerator.distributed_type == DistributedType.FSDP


def check_plugin(accelerator: Accelerator) -> None:
    """Check the FSDP settings of `accelerate config`, and leave what the trainer does itself out of them.

    Raises:
        ValueError: if the trainer does not support one of them.
    """
    if not is_sharding(accelerator):
        return
    plugin = accelerator.state.fsdp_plugin
    if plugin.fsdp_version != 2:
        raise ValueError("Only version 2 of FSDP is supported: set `fsdp_version: 2` with `accelerate config`.")
    if plugin.activation_checkpointing:
        raise ValueError(
            "Instead of `fsdp_activation_checkpointing` in `accelerate config`, use --gradient_checkpointing."
        )
    if accelerator.mixed_precision not in ("no", "bf16"):
        raise ValueError(f"FSDP and --mixed_precision {accelerator.mixed_precision} don't go together: use bf16.")
    # All processes build the same network. Accelerate's way to build it once can't handle buffers.
    plugin.cpu_ram_efficient_loading = False
    # Networks compute in the precision of autocast, as they do without FSDP. FSDP would round their inputs too, the
    # timesteps among them.
    plugin.mixed_precision_policy = MixedPrecisionPolicy()


def check_network(name: str, network: nn.Module) -> None:
    """Check that FSDP2 can divide all weights of a network.

    Raises:
        ValueError: if it can't.
    """
    for parameter_name, parameter in network.named_parameters():
        if parameter.ndim == 0:
            raise ValueError(
                f"{parameter_name} of {name} is a single number, which FSDP2 can't divide among processes: launch "
                "this training without FSDP."
            )


def shard(
    network: nn.Module, optimizer: torch.optim.Optimizer, accelerator: Accelerator
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Divide the weights of a network and their states in a new optimizer among the processes, in place."""
    with _wrapping_blocks(accelerator.state.fsdp_plugin, network):
        network, optimizer = accelerator.prepare(network, optimizer)
    # A later optimizer step would not change weights that stay whole after a forward pass.
    network.set_reshard_after_forward(True)
    for module in network.modules():
        if isinstance(module, FSDPModule):
            _keep_name(type(module))
    if accelerator.native_amp:
        autocast = get_mixed_precision_context_manager(accelerator.native_amp, accelerator.autocast_handler)
        forward = convert_outputs_to_fp32(autocast(network.forward.__func__))
        network.forward = MethodType(forward, network)
    return network, optimizer


@contextmanager
def _wrapping_blocks(plugin: FullyShardedDataParallelPlugin, network: nn.Module) -> Iterator[None]:
    """In this context, Accelerate's TRANSFORMER_BASED_WRAP means the blocks of `network`.

    By itself it would look for the blocks of the first network in all further ones.
    """
    own = plugin.auto_wrap_policy, plugin.transformer_cls_names_to_wrap
    if plugin.auto_wrap_policy is transformer_auto_wrap_policy:
        plugin.transformer_cls_names_to_wrap = sorted(block_names(network, plugin.transformer_cls_names_to_wrap))
    try:
        yield
    finally:
        plugin.auto_wrap_policy, plugin.transformer_cls_names_to_wrap = own


def block_names(network: nn.Module, wanted: list[str] | None = None) -> set[str]:
    """The classes of the blocks in a network: the wanted ones, or those that its parts name."""
    present = {type(module).__name__ for module in network.modules() if module is not network}
    named = set(wanted or ())
    for module in network.modules() if not wanted else ():
        for attribute in ("_no_split_modules", "_repeated_blocks"):
            named |= set(getattr(module, attribute, None) or ())
    found = named & present
    if found:
        return found
    usual = USUAL_BLOCKS & present
    return usual - {"Attention"} if "BasicTransformerBlock" in usual else usual


def _keep_name(sharded_class: type) -> None:
    """Give a class that FSDP2 has derived the name of its origin, under which a pipeline is saved."""
    origin = sharded_class.__mro__[2]
    for attribute in ("__name__", "__qualname__", "__module__"):
        setattr(sharded_class, attribute, getattr(origin, attribute))


def parts(network: nn.Module) -> list[nn.Module]:
    """The modules of a network whose weights are gathered together; none if it is not sharded."""
    return [module for module in network.modules() if isinstance(module, FSDPModule)]


def trained_weights(network: nn.Module) -> list[nn.Parameter]:
    """The weights that gradients are computed for: the whole ones, which exist in a pass, of a sharded network."""
    found = []
    for part in parts(network):
        part.unshard()
        # Those of other parts are DTensors now.
        found += [w for w in part.parameters() if w.requires_grad and not isinstance(w, DTensor)]
        part.reshard()
    return found or [weight for weight in network.parameters() if weight.requires_grad]


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that this process holds, which shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The whole tensor. If it is divided, all processes must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def divided_like(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A whole tensor, which every process has, divided like another one of its shape."""
    if isinstance(tensor, DTensor) or not isinstance(like, DTensor):
        return tensor
    mesh = like.device_mesh
    replicated = DTensor.from_local(tensor.to(local(like).device), mesh, [Replicate()] * mesh.ndim, run_check=False)
    return replicated.redistribute(mesh, like.placements)


def gathered(tensors: dict[str, torch.Tensor], keep: bool) -> dict[str, torch.Tensor]:
    """Whole tensors on the CPU, one after another; all processes must call it.

    Args:
        tensors (`dict`): by name, the same names on all processes.
        keep (`bool`): whether this process needs them; otherwise it gets none.
    """
    kept = {}
    for name, tensor in tensors.items():
        values = whole(tensor.detach())
        if keep:
            kept[name] = values.cpu()
    return kept


def clip_gradients(weights: list[nn.Parameter], max_norm: float | None) -> torch.Tensor:
    """Scale gradients down to a common norm of at most `max_norm`, if it is set, and return their norm."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if max_norm:
        torch.nn.utils.clip_grads_with_norm_(weights, max_norm, norm)
    return whole(norm)


@contextmanager
def whole_networks(networks: dict[str, nn.Module]) -> Iterator[None]:
    """In this context, each process holds the whole weights of all networks, and may call their parts as it likes.

    All processes must enter and leave it. The optimizers and averages stay divided.
    """
    _unshard(networks)
    for network in networks.values():
        if isinstance(network, FSDPModule):
            network.set_reshard_after_forward(False)
            network.set_reshard_after_backward(False)
    try:
        yield
    finally:
        for network in networks.values():
            if isinstance(network, FSDPModule):
                network.set_reshard_after_forward(True)
                network.set_reshard_after_backward(True)
            for part in parts(network):
                part.reshard()


def _unshard(networks: dict[str, nn.Module]) -> None:
    for network in networks.values():
        for part in parts(network):
            part.reshard()
            part.unshard()


@contextmanager
def whole_state_dicts(networks: dict[str, nn.Module], keep: bool) -> Iterator[None]:
    """Inside of [`whole_networks`]: in this context, `state_dict()` of a network has whole tensors.

    All processes must enter and leave it; those with `keep` may save networks in it.
    """
    handles = []
    for network in networks.values():
        if parts(network):
            state = gathered(network.state_dict(), keep)
            # Some parts are saved on their own, such as the text encoders of a base.
            for name, module in network.named_modules():
                within = f"{name}." if name else ""
                own = {key.removeprefix(within): values for key, values in state.items() if key.startswith(within)}
                handles.append(module.register_state_dict_post_hook(_replacing(own)))
    _unshard(networks)  # state_dict() has divided the weights again
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        _unshard(networks)


def _replacing(whole_state: dict[str, torch.Tensor]):
    def hook(module, state_dict, prefix, metadata):
        for name, tensor in whole_state.items():
            state_dict[prefix + name] = tensor

    return hook
