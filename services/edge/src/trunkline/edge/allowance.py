"""How long a call may last and what it may cost, kept by the edge: whatever becomes of the brain, it ends.

A call that has cost what it may is brought to its end by its brain, in the agent's words; one that has lasted as long
as it may, or whose brain does not come to an end, is simply over. Both hold for the call, not for the line: a call that
comes back over another edge has the same allowance, and goes on being wound up.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from trunkline.edge.books import Books
from trunkline.proto.messages import Used, WindUp

log = logging.getLogger("trunkline.edge.call")

WIND_UP_S: Final = 30.0
"""How long the brain may take to bring a call to its end."""


class Allowance:
    """What a call may use, and what happens when it has.

    Args:
        max_duration_s: how long the call may last.
        books: of the call; they know its age and its bill.
        ask: asks the brain to come to an end.
        end: ends the call, for a reason.
    """

    def __init__(
        self, max_duration_s: float, books: Books, ask: Callable[[WindUp], None], end: Callable[[str], None]
    ) -> None:
        self._max_duration_s = max_duration_s
        self._books = books
        self._ask = ask
        self._end = end
        self._watching = False
        self._timers: list[asyncio.TimerHandle] = []

    def begin(self) -> None:
        """Have the call end in time, from now on, also if it was being wound up on its last line."""
        self._watching = True
        self._end_in(max(0.0, self._max_duration_s - self._books.age_s), "exceeded-max-duration")
        if reason := self._books.record.winding_up:
            self._end_in(WIND_UP_S, reason)

    def use(self, used: Used) -> None:
        """Enter what a worker has used, and have the call wound up if that is all it may."""
        if self._books.enter(used) and self._watching:
            reason = "exceeded-max-cost"
            log.warning(
                "call has cost what it may", extra={"call": self._books.record.call, "usd": round(self._books.usd, 4)}
            )
            self._books.wind_up(reason)
            self._ask(WindUp(reason=reason))
            self._end_in(WIND_UP_S, reason)

    def close(self) -> None:
        """Watch no longer; what is used from now on is entered all the same."""
        self._watching = False
        for timer in self._timers:
            timer.cancel()

    def _end_in(self, seconds: float, reason: str) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(seconds, self._end, reason))
