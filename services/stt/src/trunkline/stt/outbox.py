"""What is to be published, in order, from code that cannot wait.

A process that was stopped and goes on does not know yet what happened meanwhile: whether its calls are somebody else's
by now stands in messages that it has not read. So after every lapse nothing is published for a moment, and what its
call does not stand by any more is not published at all.
"""

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from trunkline.bus import Bus, BusUnavailable

log = logging.getLogger("trunkline.stt.outbox")

MOST_WAITING: Final = 10_000
"""Messages; further ones are dropped and counted."""
LAPSE_S: Final = 0.6
"""After such a standstill an edge may have called this process dead."""
HOLD_S: Final = 0.2
_LOOK_S: Final = 0.1
_FLUSH_S: Final = 1.0


class _Entry(NamedTuple):
    subject: str
    message: msgspec.Struct
    stands: Callable[[], bool]


def _always() -> bool:
    return True


class Outbox:
    """Publishes for all calls of the process, one message after the other. A few per utterance: no lane is needed.

    Args:
        bus: where to.
        now: monotonic seconds.
        counts: what was not published, by reason.
    """

    def __init__(self, bus: Bus, now: Callable[[], float], counts: Counter[str]) -> None:
        self._bus = bus
        self._now = now
        self._counts = counts
        self._waiting: deque[_Entry] = deque()
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._alive_at = now()
        self._held_until = 0.0

    def put(self, subject: str, message: msgspec.Struct, stands: Callable[[], bool] = _always) -> None:
        """Publish `message` soon, if it `stands` then."""
        if len(self._waiting) >= MOST_WAITING:
            self._counts["messages_too_many"] += 1
            return
        self._waiting.append(_Entry(subject, message, stands))
        self._empty.clear()
        self._wake.set()

    async def flush(self) -> None:
        """Wait until all is handed over, or for a second."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                await self._empty.wait()

    async def run(self) -> None:
        """Publish until cancelled."""
        self._alive_at = self._now()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._wake.wait()
            while self._waiting:
                if (held_s := self._hold_s()) > 0:
                    await asyncio.sleep(min(held_s, _LOOK_S))
                    continue
                await self._publish(self._waiting.popleft())
            self._hold_s()
            self._wake.clear()
            self._empty.set()

    def _hold_s(self) -> float:
        """Return for how long nothing is to be published."""
        at = self._now()
        if at - self._alive_at > LAPSE_S:
            self._counts["lapses"] += 1
            self._held_until = at + HOLD_S
            log.warning("process stood still", extra={"lapse_ms": round((at - self._alive_at) * 1_000)})
        self._alive_at = at
        return self._held_until - at

    async def _publish(self, entry: _Entry) -> None:
        if not entry.stands():
            self._counts["messages_void"] += 1
            return
        try:
            await self._bus.publish(entry.subject, entry.message)
        except BusUnavailable as error:
            self._counts["messages_unpublished"] += 1
            log.warning("message not published", extra={"subject": entry.subject, "problem": str(error)})
