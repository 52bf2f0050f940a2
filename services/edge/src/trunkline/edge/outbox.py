"""What waits for one carrier socket: bounded, in order, and gone at a clear.

A socket that does not read keeps only its own call waiting. When more than `limit_bytes` of audio wait, further audio
is refused (the newest is lost, so that what does play makes sense up to there); marks and clears are small and always
taken. A clear overtakes: what it would throw away at the carrier need not be sent first.
"""

import asyncio
from collections import deque

from trunkline.edge.carrier import Line, Message


class Outbox:
    """Messages on their way to one line; `deliver` is the only one who sends."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._queue: deque[Message] = deque()
        self._filled = asyncio.Event()

    def has_room(self) -> bool:
        """Whether audio is taken now."""
        return self._bytes < self._limit_bytes

    def put(self, message: Message) -> None:
        """Add `message` behind what waits."""
        self._queue.append(message)
        self._bytes += len(message)
        self._filled.set()

    def clear(self, message: Message) -> None:
        """Throw away what waits and send `message` next."""
        self._queue.clear()
        self._bytes = 0
        self.put(message)

    async def deliver(self, line: Line) -> None:
        """Send until cancelled.

        Raises:
            LineClosed: the line is gone.
        """
        while True:
            await self._filled.wait()
            while self._queue:
                message = self._queue.popleft()
                self._bytes -= len(message)
                await line.send(message)
            self._filled.clear()
