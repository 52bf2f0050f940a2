"""Whose the calls are whose facts wait, after this edge was cut off from the bus.

Meanwhile their callers may have come back to another edge, or another edge may have ended them; then the facts are that
edge's to tell. The record of a call says whose it is.
"""

from collections.abc import Callable
from typing import Final

from trunkline.bus import Bus, CallStore, Doubt, EventLog
from trunkline.edge.comeback import read_record
from trunkline.proto.ids import CallId, WorkerId

_TRIES: Final = 20
"""Some seconds: JetStream may have no leader yet, and then nothing could be stored either."""


def guard(bus: Bus, store: CallStore, events: EventLog, edge: WorkerId, on_lost: Callable[[CallId], None]) -> None:
    """Have `events` wait, after the connection broke, until those of calls that others than `edge` have are dropped.

    `on_lost` is told of each such call.
    """

    async def look() -> None:
        for call in events.calls_waiting():
            found = await read_record(store, call)
            if found is not None and found[0].edge != edge:
                events.forget(call)
                on_lost(call)

    events.guard(Doubt(bus, look, _TRIES).sure)
