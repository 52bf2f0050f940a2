"""Storing facts without waiting for it: the writing side of the stream EVENTS."""

import asyncio
import contextlib
import heapq
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

import nats.errors
import nats.js.errors
from nats.js import api

from trunkline.bus.beginnings import Beginnings
from trunkline.bus.ending import ended
from trunkline.bus.streams import HasControl, ensure_events_stream, retry_s, why
from trunkline.proto import codec, subjects
from trunkline.proto.events import CallEnded, CallStarted, Event, Fact, kind_of
from trunkline.proto.ids import CallId, new_event_id

log = logging.getLogger("trunkline.bus.event_log")

SETTLED_S: Final = 8.0
"""How long to wait for facts to be stored: longer than JetStream takes to elect a leader."""
_PUBLISH_TIMEOUT_S: Final = 1.0
_FORGOTTEN: Final = 1_024


class _Entry(NamedTuple):
    number: int
    call: CallId
    subject: str
    id: str
    data: bytes
    is_end: bool
    """Whether it is a call's start or end, which are never given up."""


async def _at_once() -> None:
    return None


class EventLog:
    """Stores facts in the order in which they are emitted, however long JetStream is away.

    Up to `limit` facts wait in memory. Beyond it the oldest are given up and counted, never the start and the end of a
    call: records and bills hang on those. What happens in a call waits until its beginning is in the stream, whoever
    stores that. Where the stream has to be made, `replicas` servers keep it.

    Make it inside a running loop.
    """

    def __init__(self, bus: HasControl, wall: Callable[[], float], *, limit: int = 10_000, replicas: int = 1) -> None:
        self.dropped = 0
        """Facts given up since the start."""
        self.stored = 0
        self._bus = bus
        self._wall = wall
        self._limit = limit
        self._replicas = replicas
        self._newest = -1
        self._ends: deque[_Entry] = deque()
        self._others: deque[_Entry] = deque()
        self._begun = Beginnings(bus)
        self._early: dict[CallId, list[_Entry]] = {}
        self._seeking: dict[CallId, asyncio.Task[None]] = {}
        self._forgotten: dict[CallId, None] = {}
        self._sure: Callable[[], Awaitable[None]] = _at_once
        self._current: _Entry | None = None
        self._full = False
        self._stream_made = False
        self._closed = False
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._settled = asyncio.Condition()
        self._task = asyncio.create_task(self._store_all(), name="event-log")

    @property
    def pending(self) -> int:
        """How many facts are not stored yet."""
        early = sum(map(len, self._early.values()))
        return len(self._ends) + len(self._others) + early + (self._current is not None)

    @property
    def counts(self) -> Mapping[str, int]:
        """What became of facts since the start: ``stored`` and ``dropped``."""
        return {"stored": self.stored, "dropped": self.dropped}

    def emit(self, call: CallId, fact: Fact, tenant: str = "default") -> None:
        """Have `fact` stored. Returns at once and never raises."""
        try:
            kind = kind_of(fact)
            event = Event(id=new_event_id(), call=call, wall_at=self._wall(), fact=fact, tenant=tenant)
            is_end = isinstance(fact, CallStarted | CallEnded)
            entry = _Entry(self._newest + 1, call, subjects.event(kind, call), event.id, codec.encode(event), is_end)
        except Exception:
            self.dropped += 1
            log.exception("fact refused", extra={"call": call})
            return
        if self._closed:
            self.dropped += 1
            log.warning("fact after the end of the log", extra={"call": call, "kind": kind})
            return
        if call in self._forgotten:
            return
        self._newest = entry.number
        self._begun.note(call, fact)
        (self._ends if is_end else self._others).append(entry)
        if self.pending > self._limit and self._others:
            self._others.popleft()
            self.dropped += 1
            if not self._full:
                self._full = True
                log.error("event log full; giving up the oldest facts", extra={"limit": self._limit})
        self._wake.set()

    def guard(self, sure: Callable[[], Awaitable[None]]) -> None:
        """Store nothing before `sure` has returned: until then the facts may turn out to be somebody else's to tell."""
        self._sure = sure

    def calls_waiting(self) -> set[CallId]:
        """Return the calls of which facts are not stored yet."""
        current = () if self._current is None else (self._current,)
        return {entry.call for entry in (*self._ends, *self._others, *current)} | self._early.keys()

    def forget(self, call: CallId) -> None:
        """Give up what is not stored of a call, and what may come: somebody else has it now."""
        self._forgotten[call] = None
        while len(self._forgotten) > _FORGOTTEN:
            del self._forgotten[next(iter(self._forgotten))]
        for queue in (self._ends, self._others):
            kept = [entry for entry in queue if entry.call != call]
            queue.clear()
            queue.extend(kept)
        self._early.pop(call, None)
        if self._current is not None and self._current.call == call:
            self._current = None

    def remember(self, call: CallId) -> None:
        """Take facts of a call again: it has come back."""
        self._forgotten.pop(call, None)

    async def flush(self, timeout_s: float = SETTLED_S) -> bool:
        """Wait until every fact emitted so far is stored or given up; return whether that was within `timeout_s`.

        What is emitted while this waits is not waited for.
        """
        newest = self._newest
        self._hurry.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._settled:
                await self._settled.wait_for(lambda: not self._waits(newest))
        return not self._waits(newest)

    async def close(self) -> None:
        """Stop. What is not stored by now is lost and logged: flush first."""
        self._closed = True
        await ended(self._task, *self._seeking.values())
        if self.pending:
            log.error("facts lost: the process ends before they were stored", extra={"facts": self.pending})

    async def _store_all(self) -> None:
        while not self._closed:
            self._current = self._next()
            async with self._settled:
                self._settled.notify_all()
            if self._current is None:
                if self._full:
                    self._full = False
                    log.warning("event log empty again", extra={"dropped_so_far": self.dropped})
                await self._wake.wait()
                self._wake.clear()
            elif self._current.call in self._early or not self._begun.known(self._current.call):
                self._put_by(self._current)
            else:
                await self._store(self._current)

    def _put_by(self, entry: _Entry) -> None:
        """Keep `entry` until its call is known to have begun; those of other calls do not wait for it."""
        call = entry.call
        self._early.setdefault(call, []).append(entry)
        if call not in self._seeking:
            seeking = self._seeking[call] = asyncio.create_task(self._begun.seek(call), name=f"beginning {call}")
            seeking.add_done_callback(lambda _: self._bring_back(call))

    def _bring_back(self, call: CallId) -> None:
        del self._seeking[call]
        waited = self._early.pop(call, [])
        self._ends = deque(heapq.merge((entry for entry in waited if entry.is_end), self._ends))
        self._others = deque(heapq.merge((entry for entry in waited if not entry.is_end), self._others))
        self._wake.set()

    def _waits(self, newest: int) -> bool:
        """Whether entry number `newest`, or one before it, is still to be stored. The queues are in order."""
        queues = (self._ends, self._others, *self._early.values())
        heads = (self._current, *(queue[0] for queue in queues if queue))
        return any(entry is not None and entry.number <= newest for entry in heads)

    def _next(self) -> _Entry | None:
        if self._ends and (not self._others or self._ends[0].number < self._others[0].number):
            return self._ends.popleft()
        return self._others.popleft() if self._others else None

    async def _store(self, entry: _Entry) -> None:
        """Return when `entry` is stored, or can never be. One at a time: two in flight could swap places on a retry."""
        attempts = 0
        while not self._closed:
            await self._sure()
            if self._current is None:
                return  # forgotten
            attempts += 1
            try:
                if not self._stream_made:
                    # Not left to the 503 of a missing stream: any plain subscriber to events.> would swallow that.
                    await ensure_events_stream(self._bus, replicas=self._replicas)
                    self._stream_made = True
                headers = {api.Header.MSG_ID.value: entry.id}
                await self._bus.storing.publish(entry.subject, entry.data, headers, _PUBLISH_TIMEOUT_S)
            except (nats.errors.MaxPayloadError, nats.js.errors.BadRequestError) as error:
                self.dropped += 1
                log.error("fact refused", extra={"subject": entry.subject, "why": why(error)})  # noqa: TRY400
                return
            except Exception as error:  # noqa: BLE001 - whatever it was, the facts behind this one must not be stuck
                self._stream_made = False
                if attempts == 1:
                    log.warning("facts cannot be stored; keeping them", extra={"why": why(error)})
                await self._pause(retry_s(attempts))
            else:
                self.stored += 1
                if attempts > 1:
                    log.info("facts are stored again", extra={"attempts": attempts, "waiting": self.pending})
                return

    async def _pause(self, delay_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._hurry.wait()
        self._hurry.clear()
