"""The timers of one call, on the event loop."""

import asyncio
from collections.abc import Callable

from trunkline.brain.moves import Timer, TimerFired


class Alarms:
    """Tells when a time has come.

    Args:
        now: seconds of the clock that times are of.
        tell: is told.
    """

    def __init__(self, now: Callable[[], float], tell: Callable[[TimerFired], None]) -> None:
        self._now = now
        self._tell = tell
        self._set: dict[Timer, asyncio.TimerHandle] = {}

    def arm(self, timer: Timer, at: float) -> None:
        """Tell of `timer` at `at`; one that is set already is moved."""
        self.disarm(timer)
        delay_s = max(0.0, at - self._now())
        self._set[timer] = asyncio.get_running_loop().call_later(delay_s, self._tell, TimerFired(timer))

    def disarm(self, timer: Timer) -> None:
        """Forget `timer`."""
        handle = self._set.pop(timer, None)
        if handle is not None:
            handle.cancel()

    def stop(self) -> None:
        """Forget all."""
        for timer in list(self._set):
            self.disarm(timer)
