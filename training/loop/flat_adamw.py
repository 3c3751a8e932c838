"""AdamW on one tensor that contains all weights of a network."""

from collections.abc import Iterable

import torch


ALIGNMENT = 64  # bytes, a cache line: kernels are slower on weights that start elsewhere


class FlatAdamW(torch.optim.AdamW):
    """AdamW (Loshchilov and Hutter 2019) over all parameters at once.

    The parameters become views of one flat tensor, and their gradients views of another one, each in its own shape
    and memory format. An update is then one or two operations, however many parameters there are. The flat tensor and
    its gradient are `flat`: clipping the gradient of `flat` clips the common norm of all parameters.

    Gradients are set to zero, never to `None`. So a parameter that gets no gradient in a step still decays and keeps
    its momentum, unlike a separate tensor, which AdamW would skip.

    Args:
        parameters: `torch.nn.Parameter`s of one dtype, on their final device.
        options: the options of `torch.optim.AdamW`.
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
        # Accelerate notices a skipped step only if GradScaler itself skips steps that overflow.
        self._step_supports_amp_scaling = False
        self.register_step_pre_hook(self._check_views)

    def _views(self, flat: torch.Tensor) -> list[torch.Tensor]:
        return [flat.as_strided(shape, stride, offset) for shape, stride, offset in self._layout]

    def _check_views(self, *_) -> None:
        if any(p.data_ptr() != view.data_ptr() for p, view in zip(self.parameters, self._weights, strict=True)):
            raise RuntimeError(
                "A weight was moved out of the flat tensor: move the network before you build its optimizer."
            )
        if any(p.grad is not gradient for p, gradient in zip(self.parameters, self._gradients, strict=True)):
            raise RuntimeError("A gradient was replaced: set gradients to zero only with the optimizer's zero_grad().")

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Set all gradients to zero, in place whatever `set_to_none` is."""
        self.flat.grad.zero_()

    def state_dict(self) -> dict:
        """The state in the form of a `torch.optim.AdamW` over separate, contiguous parameters."""
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
        """Continue from the state of this class, or of `torch.optim.AdamW` over equally many parameters in one group.

        Raises:
            ValueError: if the state has another number of parameters.
        """
        (group,) = state_dict["param_groups"]
        if len(group["params"]) != len(self.parameters):
            raise ValueError(
                f"The state has {len(group['params'])} parameters, but the optimizer has {len(self.parameters)}."
            )
        packed = {}
        for index, state in state_dict["state"].items():
            for name, value in state.items():
                # All but the step have the shape of the parameter, which may be a single number too.
                is_step = name == "step"
                flat = packed.setdefault(name, value if is_step else torch.zeros_like(self.flat))
                if not is_step:
                    self._views(flat)[index].copy_(value)
        super().load_state_dict({"state": {0: packed} if packed else {}, "param_groups": [{**group, "params": [0]}]})
