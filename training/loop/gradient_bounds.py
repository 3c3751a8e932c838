"""Limits for the single values of a gradient, from what the optimizer has seen of them."""

import torch


FLOOR = 0.1  # what is always allowed beyond the multiple


@torch.no_grad()
def clip_gradient_values(optimizer: torch.optim.Optimizer, largest: float) -> None:
    """Limit each value of the gradients to plus or minus `largest`, as https://github.com/magenta/magenta does."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad.clamp_(-largest, largest)


@torch.no_grad()
def bound_gradients(optimizer: torch.optim.Adam, multiple: float) -> None:
    """Limit each value of the gradients to `multiple` of its root mean square so far, plus 0.1.

    The root mean square is the bias-corrected one of Adam's state before this step; the first step is not limited.
    As in https://github.com/rosinality/igebm-pytorch, where `multiple` is 3: a chain that breaks out makes single
    gradients huge, which would undo what the network has learned.

    Args:
        optimizer (`torch.optim.Adam`): an Adam or AdamW with gradients.
        multiple (`float`): how many root mean squares.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter)
            if not state or parameter.grad is None:
                continue
            mean_square = state["exp_avg_sq"] / (1 - group["betas"][1] ** state["step"])
            bound = multiple * mean_square.sqrt() + FLOOR
            parameter.grad.clamp_(-bound, bound)
