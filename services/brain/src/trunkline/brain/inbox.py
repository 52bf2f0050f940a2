"""What a call has been told and has not taken in yet, in order.

What the model wrote in the meantime becomes one piece: a busy process takes in fewer and longer ones.
"""

import asyncio
from collections import deque

from trunkline.brain.moves import ThoughtCame, Told


class Inbox:
    """For one reader."""

    def __init__(self) -> None:
        self._events: deque[Told] = deque()
        self._some = asyncio.Event()

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._events)

    def put(self, event: Told) -> None:
        """Add `event`."""
        last = self._events[-1] if self._events else None
        if isinstance(event, ThoughtCame) and isinstance(last, ThoughtCame) and last.thought == event.thought:
            self._events[-1] = ThoughtCame(event.thought, last.text + event.text)
        else:
            self._events.append(event)
        self._some.set()

    async def get(self) -> Told:
        """Wait for the next, and return it."""
        while not self._events:
            self._some.clear()
            await self._some.wait()
        return self._events.popleft()
