"""The file sink: every fact as a line of JSON, in the order of the stream.

A fact is acknowledged when it is on the disk. A full disk stops this sink alone, until there is room again.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from trunkline.bus import EventReader, Recorded
from trunkline.events.jsonlines import JsonLinesFile
from trunkline.events.metrics import SinkMetrics
from trunkline.events.once import Once
from trunkline.events.retry import wait_s

log = logging.getLogger("trunkline.events.file")

T = TypeVar("T")

_BATCH: Final = 256
_LINGER_S: Final = 0.05
"""A write, with all that makes it last, costs more than the facts in it."""


class FileSink:
    """Moves facts from `reader` to `file`."""

    name = "file"

    def __init__(
        self, reader: EventReader, file: JsonLinesFile, metrics: SinkMetrics, wall: Callable[[], float]
    ) -> None:
        self.reader = reader
        self.metrics = metrics
        self.target = str(file.path)
        self.trouble: str | None = None
        self._file = file
        self._wall = wall
        self._once = Once()

    async def run(self) -> None:
        """Deliver until the reader closes."""
        while batch := await self.reader.take(_BATCH, _LINGER_S):
            fresh = await self._until_it_works(partial(self._fresh, [delivery.record for delivery in batch]))
            if fresh:
                await self._until_it_works(partial(self._file.write, fresh))
                for record in fresh:
                    self._once.done(record)
                    self.metrics.delivered(self._wall() - record.wall_at)
            for _ in range(len(batch) - len(fresh)):
                self.metrics.duplicate()
            for delivery in batch:
                await delivery.ack()

    def _fresh(self, records: list[Recorded]) -> list[Recorded]:
        # Only now, with facts in hand, is it sure that no other process writes the file any more.
        for record in self._file.catch_up():
            self._once.done(record)
        within = Once()
        fresh = []
        for record in records:
            if self._once.is_new(record) and within.is_new(record):
                within.done(record)
                fresh.append(record)
        return fresh

    async def _until_it_works(self, work: Callable[[], T]) -> T:
        attempt = 0
        while True:
            attempt += 1
            try:
                found = await _in_thread(work)
            except OSError as error:
                self.metrics.retried()
                if self.trouble is None:
                    self.trouble = f"{self.target} cannot be written: {error.strerror or error}"
                    log.error(  # noqa: TRY400 - a full disk needs no traceback
                        "file sink stuck; trying again",
                        extra={
                            "file": self.target,
                            "why": error.strerror or str(error),
                            "setting": "TRUNKLINE_EVENTS_FILE",
                        },
                    )
                await asyncio.sleep(wait_s(attempt, random.random()))  # noqa: S311 - spreads load, guards nothing
            else:
                if self.trouble is not None:
                    self.trouble = None
                    log.info("file sink writes again", extra={"file": self.target, "attempts": attempt})
                return found


async def _in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread, to its end even when cancelled: the next writer must find it done, not under way."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            await task
        raise
