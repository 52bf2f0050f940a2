"""Text that waits for the bus to be whole again after an outage.

A message that is published the moment a connection is back is lost to everybody who is still on their way: there is
nobody yet to hear it. So what is said meanwhile, and for `BACK_S` after, waits here, in order. It knows no socket.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

BACK_S: Final = 0.2
"""Everybody is back so long after us: attempts follow each other within 80 ms."""

Send = Callable[[str, bytes], Awaitable[None]]


class Outbox:
    """One connection's.

    Args:
        send: passes a message on; what it raises is the message's end.
        limit_bytes: of what may wait.
    """

    def __init__(self, send: Send, limit_bytes: int) -> None:
        self._send = send
        self._limit_bytes = limit_bytes
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._bytes = 0
        self._opens: asyncio.TimerHandle | None = None
        self._emptying: asyncio.Task[None] | None = None
        self.shut = False
        """Whether what is said now has to wait."""

    def close(self) -> None:
        """Have everything wait from now on: the connection is away."""
        self.shut = True
        self.cancel()

    def open_soon(self) -> None:
        """Let it all go in `BACK_S`: the connection is back."""
        self.cancel()
        self._opens = asyncio.get_running_loop().call_later(BACK_S, self._open)

    def hold(self, subject: str, data: bytes) -> bool:
        """Have a message wait; return False if too much waits already."""
        if self._bytes + len(data) > self._limit_bytes:
            return False
        self._waiting.append((subject, data))
        self._bytes += len(data)
        return True

    async def empty(self) -> None:
        """Send what waits. What is said meanwhile goes behind it."""
        while self._waiting:
            subject, data = self._waiting.popleft()
            self._bytes -= len(data)
            await self._send(subject, data)

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
