"""Counts what would wait for a GPU, on a CPU: reading values of tensors, and results whose size depends on values."""

import inspect
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diffusers_ext.training.loop.draws import Draw


# `item`, `bool`, `float` and `int` of a tensor, and what must know how many values are true.
OPERATIONS = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten._unique2.default,
    torch.ops.aten.unique_dim.default,
}
# Files that read values for checks, of tensors on the CPU only.
CHECKS = ("gan_checks.py", "registry.py", "scheduling_gaussian_diffusion.py")
METHODS = ("tolist", "numpy", "cpu", "__array__")  # these pass by a dispatch mode


class HostTensor(torch.Tensor):
    """A tensor that stays on the CPU beside a GPU, and what is computed from such tensors: it can be read at once."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        result = super().__torch_function__(function, types, args, kwargs)
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        if all(isinstance(value, cls) for value in tensors) or not isinstance(result, cls):
            return result
        return result.as_subclass(torch.Tensor)


class HostDraw:
    """A `Draw.host` that gives such tensors."""

    def __init__(self, draw: Draw):
        self._draw = draw

    def begin(self, step, rows) -> "HostDraw":
        self._draw.begin(step, rows)
        return self

    def select(self, rows) -> "HostDraw":
        return HostDraw(self._draw.select(rows))

    def __getattr__(self, name):
        return lambda *arguments: getattr(self._draw, name)(*arguments).as_subclass(HostTensor)


class _Operations(TorchDispatchMode):
    def __init__(self, waits: Counter):
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        by_mask = function is torch.ops.aten.index.Tensor and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        on_host = any(isinstance(value, HostTensor) for value in args)
        if (function in OPERATIONS or by_mask) and not on_host and not _place().startswith(CHECKS):
            self.waits[f"{_place()}: {function}"] += 1
        return function(*args, **(kwargs or {}))


def _place() -> str:
    """The nearest caller in a package that is not torch."""
    frame = inspect.currentframe().f_back.f_back
    while "torch" in Path(frame.f_code.co_filename).parts or frame.f_code.co_filename == __file__:
        frame = frame.f_back
    path = Path(frame.f_code.co_filename)
    is_installed = "site-packages" in path.parts
    package = f"{path.parts[path.parts.index('site-packages') + 1]}: " if is_installed else ""
    return f"{package}{path.name}, line {frame.f_lineno}"


@contextmanager
def counted() -> Iterator[Counter]:
    """The waits inside of this context, by operation and place."""
    waits = Counter()

    def counting(name):
        original = getattr(torch.Tensor, name)

        def method(self, *arguments, **keywords):
            if not isinstance(self, HostTensor) and not _place().startswith(CHECKS):
                waits[f"{_place()}: {name}"] += 1
            return original(self, *arguments, **keywords)

        return mock.patch.object(torch.Tensor, name, method)

    # On a GPU it does not look whether the numbers are in the range.
    one_hot = mock.patch("torch.nn.functional.one_hot", lambda labels, count: torch.eye(count).long()[labels])
    patches = [*map(counting, METHODS), one_hot]
    for patch in patches:
        patch.start()
    try:
        with _Operations(waits):
            yield waits
    finally:
        for patch in patches:
            patch.stop()


def waits_of_an_update(trainer) -> Counter:
    """What the second update of a `Trainer`, which starts with the first one, would wait for; none is right."""
    trainer.draw.host = HostDraw(Draw(1, trainer.draw.device))  # as beside a GPU
    trainer.start()
    trainer.update()
    batches = [next(trainer.batches) for _ in range(trainer.config.gradient_accumulation_steps)]
    for batch in batches:
        batch |= {name: batch[name].as_subclass(HostTensor) for name in trainer.recipe.on_host if name in batch}
    trainer.batches = iter(batches)  # reading and cropping images is the work of the CPU
    with counted() as waits:
        trainer.update()
    return waits
