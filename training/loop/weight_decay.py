"""Weight decay that spares gains, biases and other vectors and numbers."""

import torch

from diffusers_ext.training.loop.flat_adamw import FlatAdamW


@torch.no_grad()
def decay_matrices(optimizer: torch.optim.Optimizer, weight_decay: float) -> None:
    """Shrink all parameters of at least two dimensions, as AdamW does before an update.

    An optimizer whose own decay is 0, with this before each of its steps, is AdamW over two groups of parameters
    (Loshchilov and Hutter 2019, algorithm 2).

    Args:
        optimizer (`torch.optim.Optimizer`): an optimizer, whose rates are used.
        weight_decay (`float`): the decay.
    """
    for group in optimizer.param_groups:
        parameters = optimizer.parameters if isinstance(optimizer, FlatAdamW) else group["params"]
        matrices = [parameter for parameter in parameters if parameter.ndim > 1]
        torch._foreach_mul_(matrices, 1 - group["lr"] * weight_decay)
