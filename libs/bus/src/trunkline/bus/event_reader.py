"""Reading facts in the order of the stream EVENTS, at least once.

`EventReader` remembers on the server how far the reader of a name came; `recorded` looks at the stream and leaves no
trace. Neither knows what a fact means.
"""

import asyncio
import contextlib
import json
import logging
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, Self

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import api

from trunkline.bus.ending import ended
from trunkline.bus.errors import BusUnavailable
from trunkline.bus.streams import API_TIMEOUT_S, AWAY, HasControl, ensure_events_stream, retry_s, why
from trunkline.proto import codec, subjects
from trunkline.proto.events import Event
from trunkline.proto.ids import CallId

log = logging.getLogger("trunkline.bus.event_reader")

_EXPIRES_S: Final = 10.0
"""A pull request lives this long on the server: so long a frozen reader keeps its successor out.

The next is made when half of that is over: whoever stands by takes a moment without any for the reader's end.
"""
_HEARTBEAT_S: Final = 1.0
_SILENCE_S: Final = 2.5
_LOOK_S: Final = 0.25
_NANO: Final = 1_000_000_000
_NO_MESSAGE: Final = 10037
"""JetStream's error for a message that is not there; a stream that is not there has another."""


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """A fact as it lies in the stream: its envelope understood, its content as bytes.

    A newer process may have recorded a kind of fact this one does not know; it can still be passed on.
    """

    id: str
    call: CallId
    kind: str
    wall_at: float
    data: bytes
    """The event's JSON, as published."""

    def event(self) -> Event:
        """Decode the whole event.

        Raises:
            BadMessage: its kind is unknown here, or it is malformed.
        """
        return codec.decode(codec.EVENT, self.data)


class _Tag(msgspec.Struct, frozen=True):
    type: str


class _Envelope(msgspec.Struct, frozen=True):
    id: str
    call: CallId
    wall_at: float
    fact: _Tag


_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)


def read_envelope(data: bytes) -> Recorded:
    """Read as much of an event as is needed to pass it on.

    Raises:
        BadMessage: it is no event of any version.
    """
    found = codec.decode(_ENVELOPE, data)
    return Recorded(id=found.id, call=found.call, kind=found.fact.type, wall_at=found.wall_at, data=data)


class Delivery:
    """A fact in the hands of its reader, until one of `ack`, `nak` and `term` settles it."""

    __slots__ = ("_msg", "_reader", "record", "seq")

    def __init__(self, reader: "EventReader", msg: Msg, record: Recorded, seq: int) -> None:
        self.record = record
        self.seq = seq
        """Its place in the stream."""
        self._reader = reader
        self._msg = msg

    async def ack(self) -> None:
        """It is done with."""
        self._reader._settled(self.seq)  # noqa: SLF001 - one thing in two classes
        await _say(self._msg.ack)

    async def nak(self, delay_s: float = 0.0) -> None:
        """Have it delivered again, after `delay_s`; facts behind it may overtake it meanwhile."""
        self._reader._settled(self.seq)  # noqa: SLF001
        await _say(lambda: self._msg.nak(delay=delay_s))

    async def term(self) -> None:
        """Never have it delivered again, though it was not done."""
        self._reader._settled(self.seq)  # noqa: SLF001
        await _say(self._msg.term)

    async def in_progress(self) -> None:
        """Tell the server that it is still being worked on. The reader does so by itself for all it has handed out."""
        await _say(self._msg.in_progress)


async def _say(what: Callable[[], Any]) -> None:
    # An acknowledgement that is lost means one more delivery, which readers must expect anyway.
    with contextlib.suppress(nats.errors.Error):
        await what()


