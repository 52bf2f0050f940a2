"""Whether a process may still speak for its calls: not at once when it was cut off, or when it stood still.

Somebody else may have been given them meanwhile. What there is to look at differs; when to look does not.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from trunkline.bus.connection import Bus
from trunkline.bus.errors import BusError
from trunkline.bus.outbox import BACK_S
from trunkline.proto.errors import BadMessage

_AGAIN_S: Final = 0.1


class Doubt:
    """One process's.

    Args:
        bus: whose breaks give rise to it.
        look: finds out what was lost, and lets go of it.
        tries: how often to look in vain before nobody is taken to contradict.
    """

    def __init__(self, bus: Bus, look: Callable[[], Awaitable[None]], tries: int) -> None:
        self._bus = bus
        self._look = look
        self._tries = tries
        self._hangs = 0
        self._resolved = 0, bus.breaks

    def hung(self) -> None:
        """Take note that this process stood still."""
        self._hangs += 1

    async def sure(self) -> None:
        """Return when what is still held is known to be ours: at once, unless this process hung or was cut off."""
        failed = 0
        while (now := (self._hangs, self._bus.breaks)) != self._resolved or not self._bus.connected:
            if not self._bus.settled(BACK_S):
                await asyncio.sleep(_AGAIN_S)
                continue
            try:
                await self._look()
            except (BusError, BadMessage):
                failed += 1
                if failed < self._tries:
                    await asyncio.sleep(_AGAIN_S)
                    continue
            self._resolved, failed = now, 0
