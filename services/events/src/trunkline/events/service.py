"""The service: one durable reader per sink, so that one being down never delays the other."""

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from typing import Final, Protocol

from trunkline.bus import Bus, BusUnavailable, EventReader, ensure_events_stream
from trunkline.events.file_sink import FileSink
from trunkline.events.jsonlines import JsonLinesFile
from trunkline.events.metrics import Metrics, SinkMetrics
from trunkline.events.post import Post
from trunkline.events.settings import EventsSettings, file_of, receiver_of
from trunkline.events.webhook_sink import WebhookSink
from trunkline.runtime.process import Chassis

log = logging.getLogger("trunkline.events")

FILE_READER: Final = "events-file"
WEBHOOK_READER: Final = "events-webhook"

_WEBHOOK_WINDOW: Final = 2_048
"""Facts in hand at once: calls whose receiver fails hold theirs, and must leave room for the others."""
_LOOK_S: Final = 0.1
_AGAIN_S: Final = 1.0


class Sink(Protocol):
    """Where facts go."""

    name: str
    reader: EventReader
    metrics: SinkMetrics
    target: str
    trouble: str | None

    async def run(self) -> None:
        """Deliver until the reader closes."""
        ...


class EventsService:
    """Delivers. Made by `build`."""

    def __init__(self, bus: Bus, sinks: list[Sink], chassis: Chassis, drain_s: float) -> None:
        self._bus = bus
        self._sinks = sinks
        self._chassis = chassis
        self._drain_s = drain_s
        self._stream_trouble: str | None = "the stream was not reached yet"
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to deliver. A stream that is away shows in readiness and is waited for."""
        self._chassis.ready_check("nats", self._bus.problem)
        self._chassis.stats("media lane", self._bus.media.counts.items)
        self._chassis.ready_check("stream", lambda: self._stream_trouble)
        self._tasks.append(asyncio.create_task(self._make_stream(), name="make stream"))
        for sink in self._sinks:
            self._add(sink)
            await sink.reader.start()
        if not self._sinks:
            log.info(
                "no sink: events stay in the stream for 7 days",
                extra={"settings": "TRUNKLINE_EVENTS_FILE, TRUNKLINE_EVENTS_WEBHOOK_URL", "look": "trunkline events"},
            )

    async def drain(self) -> None:
        """Deliver what is there, for a few seconds; the rest waits in the stream for the next process."""
        with contextlib.suppress(TimeoutError, BusUnavailable):
            async with asyncio.timeout(self._drain_s):
                await asyncio.gather(*(_delivered(sink.reader) for sink in self._sinks))

    async def stop(self) -> None:
        """Stop delivering; what was not delivered is given back to the stream."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for sink in self._sinks:
            await sink.reader.close()
        await self._bus.close()

    def _add(self, sink: Sink) -> None:
        task = asyncio.create_task(sink.run(), name=f"sink {sink.name}")
        task.add_done_callback(lambda done: self._over(sink, done))
        self._tasks.append(task)
        sink.metrics.lag.set_function(lambda: sink.reader.lag)
        self._chassis.ready_check(sink.name, lambda: sink.trouble)
        self._chassis.stats(f"sink {sink.name}", lambda: _rows(sink))
        log.info("sink open", extra={"sink": sink.name, "to": sink.target})

    def _over(self, sink: Sink, done: asyncio.Task[None]) -> None:
        if not done.cancelled() and done.exception() is not None:
            log.error("sink broken", extra={"sink": sink.name}, exc_info=done.exception())
            self._chassis.fail(f"the {sink.name} sink broke")

    async def _make_stream(self) -> None:
        while self._stream_trouble:
            try:
                await ensure_events_stream(self._bus)
            except BusUnavailable as error:
                self._stream_trouble = str(error)
                await asyncio.sleep(_AGAIN_S)
            else:
                self._stream_trouble = None


async def build(settings: EventsSettings, chassis: Chassis) -> EventsService:
    """Make the service from its settings.

    Raises:
        SettingsError: the file or the webhook cannot be used.
        BusUnavailable: there is no NATS.
    """
    path, receiver = file_of(settings), receiver_of(settings)
    bus = await Bus.connect(chassis.base.nats_url, name="events", on_lost=chassis.fail)
    metrics, wall = Metrics(chassis.registry, bus.media), chassis.clock.wall
    sinks: list[Sink] = []
    if path is not None:
        sinks.append(FileSink(EventReader(bus, FILE_READER), JsonLinesFile(path), metrics.of(FileSink.name), wall))
    if receiver is not None:
        room = settings.webhook_concurrency
        post = Post(receiver, wall, timeout_s=settings.webhook_timeout_s, connections=room)
        reader = EventReader(bus, WEBHOOK_READER, window=_WEBHOOK_WINDOW)
        sinks.append(WebhookSink(reader, post, metrics.of(WebhookSink.name), wall, concurrency=room))
    return EventsService(bus, sinks, chassis, settings.drain_s)


async def _delivered(reader: EventReader) -> None:
    while True:
        if await reader.behind() == 0:
            return
        await asyncio.sleep(_LOOK_S)


def _rows(sink: Sink) -> Iterable[tuple[str, object]]:
    yield "to", sink.target
    yield "state", sink.trouble or sink.reader.trouble or sink.reader.state
    yield "delivered", sink.metrics.delivered_count
    yield "failed attempts", sink.metrics.retried_count
    yield "given up", sink.metrics.given_up_count
    yield "duplicates suppressed", sink.metrics.duplicate_count
    yield "skipped, no events", sink.reader.counts["refused"]
    yield "not delivered yet", sink.reader.lag
