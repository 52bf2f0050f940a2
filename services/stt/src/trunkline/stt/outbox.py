"""What is to be published, in order, from code that cannot wait."""

import asyncio
import contextlib
import logging
from typing import Final

import msgspec

from trunkline.bus import Bus, BusUnavailable

log = logging.getLogger("trunkline.stt.outbox")

_FLUSH_S: Final = 1.0


class Outbox:
    """Publishes for all calls of the process, one message after the other. A few per utterance: no lane is needed."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._waiting: asyncio.Queue[tuple[str, msgspec.Struct]] = asyncio.Queue()

    def put(self, subject: str, message: msgspec.Struct) -> None:
        """Publish `message` soon."""
        self._waiting.put_nowait((subject, message))

    async def flush(self) -> None:
        """Wait until all is handed over, or for a second."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                await self._waiting.join()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            subject, message = await self._waiting.get()
            try:
                await self._bus.publish(subject, message)
            except BusUnavailable as error:
                log.warning("message not published", extra={"subject": subject, "problem": str(error)})
            finally:
                self._waiting.task_done()
