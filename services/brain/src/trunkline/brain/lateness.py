"""How late the event loop is now, so that a process that cannot keep up takes no more calls."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

LATE_S: Final = 0.15
"""So late, callers hear it."""
_PERIOD_S: Final = 0.1
_LATELY: Final = 10


class Lateness:
    """How much later than asked a sleeper woke during the last second.

    Args:
        now: monotonic seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._recent: deque[float] = deque(maxlen=_LATELY)

    async def watch(self) -> None:
        """Sample until cancelled."""
        while True:
            began = self._now()
            await asyncio.sleep(_PERIOD_S)
            self._recent.append(self._now() - began - _PERIOD_S)

    @property
    def worst_s(self) -> float:
        """The worst of the last second."""
        return max(self._recent, default=0.0)
