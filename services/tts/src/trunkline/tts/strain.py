"""Whether this process had better take no more calls: its loop is late, or nobody would speak for it anyway."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

LATE_S: Final = 0.15
"""So late, callers hear it."""
_PERIOD_S: Final = 0.1
_LATELY: Final = 10


class Strained:
    """Says why, when it is called.

    Args:
        now: monotonic seconds.
        states: returns the providers asked so far, each with the state of its breaker.
    """

    def __init__(self, now: Callable[[], float], states: Callable[[], Iterable[tuple[str, str]]]) -> None:
        self._now = now
        self._states = states
        self._late_s: deque[float] = deque(maxlen=_LATELY)

    async def watch(self) -> None:
        """Look how late the loop is until cancelled."""
        while True:
            began = self._now()
            await asyncio.sleep(_PERIOD_S)
            self.late(self._now() - began - _PERIOD_S)

    def late(self, late_s: float) -> None:
        """Note how much later than asked the loop woke somebody. Forgotten after a second."""
        self._late_s.append(late_s)

    def __call__(self) -> str | None:
        """Return why nothing more should be taken on, or None."""
        if max(self._late_s, default=0.0) > LATE_S:
            return "event loop late"
        states = [state for _, state in self._states()]
        if states and all(state == "open" for state in states):
            return "no voice can be asked"
        return None
