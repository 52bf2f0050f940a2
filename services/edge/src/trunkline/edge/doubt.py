"""Whether the calls whose facts are to be stored are still this edge's, after it was cut off from the bus.

Meanwhile their callers may have come back to another edge, or another edge may have ended them; then the facts are that
edge's to tell. The record of a call says whose it is.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from trunkline.bus import BACK_S, Bus, BusUnavailable, CallStore, EventLog
from trunkline.edge.comeback import read_record
from trunkline.proto.ids import CallId, WorkerId

_AGAIN_S: Final = 0.1


class Doubt:
    """One edge's.

    Args:
        bus: whose breaks give rise to it.
        store: where the records are.
        events: whose facts wait.
        edge: this one.
        on_lost: told of a call that another edge has.
    """

    def __init__(
        self, bus: Bus, store: CallStore, events: EventLog, edge: WorkerId, on_lost: Callable[[CallId], None]
    ) -> None:
        self._bus = bus
        self._store = store
        self._events = events
        self._edge = edge
        self._on_lost = on_lost
        self._resolved = bus.breaks

    async def sure(self) -> None:
        """Return when all facts that wait are ours to tell: at once, unless the connection broke. Drop the others."""
        while (breaks := self._bus.breaks) != self._resolved or not self._bus.connected:
            if self._bus.settled(BACK_S):
                try:
                    for call in self._events.calls_waiting():
                        await self._look(call)
                except BusUnavailable:
                    pass  # JetStream has no leader yet; nothing could be stored either
                else:
                    self._resolved = breaks
                    return
            await asyncio.sleep(_AGAIN_S)

    async def _look(self, call: CallId) -> None:
        found = await read_record(self._store, call)
        if found is not None and found[0].edge != self._edge:
            self._events.forget(call)
            self._on_lost(call)
