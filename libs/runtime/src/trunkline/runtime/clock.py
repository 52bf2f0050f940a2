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


class Steady:
    """Wall-clock seconds that never jump: the wall time of its making plus what the monotonic clock has counted since.

    Good for the length of a call: it can be compared with other processes' wall clocks and used for deadlines.
    """

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._offset = clock.wall() - clock.monotonic()

    def now(self) -> float:
        """Return seconds since 1970."""
        return self._clock.monotonic() + self._offset
