"""A call's audio on its way to its edge: in order, and again when the connection broke.

What was sent last before it broke may have got no further than the socket; the edge takes every chunk once.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from trunkline.bus import Bus

KEPT_S: Final = 3.0
"""A connection that stalls counts as broken after so long."""


class AudioLine:
    """One call's. Chunks go to `subject`; `now` gives monotonic seconds. `open` it, and `close` it in the end."""

    def __init__(self, bus: Bus, subject: str, now: Callable[[], float]) -> None:
        self._bus = bus
        self._subject = subject
        self._now = now
        self._sent: deque[tuple[float, bytes]] = deque()
        self._breaks = bus.media.breaks
        self._in_order = asyncio.Lock()
        self._repeating: asyncio.Task[None] | None = None
        self._stop_watching: Callable[[], None] | None = None

    def open(self) -> None:
        """Begin to watch the connection."""
        self._stop_watching = self._bus.on_back(self._on_back)

    def close(self) -> None:
        """Send nothing again any more."""
        if self._stop_watching is not None:
            self._stop_watching()
            self._stop_watching = None
        if self._repeating is not None:
            self._repeating.cancel()

    async def send(self, data: bytes) -> bool:
        """Send a packed `AudioChunk`; return False when it was dropped. What is to be sent again goes first."""
        async with self._in_order:
            await self._repeat()
            now = self._now()
            self._sent.append((now, data))
            while self._sent[0][0] < now - KEPT_S:
                self._sent.popleft()
            return await self._bus.media.publish_frame(self._subject, data)

    def _on_back(self) -> None:
        self._repeating = asyncio.create_task(self._repeat_now(), name=f"repeat {self._subject}")

    async def _repeat_now(self) -> None:
        async with self._in_order:
            await self._repeat()

    async def _repeat(self) -> None:
        lane = self._bus.media
        if self._breaks != lane.breaks:
            self._breaks = lane.breaks
            for _, data in self._sent:
                await lane.publish_frame(self._subject, data)
