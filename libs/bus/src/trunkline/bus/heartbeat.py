"""Heartbeats: five a second per process, on ``alive.<stage>.<worker>``.

They catch what a missing subscriber cannot: a process that hangs, or one that is cut off. One beat speaks for all calls
of its process, so their number does not grow with the calls.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from trunkline.bus.connection import Bus
from trunkline.bus.ending import ended
from trunkline.bus.errors import BusUnavailable
from trunkline.proto import subjects
from trunkline.proto.ids import WorkerId
from trunkline.proto.messages import Alive

PERIOD_S: Final = 0.2
MISSED_S: Final = 3 * PERIOD_S
"""Silence after which a process counts as gone."""


class Heartbeat:
    """Tells the bus that this process lives, and how many calls more it has room for.

    While `room`, asked before every beat, says False, there is none, whatever the capacity.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        stage: str,
        worker: WorkerId,
        calls: Callable[[], int],
        capacity: int,
        room: Callable[[], bool] = lambda: True,
    ) -> None:
        self._bus = bus
        self._stage = stage
        self._worker = worker
        self._calls = calls
        self._capacity = capacity
        self._room = room
        self._task: asyncio.Task[None] | None = None
        self.draining = False

    def start(self) -> None:
        """Begin to beat."""
        self._task = asyncio.create_task(self._beat(), name=f"heartbeat-{self._worker}")

    async def stop(self) -> None:
        """Stop beating."""
        if self._task is not None:
            await ended(self._task)

    async def _beat(self) -> None:
        subject = subjects.alive(self._stage, self._worker)
        while True:
            calls = self._calls()
            beat = Alive(
                worker=self._worker,
                stage=self._stage,
                calls=calls,
                capacity=self._capacity if self._room() else calls,
                draining=self.draining,
            )
            with contextlib.suppress(BusUnavailable):
                await self._bus.publish(subject, beat)
            await asyncio.sleep(PERIOD_S)
