"""Text on its way through an outage of the bus: kept, and said again when everybody can hear it.

Core NATS delivers at most once. Two things are lost when a connection breaks: what went into a socket whose other end
was gone already, and what is said the moment it is back, to those who are still on their way. So what is said during an
outage, and for `BACK_S` after, waits; and before it goes out, what was said in the last `AGAIN_S` before the outage is
said again, marked with the outage's name. Whoever has heard that leaves it out (`Repeats`). Neither knows a socket.
"""

import asyncio
import secrets
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

BACK_S: Final = 0.15
"""Everybody is back so long after us: attempts follow each other within 80 ms."""
AGAIN_S: Final = 3.0
"""A connection that stalls counts as broken after so long: two pings, a second apart, that nobody answers."""
REMEMBERED_S: Final = 10.0
"""What was heard is known for at least so long, outages not counted."""

Send = Callable[[str, bytes, str], Awaitable[None]]
"""Passes on subject and data, with the name of the outage when it is said again."""


class _Said(NamedTuple):
    at: float
    subject: str
    data: bytes
    again: bool = False


class Outbox:
    """What one connection says.

    Args:
        send: what it raises is the message's end.
        limit_bytes: of what may wait, and of what is kept to be said again.
    """

    def __init__(self, send: Send, limit_bytes: int) -> None:
        self._send = send
        self._limit_bytes = limit_bytes
        self._loop = asyncio.get_running_loop()
        self._said: deque[_Said] = deque()
        self._said_bytes = 0
        self._waiting: deque[_Said] = deque()
        self._waiting_bytes = 0
        self._outage = ""
        self._opens: asyncio.TimerHandle | None = None
        self._emptying: asyncio.Task[None] | None = None
        self.shut = False
        """Whether what is said now has to wait."""

    def said(self, subject: str, data: bytes) -> None:
        """Take note of what was said just now."""
        now = self._loop.time()
        self._said.append(_Said(now, subject, data))
        self._said_bytes += len(data)
        while self._said[0].at < now - AGAIN_S or self._said_bytes > self._limit_bytes:
            self._said_bytes -= len(self._said.popleft().data)

    def hold(self, subject: str, data: bytes) -> bool:
        """Have a message wait; return False if too much waits already."""
        if self._waiting_bytes + len(data) > self._limit_bytes:
            return False
        self._waiting.append(_Said(0.0, subject, data))
        self._waiting_bytes += len(data)
        return True

    def close(self) -> None:
        """Have everything wait from now on: the connection is away."""
        self.cancel()
        self.shut = True
        self._outage = secrets.token_hex(6)
        since = self._loop.time() - AGAIN_S
        for said in reversed(self._said):
            if said.at >= since:
                self._waiting.appendleft(said._replace(again=True))
                self._waiting_bytes += len(said.data)
        self._said.clear()
        self._said_bytes = 0

    def open_soon(self) -> None:
        """Let it all go in `BACK_S`: the connection is back."""
        self.cancel()
        self._opens = self._loop.call_later(BACK_S, self._open)

    async def empty(self) -> None:
        """Send what waits. What is said meanwhile goes behind it."""
        while self._waiting:
            _, subject, data, again = self._waiting.popleft()
            self._waiting_bytes -= len(data)
            self.said(subject, data)
            await self._send(subject, data, self._outage if again else "")

    def cancel(self) -> None:
        """Forget about opening."""
        if self._opens is not None:
            self._opens.cancel()
            self._opens = None
        if self._emptying is not None:
            self._emptying.cancel()
            self._emptying = None

    def _open(self) -> None:
        self._opens = None
        self._emptying = asyncio.create_task(self._let_go(), name="outbox")

    async def _let_go(self) -> None:
        await self.empty()
        self.shut = False


class Repeats:
    """What a process has heard of late, so that nothing is heard twice. Pure.

    Two messages that are alike are told apart by their number: of those said again, as many are left out as were heard.
    """

    def __init__(self) -> None:
        self._heard: Counter[int] = Counter()
        self._heard_before: Counter[int] = Counter()
        self._again: Counter[tuple[str, int]] = Counter()
        self._turned_at = 0.0

    def heard(self, subject: str, data: bytes, at: float) -> None:
        """Take note of a message that came at `at` (seconds)."""
        if at - self._turned_at > REMEMBERED_S:
            self._heard, self._heard_before = Counter(), self._heard
            self._again.clear()
            self._turned_at = at
        self._heard[hash((subject, data))] += 1

    def is_news(self, outage: str, subject: str, data: bytes, at: float) -> bool:
        """Return whether a message that is said again after `outage` was not heard before; it counts as heard then."""
        key = hash((subject, data))
        self._again[outage, key] += 1
        if self._again[outage, key] <= self._heard[key] + self._heard_before[key]:
            return False
        self.heard(subject, data, at)
        return True
