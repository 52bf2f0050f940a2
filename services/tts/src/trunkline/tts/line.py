"""A call's audio on its way to its edge: in order, and again when it got lost.

What was sent last before a connection broke, this one or the edge's, may have got no further than the socket. The edge
takes every chunk once.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from trunkline.bus import Bus
from trunkline.proto.frame import AudioChunk, pack_audio
from trunkline.proto.ids import Seq

KEPT_S: Final = 3.0
"""A connection that stalls counts as broken after so long."""


class _Sent(NamedTuple):
    at: float
    seq: Seq
    data: bytes


class AudioLine:
    """One call's. Chunks go to `subject`; `now` gives monotonic seconds. `open` it, and `close` it in the end."""

    def __init__(self, bus: Bus, subject: str, now: Callable[[], float]) -> None:
        self._lane = bus.media
        self._subject = subject
        self._now = now
        self.next_seq = Seq(0)
        """Number of the chunk to be sent next: no number is left out."""
        self._sent: deque[_Sent] = deque()
        self._breaks = self._lane.breaks
        self._in_order = asyncio.Lock()
        self._repeating: set[asyncio.Task[None]] = set()
        self._stop_watching: Callable[[], None] | None = None

    def open(self) -> None:
        """Begin to watch the connection."""
        self._stop_watching = self._lane.on_back(lambda: self._spawn(None))

    def close(self) -> None:
        """Send nothing again any more."""
        if self._stop_watching is not None:
            self._stop_watching()
            self._stop_watching = None
        for task in self._repeating:
            task.cancel()

    async def send(self, chunk: AudioChunk) -> AudioChunk | None:
        """Send a chunk under the next number; return it so, or None when it was dropped.

        What is to be sent again goes first.
        """
        async with self._in_order:
            await self._repeat_after_break()
            if chunk.seq != self.next_seq:
                chunk = chunk._replace(seq=self.next_seq)
            now, data = self._now(), pack_audio(chunk)
            self._sent.append(_Sent(now, chunk.seq, data))
            self.next_seq = Seq(chunk.seq + 1)
            while self._sent[0].at < now - KEPT_S:
                self._sent.popleft()
            return chunk if await self._lane.publish_frame(self._subject, data) else None

    def repeat(self, first: Seq) -> None:
        """Have what was sent from chunk `first` on sent again, as far as it is kept."""
        if self._stop_watching is not None:
            self._spawn(first)

    def _spawn(self, first: Seq | None) -> None:
        task = asyncio.create_task(self._repeat(first), name=f"repeat {self._subject}")
        self._repeating.add(task)
        task.add_done_callback(self._repeating.discard)

    async def _repeat(self, first: Seq | None) -> None:
        async with self._in_order:
            if first is None:
                await self._repeat_after_break()
            else:
                await self._send_again(first)

    async def _repeat_after_break(self) -> None:
        if self._breaks != self._lane.breaks:
            self._breaks = self._lane.breaks
            await self._send_again(Seq(0))

    async def _send_again(self, first: Seq) -> None:
        for sent in tuple(self._sent):
            if sent.seq >= first:
                await self._lane.publish_frame(self._subject, sent.data)
