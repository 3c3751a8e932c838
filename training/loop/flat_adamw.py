"""AdamW over one tensor that holds all weights of a network."""

from collections.abc import Iterable

import torch


ALIGNMENT = 64  # bytes, a cache line: kernels are slower on weights that start elsewhere


class FlatAdamW(torch.optim.AdamW):
    """AdamW (Loshchilov and Hutter 2019) over all parameters at once.

    The parameters become views of one flat tensor, and their gradients views of another one, each in its own shape
    and memory format. What follows a backward pass is then an operation or two, however many parameters there are.
    The flat tensor is `flat`, with its gradient: clipping it to a norm clips the parameters to their common norm.

    Gradients are zeroed and never `None`. So a parameter that gets no gradient in a step still decays and keeps its
    momentum, where separate tensors would be passed over.

    Args:
        parameters: `torch.nn.Parameter`s of one dtype, on the device that they stay on.
        options: those of `torch.optim.AdamW`.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], **options):
        self.parameters = list(parameters)
        self._layout, size = [], 0
        for parameter in self.parameters:
            # empty_like keeps channels_last, and closes gaps.
            self._layout.append((parameter.shape, torch.empty_like(parameter).stride(), size))
            step = ALIGNMENT // parameter.element_size()
            size += -(-parameter.numel() // step) * step
        self.flat = torch.nn.Parameter(self.parameters[0].new_zeros(size))
        self.flat.grad = torch.zeros_like(self.flat)
        self._weights, self._gradients = self._views(self.flat.detach()), self._views(self.flat.grad)
        for parameter, weights, gradient in zip(self.parameters, self._weights, self._gradients, strict=True):
            parameter.data = weights.copy_(parameter.detach())
            parameter.grad = gradient
        super().__init__([self.flat], **options)
        # GradScaler shall skip steps that overflow by itself: only then does Accelerate notice.
        self._step_supports_amp_scaling = False
        self.register_step_pre_hook(self._check_views)

    def _views(self, flat: torch.Tensor) -> list[torch.Tensor]:
        return [flat.as_strided(shape, stride, offset) for shape, stride, offset in self._layout]

    def _check_views(self, *_) -> None:
        if any(p.data_ptr() != view.data_ptr() for p, view in zip(self.parameters, self._weights, strict=True)):
            raise RuntimeError("A weight was moved out of the flat tensor: place the network before its optimizer.")
        if any(p.grad is not gradient for p, gradient in zip(self.parameters, self._gradients, strict=True)):
            raise RuntimeError("A gradient was replaced: zero gradients with the optimizer's zero_grad() only.")

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Set all gradients to zero, in place whatever `set_to_none` is."""
        self.flat.grad.zero_()

    def state_dict(self) -> dict:
        """The state as `torch.optim.AdamW` over separate, contiguous parameters has it."""
        packed = super().state_dict()
        separate = [{} for _ in self.parameters] if packed["state"] else []
        for name, value in packed["state"].get(0, {}).items():
            views = self._views(value) if value.ndim else [value] * len(separate)
            for state, view in zip(separate, views, strict=True):
                state[name] = view.clone(memory_format=torch.contiguous_format)
        (group,) = packed["param_groups"]
        group = {**group, "params": list(range(len(self.parameters)))}
        return {"state": dict(enumerate(separate)), "param_groups": [group]}

    def load_state_dict(self, state_dict: dict) -> None:
        """Continue from a state, of this class or of `torch.optim.AdamW` over as many parameters in one group.

        Raises:
            ValueError: if it is the state of another number of parameters.
        """
        (group,) = state_dict["param_groups"]
        if len(group["params"]) != len(self.parameters):
            raise ValueError(
                f"This state is of {len(group['params'])} parameters, and here are {len(self.parameters)}."
            )
        packed = {}
        for index, state in state_dict["state"].items():
            for name, value in state.items():
                flat = packed.setdefault(name, torch.zeros_like(self.flat) if value.ndim else value)
                if value.ndim:
                    self._views(flat)[index].copy_(value)
        super().load_state_dict({"state": {0: packed} if packed else {}, "param_groups": [{**group, "params": [0]}]})
