"""Watches over the workers of this edge's calls, and over the bus itself.

Heartbeats come to it, and it probes: ten times a second an empty message goes to every worker that holds a call of
ours, on a subject to which only that worker subscribes. Nobody answers; but when nobody is there the bus says so.
What the bus says of others is not believed while our own connection is new: then everybody's is.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from trunkline.bus import Bus, ended
from trunkline.edge.call import Call
from trunkline.edge.liveness import Liveness
from trunkline.edge.metrics import EdgeMetrics
from trunkline.proto import codec, subjects
from trunkline.proto.errors import BadMessage
from trunkline.proto.ids import CallId, WorkerId
from trunkline.runtime.clock import Clock

log = logging.getLogger("trunkline.edge.watch")

PROBE: Final = "probe:"
"""What the reply address of a probe begins with, so that it is told from that of a frame."""
PROBE_S: Final = 0.1
SETTLED_S: Final = 1.0
"""How long our own connection must have stood before absence of others means anything."""
BUS_AWAY_S: Final = 10.0
"""When the bus has been away for so long, no call has a use for its line any more."""


class Watch:
    """One edge's."""

    def __init__(
        self,
        bus: Bus,
        edge: WorkerId,
        liveness: Liveness,
        calls: Mapping[CallId, Call],
        clock: Clock,
        metrics: EdgeMetrics,
    ) -> None:
        self._bus = bus
        self._edge = edge
        self._liveness = liveness
        self._calls = calls
        self._clock = clock
        self._metrics = metrics
        self._round = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._parting: set[asyncio.Task[None]] = set()

    @property
    def believes(self) -> bool:
        """Whether what the bus says of others can be relied on."""
        return self._bus.settled(SETTLED_S)

    async def start(self) -> None:
        """Listen and probe.

        Raises:
            BusUnavailable: the bus is away.
        """
        await self._bus.subscribe(subjects.ALIVE_ALL, self._on_alive)
        self._tasks = [
            asyncio.create_task(self._probe_all(), name="probes"),
            asyncio.create_task(self._watch_bus(), name="bus-watch"),
        ]

    async def stop(self) -> None:
        """Judge nobody any more."""
        await ended(*self._tasks, *self._parting)

    def _on_alive(self, _subject: str, data: bytes) -> None:
        try:
            beat = codec.decode(codec.ALIVE, data)
        except BadMessage:
            self._metrics.dropped["heartbeat_malformed"] += 1
            return
        self._lose(self._liveness.beat(beat, self._clock.monotonic()), "silent")

    def on_absent(self, token: str) -> None:
        """Take note that nobody was there for a probe."""
        worker, _, number = token.removeprefix(PROBE).partition(":")
        if self.believes and number.isdecimal() and self._liveness.absent(WorkerId(worker), int(number)):
            self._lose(frozenset({WorkerId(worker)}), "gone")

    def _lose(self, workers: frozenset[WorkerId], reason: str) -> None:
        if workers:
            for call in list(self._calls.values()):
                call.serving.on_lost(workers, reason)

    async def _probe_all(self) -> None:
        while True:
            await asyncio.sleep(PROBE_S)
            self._round += 1
            for worker in self._holding():
                reply = self._bus.media.reply_to(f"{PROBE}{worker}:{self._round}")
                await self._bus.media.publish_frame(subjects.probe(worker), b"", reply)

    def _holding(self) -> set[WorkerId]:
        """Return who serves a call of ours."""
        return {held.worker for call in self._calls.values() for held in call.serving.all_held}

    async def _watch_bus(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            if self._liveness.silent_s(self._clock.monotonic()) > BUS_AWAY_S:
                for call in list(self._calls.values()):
                    log.error("the bus is away for too long; taking leave", extra={"call": call.id})
                    self._part(call)

    def _part(self, call: Call) -> None:
        task = asyncio.create_task(call.bus_away())
        self._parting.add(task)
        task.add_done_callback(self._parting.discard)
