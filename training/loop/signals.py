"""Stopping a run by a signal: the first SIGTERM or SIGINT asks for it, the second one ends the process."""

import os
import signal


class StopRequest:
    """Catches SIGTERM and SIGINT (Ctrl-C) while it is entered, so that a run can write a checkpoint and stop.

    The first signal sets `requested`. The second one has its usual effect. `accelerate launch` does not forward
    signals to its processes, so the end of the launcher counts as a request too.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self):
        self._signalled = False
        self._launcher = os.getppid() if "ACCELERATE_MIXED_PRECISION" in os.environ else None

    @property
    def requested(self) -> bool:
        """Whether the run was asked to stop."""
        return self._signalled or (self._launcher is not None and os.getppid() != self._launcher)

    def __enter__(self) -> "StopRequest":
        self._previous = {number: signal.signal(number, self._on_signal) for number in self.SIGNALS}
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame) -> None:
        self._signalled = True
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
