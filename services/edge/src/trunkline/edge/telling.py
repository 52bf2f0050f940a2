"""What the edge tells a call's brain, in order; what is told while there is no brain waits for the next one."""

import asyncio
import logging
from typing import Final

import msgspec

from trunkline.bus import Bus, BusError
from trunkline.edge.metrics import EdgeMetrics
from trunkline.proto.ids import CallId

log = logging.getLogger("trunkline.edge.telling")

MOST_UNTOLD: Final = 1_000
"""Messages that wait for a brain to tell them to; beyond it the oldest are given up."""


class Telling:
    """One call's.

    Args:
        call: whose.
        bus: where it is told.
        listening: set while there is a brain.
        metrics: the edge's.
    """

    def __init__(self, call: CallId, bus: Bus, listening: asyncio.Event, metrics: EdgeMetrics) -> None:
        self._call = call
        self._bus = bus
        self._listening = listening
        self._metrics = metrics
        self._untold: asyncio.Queue[tuple[str, msgspec.Struct]] = asyncio.Queue()
        self._complained = False

    def tell(self, subject: str, message: msgspec.Struct) -> None:
        """Have `message` told after those before it. Never waits."""
        if self._untold.qsize() >= MOST_UNTOLD:
            self._untold.get_nowait()
            self._metrics.dropped["message_untold"] += 1
        self._untold.put_nowait((subject, message))

    async def run(self) -> None:
        """Tell everything, until cancelled."""
        while True:
            await self._listening.wait()
            subject, message = await self._untold.get()
            await self._listening.wait()  # nobody may be there any more
            try:
                await self._bus.publish(subject, message)
            except BusError as error:
                self._metrics.dropped["message_unsent"] += 1
                if not self._complained:
                    self._complained = True
                    log.warning("message not sent", extra={"call": self._call, "error": str(error)})