class EventReader:
    """Hands out the stream's facts in order, at least once, from where the last reader of this name stopped.

    One reader of a name reads at a time. A second one stands by until the first has gone (at once when it closes or
    dies, after 10 s when it hangs), so that a roll-out with old and new side by side keeps the order. What a dead
    reader had in hand comes first, after `ack_wait_s`.

    What is handed out stays the reader's, as long as that takes: it is kept from redelivery until it is settled. No
    more than `window` facts are out at a time.

    nats-py's own ``fetch`` is not used: with heart-beats it waits for a full batch, and it may stop for good after a
    server restart (https://github.com/nats-io/nats.py/issues/504).
    """

    def __init__(self, bus: HasControl, durable: str, *, window: int = 256, ack_wait_s: float = 10.0) -> None:
        self.trouble: str | None = "the stream was not reached yet"
        """Why nothing can be read, or None."""
        self.state = "starting"
        self.lag = 0
        """Facts in the stream that are not settled, as of a few seconds ago."""
        self.counts: Counter[str] = Counter()
        self._bus = bus
        self._durable = durable
        self._window = window
        self._ack_wait_s = ack_wait_s
        self._held: dict[int, Delivery] = {}
        self._fresh: list[Delivery] = []
        self._ready: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._wake = asyncio.Event()
        self._inbox: Subscription | None = None
        self._asked = 0
        self._asked_at = 0.0
        self._heard_at = 0.0
        self._lost = ""
        self._reconnects = 0
        self._closed = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to read. Returns at once; where the stream is away, `trouble` says so and it is tried again."""
        for work in (self._read(), self._keep()):
            self._tasks.append(asyncio.create_task(work, name=f"reader {self._durable}"))

    async def take(self, most: int = 1, linger_s: float = 0.0) -> list[Delivery]:
        """Wait for a fact and return it, with those that are there behind it up to `most`. Empty: reader closed.

        Others may come for `linger_s` after the first.
        """
        while not self._ready and not self._closed:
            self._arrived.clear()
            await self._arrived.wait()
            await asyncio.sleep(linger_s)
        if self._closed:
            return []
        return [self._ready.popleft() for _ in range(min(most, len(self._ready)))]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery:
        found = await self.take()
        if not found:
            raise StopAsyncIteration
        return found[0]

    async def behind(self) -> int:
        """Return how many facts are not settled, asked of the server.

        Raises:
            BusUnavailable: it does not say.
        """
        info = await self._info()
        self.lag = (info.num_pending or 0) + (info.num_ack_pending or 0)
        return self.lag

    async def close(self) -> None:
        """Stop, and give back what is in hand, so that the next reader has it at once and in order."""
        self._closed = True
        self._arrived.set()
        await ended(*self._tasks)
        # First close the door, or what is given back comes in through it again; but let in what is on its way.
        if self._inbox is not None:
            with contextlib.suppress(*AWAY):
                await self._inbox.drain()
        for seq in sorted(self._held):
            await self._held[seq].nak()
        with contextlib.suppress(*AWAY):
            await self._bus.control.flush(timeout=1)

    def _settled(self, seq: int) -> None:
        self._held.pop(seq, None)

    async def _read(self) -> None:
        failures = 0
        while not self._closed:
            try:
                await self._bind()
                failures = 0
                await self._recover()
                self.state = "reading"
                while self._fit():
                    await self._pull_and_wait(_EXPIRES_S / 10)
                    self._release()
            except (*AWAY, BusUnavailable) as error:
                failures += 1
                self.state, self.trouble = "away", why(error)
                if failures == 1:
                    log.warning("event stream away", extra={"reader": self._durable, "why": self.trouble})
            await self._unbind()
            if failures:
                await asyncio.sleep(retry_s(failures))

    async def _bind(self) -> None:
        """Return when the consumer exists, nobody else reads it, and its answers can come in."""
        await ensure_events_stream(self._bus)
        jetstream = self._bus.control.jetstream(timeout=API_TIMEOUT_S)
        config = api.ConsumerConfig(
            name=self._durable,
            durable_name=self._durable,
            ack_policy=api.AckPolicy.EXPLICIT,
            deliver_policy=api.DeliverPolicy.ALL,
            ack_wait=self._ack_wait_s,
            max_ack_pending=self._window,
            max_deliver=-1,
        )
        try:
            await jetstream.add_consumer(subjects.EVENTS_STREAM, config)
        except nats.js.errors.BadRequestError:
            # It exists with a configuration that cannot be changed to ours: read it as it is.
            await self._info()
        self.trouble = None
        while (await self._info()).num_waiting:
            if self.state != "standing by":
                self.state = "standing by"
                log.info("another process reads; standing by", extra={"reader": self._durable})
            await asyncio.sleep(_LOOK_S)
        client = self._bus.control
        self._reconnects = client.stats["reconnects"]
        self._asked, self._lost, self._heard_at = 0, "", asyncio.get_running_loop().time()
        self._inbox = await client.subscribe(client.new_inbox(), cb=self._on_message)

    async def _unbind(self) -> None:
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            with contextlib.suppress(*AWAY):
                await inbox.unsubscribe()

    async def _recover(self) -> None:
        """Collect what was handed out before and never settled, so that nothing newer overtakes it.

        The server gives those again when their time is up and meanwhile gives newer ones: both are kept back until all
        that the server counts as handed out is in our hands.
        """
        deadline = asyncio.get_running_loop().time() + 3 * self._ack_wait_s
        while (missing := ((await self._info()).num_ack_pending or 0) - len(self._held)) > 0 and self._fit():
            if self.state != "recovering":
                self.state = "recovering"
                log.info("waiting for unsettled facts", extra={"reader": self._durable, "facts": missing})
            if asyncio.get_running_loop().time() > deadline:
                log.warning("unsettled facts did not come back", extra={"reader": self._durable, "facts": missing})
                break
            await self._pull_and_wait(_LOOK_S)
        self._release()

    def _release(self) -> None:
        if self._fresh:
            self._ready = deque(sorted((*self._ready, *self._fresh), key=lambda delivery: delivery.seq))
            self._fresh.clear()
            self._arrived.set()

    def _fit(self) -> bool:
        """Return whether the binding still stands; silence of the server, or a new connection, ends it."""
        if self._lost:
            raise BusUnavailable(self._lost)
        silent_s = asyncio.get_running_loop().time() - self._heard_at
        return silent_s < _SILENCE_S and self._bus.control.stats["reconnects"] == self._reconnects

    async def _pull_and_wait(self, timeout_s: float) -> None:
        """See to it that a pull request waits on the server (it also tells others that we read); wait for news."""
        now = asyncio.get_running_loop().time()
        if self._asked <= self._window // 2 or now - self._asked_at > _EXPIRES_S / 2:
            self._asked += self._window
            self._asked_at = now
            request = {
                "batch": self._window,
                "expires": int(_EXPIRES_S * _NANO),
                "idle_heartbeat": int(_HEARTBEAT_S * _NANO),
            }
            address = f"$JS.API.CONSUMER.MSG.NEXT.{subjects.EVENTS_STREAM}.{self._durable}"
            inbox = self._inbox.subject if self._inbox else ""
            await self._bus.control.publish(address, json.dumps(request).encode(), reply=inbox)
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()

    async def _on_message(self, msg: Msg) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        status = (msg.headers or {}).get(api.Header.STATUS.value)
        if status == "100":
            return
        if status in {"404", "408"}:
            # The request is over; how much of it was not filled stands in a header.
            self._asked -= int((msg.headers or {}).get("Nats-Pending-Messages", self._asked))
        elif status:
            self._lost = f"{status} {(msg.headers or {}).get(api.Header.DESCRIPTION.value, '')}".strip()
        else:
            self._asked -= 1
            await self._keep_or_refuse(msg)
        self._wake.set()

    async def _keep_or_refuse(self, msg: Msg) -> None:
        seq = msg.metadata.sequence.stream
        held = self._held.get(seq)
        if held is not None:
            held._msg = msg  # noqa: SLF001 - the newest delivery is the one to answer
            return
        try:
            record = read_envelope(msg.data)
        except ValueError as error:
            self.counts["refused"] += 1
            log.warning("no event; skipped", extra={"subject": msg.subject, "seq": seq, "why": str(error)})
            await _say(msg.term)
            return
        delivery = Delivery(self, msg, record, seq)
        self._held[seq] = delivery
        self._fresh.append(delivery)

    async def _keep(self) -> None:
        while not self._closed:
            await asyncio.sleep(self._ack_wait_s / 3)
            for delivery in list(self._held.values()):
                await delivery.in_progress()
            with contextlib.suppress(BusUnavailable):
                await self.behind()

    async def _info(self) -> api.ConsumerInfo:
        try:
            jetstream = self._bus.control.jetstream(timeout=API_TIMEOUT_S)
            info: api.ConsumerInfo = await jetstream.consumer_info(subjects.EVENTS_STREAM, self._durable)
        except AWAY as error:
            raise BusUnavailable(f"no answer about reader {self._durable}: {why(error)}") from error
        return info


async def recorded(
    bus: HasControl, *, call: CallId | None = None, follow: bool = False
) -> AsyncGenerator[Recorded, None]:
    """Yield the stream's facts from its beginning, of one call or of all; with `follow`, those to come as well.

    Raises:
        BusUnavailable: there is no such stream, or no JetStream.
    """
    wanted = f"events.*.{call}" if call else subjects.EVENTS_ALL
    jetstream = bus.control.jetstream(timeout=API_TIMEOUT_S)
    try:
        state = (await jetstream.stream_info(subjects.EVENTS_STREAM, subjects_filter=wanted)).state
        if not follow and not sum((state.subjects or {}).values()):
            return
        source = await jetstream.subscribe(wanted, stream=subjects.EVENTS_STREAM, ordered_consumer=True)
    except AWAY as error:
        raise BusUnavailable(f"no stream {subjects.EVENTS_STREAM}: {why(error)}") from error
    try:
        async for msg in source.messages:
            try:
                yield read_envelope(msg.data)
            except ValueError as error:
                log.warning("no event; skipped", extra={"subject": msg.subject, "why": str(error)})
            if not follow and msg.metadata.num_pending == 0:
                return
    finally:
        with contextlib.suppress(*AWAY):
            await source.unsubscribe()


async def facts_of(bus: HasControl, call: CallId, kind: str) -> list[Event]:
    """Return the stored facts of one kind (``stage.settled``) of one call, in order. Costs a request for each.

    Raises:
        BusUnavailable: JetStream is away, or there is no stream EVENTS.
    """
    jetstream = bus.control.jetstream(timeout=API_TIMEOUT_S)
    found: list[Event] = []
    seq, subject = 1, subjects.event(kind, call)
    try:
        while True:
            try:
                # Asked of the stream's leader: a copy may lag behind, and one fact too few is a wrong bill.
                msg = await jetstream.get_msg(subjects.EVENTS_STREAM, seq=seq, subject=subject, next=True)
            except nats.js.errors.NotFoundError as error:
                if error.err_code != _NO_MESSAGE:
                    raise
                return found
            seq = (msg.seq or 0) + 1
            try:
                found.append(codec.decode(codec.EVENT, msg.data or b""))
            except ValueError as error:
                log.warning("no event; skipped", extra={"subject": subject, "seq": msg.seq, "why": str(error)})
    except AWAY as error:
        raise BusUnavailable(f"no stream {subjects.EVENTS_STREAM}: {why(error)}") from error
