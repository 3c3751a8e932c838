"""Compiling the networks of a training, around two faults of PyTorch's compiler."""

import torch


# On CPUs, PyTorch 2.13 moves the sum of the gradient of F.interpolate behind its readers: the gradients of all layers
# before it are zero, without an error. This cures small networks and not every U-Net, so the trainer refuses CPUs.
COMPILER_OPTIONS = {"reorder_for_peak_memory": False}


def compile_network(network: torch.nn.Module) -> None:
    """Compile a network in place, when it is first called.

    Args:
        network (`torch.nn.Module`): its gradients may be computed more than once, as the adaptive weight of an
            adversarial loss does, which the compiler refuses for networks that reuse the memory of activations.
    """
    torch._functorch.config.donated_buffer = False
    network.compile(options=COMPILER_OPTIONS)
