"""The one place that reads time."""

import time
from typing import Protocol


class Clock(Protocol):
    """A source of time; passed in, so that tests can own it."""

    def monotonic(self) -> float:
        """Return seconds that never go back, from an arbitrary origin."""
        ...

    def wall(self) -> float:
        """Return UTC seconds since 1970."""
        ...


class _System:
    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


SYSTEM: Clock = _System()
"""The machine's clock."""
