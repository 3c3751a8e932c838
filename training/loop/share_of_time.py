"""When to do something that takes long, such as drawing samples, so that it takes a small share of the training."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class ShareOfTime:
    """Decides by the clock. What it decides must not change the training, because no two runs take equally long.

    Args:
        share (`float`): at most this share of the time is spent.
        first (`float`): seconds before the first time; a training that is shorter is not long.
        growth (`float`): the pauses are at least this share of all the time so far, so that there are few in the end.
    """

    def __init__(self, share: float = 0.02, first: float = 120.0, growth: float = 0.1):
        self.share, self.first, self.growth = share, first, growth
        self._cost = 0.0
        self._started = self._last = time.perf_counter()

    def is_due(self, seconds_before: float = 0.0) -> bool:
        """Whether it is time; `seconds_before` is how long earlier runs took that this one continues."""
        now = time.perf_counter()
        so_far = seconds_before + now - self._started
        return now - self._last >= max(self.first, self._cost / self.share, self.growth * so_far)

    @contextmanager
    def spent(self) -> Iterator[None]:
        """In this context, the time counts as spent."""
        started = time.perf_counter()
        yield
        self._last = time.perf_counter()
        self._cost = self._last - started
