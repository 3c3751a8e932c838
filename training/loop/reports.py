"""What training steps report: losses, norms and other values, which stay on the device until they are read."""

import torch
from accelerate import Accelerator


class Reports:
    """The values of the steps since the last time that they were read.

    Reading a value waits until the device has computed it, and in that time the device gets nothing new to do. So the
    values of several steps are read at once, in one exchange between the processes.

    Args:
        accelerator (`Accelerator`): from [`~diffusers_ext.training.loop.accelerator.build_accelerator`].
    """

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self._steps: list[tuple[int, list[str], dict[str, float]]] = []
        self._own: list[torch.Tensor] = []  # the means over the rows of this process

    def add(self, step: int, values: dict[str, list[torch.Tensor]], known: dict[str, float]) -> None:
        """Keep the values of a step.

        Args:
            step (`int`): the number of the step.
            values (`dict`): single values by name, on the device, several for several parts of the batch. Every
                process has the same names.
            known (`dict`): values that the program knows already.
        """
        names = sorted(values)
        self._steps.append((step, names, known))
        self._own += [torch.stack(values[name]).mean() for name in names]

    def read(
        self, stop_requested: bool = False, samples_due: bool = False
    ) -> tuple[list[tuple[int, dict[str, float]]], bool, bool]:
        """Wait for the values, and take their means over all processes. Every process calls it.

        Args:
            stop_requested (`bool`): whether this process was asked to stop.
            samples_due (`bool`): whether it is time for a grid of samples, by the clock of this process.

        Returns:
            `tuple`: (step, values by name) of each step since the last call, whether a process was asked to stop, and
            whether it is time for samples by the clock of a process.
        """
        flags = torch.tensor([stop_requested, samples_due], dtype=torch.float32, device=self.accelerator.device)
        *means, stopping, due = self.accelerator.reduce(torch.stack([*self._own, *flags]), "mean").tolist()
        means, found = iter(means), []
        for step, names, known in self._steps:
            found.append((step, {name: next(means) for name in names} | known))
        self._steps, self._own = [], []
        return found, stopping > 0, due > 0
