"""Ends the calls that nobody has: their edge died, and their caller did not come back.

Every edge runs one; whoever writes the record's end first tells the facts, and only they. What counts is what this
edge has seen itself, over an undisturbed connection: clocks of other machines do not, and whoever has just come back
from an outage knows nothing yet. It hangs nobody up: a call that is reaped has no line any more.
"""

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Final, Literal, NamedTuple

import msgspec

from trunkline.bus import BusUnavailable, CallStore, EventLog, Outdated, ended, facts_of
from trunkline.bus.streams import HasControl
from trunkline.edge.bill import Bill
from trunkline.edge.keeping import concluded
from trunkline.proto import codec
from trunkline.proto.errors import BadMessage
from trunkline.proto.events import CallBilled, CallEnded, StageSettled
from trunkline.proto.ids import CallId, WorkerId
from trunkline.proto.records import CallRecord, brain_key, edge_key
from trunkline.runtime.clock import Clock

log = logging.getLogger("trunkline.edge.reaper")

PERIOD_S: Final = 5.0
PATIENCE_S: Final = 15.0
"""How long a caller has to come back before their call is over."""
FORGET_S: Final = 600.0
"""How long the record of a call that is over is kept: whoever still believes the call is theirs finds it then."""
MOST_A_SWEEP: Final = 100
EDGE_LOST: Final = "edge-lost"
_JITTER: Final = 0.2
_LATE: Final = 3
"""A sweep later than so many periods: this process was held up itself, and has missed what others did."""

State = Literal["live", "away", "ended"]
Verdict = Literal["reap", "settle", "forget"]


class Glance(msgspec.Struct, frozen=True):
    """As much of a `CallRecord` as nearly always is enough: most of the rest is the agent."""

    call: CallId
    state: State
    edge: WorkerId


_GLANCE: Final = msgspec.json.Decoder(Glance)


class Sightings:
    """Since when each record stands as it is, and since when each edge is silent. Pure."""

    def __init__(self) -> None:
        self._unchanged: dict[str, tuple[int, float]] = {}
        self._silent: dict[WorkerId, float] = {}

    def unchanged_s(self, key: str, revision: int, at: float) -> float:
        """Take note that `key` stands at `revision`; return for how long it is known to."""
        seen = self._unchanged.get(key)
        if seen is None or seen[0] != revision:
            seen = self._unchanged[key] = revision, at
        return at - seen[1]

    def silent_s(self, edge: WorkerId, *, alive: bool, at: float) -> float:
        """Take note whether `edge` is `alive`; return for how long it is known not to be."""
        if alive:
            self._silent.pop(edge, None)
            return 0.0
        return at - self._silent.setdefault(edge, at)

    def retain(self, keys: Collection[str], edges: Collection[WorkerId]) -> None:
        """Forget all other keys and edges."""
        self._unchanged = {key: seen for key, seen in self._unchanged.items() if key in keys}
        self._silent = {edge: since for edge, since in self._silent.items() if edge in edges}

    def clear(self) -> None:
        """Forget everything: from now on it is seen for the first time."""
        self._unchanged.clear()
        self._silent.clear()


def judge(state: State, unchanged_s: float, silent_s: float) -> Verdict | None:
    """Return what is to be done with a call whose record has stood so long, and whose edge is silent for so long."""
    orphaned = min(unchanged_s, silent_s) >= PATIENCE_S
    match state:
        case "live" if orphaned:
            return "reap"
        case "away" if unchanged_s >= PATIENCE_S:
            return "reap"
        case "ended" if orphaned:
            return "settle"
        case "ended" if unchanged_s >= FORGET_S:
            return "forget"
    return None


def bill_of(record: CallRecord, settled: Collection[StageSettled]) -> CallBilled | None:
    """Return the bill of a call whose edge cannot write it; None when no provider was used.

    It is complete when every worker has told its last: to the edge, before that gave the call away, or as a fact.
    """
    bill = Bill(None)
    for used in (*record.used, *(used for fact in settled for used in fact.used)):
        bill.take(used)
    told = {(fact.stage, fact.epoch) for fact in settled}
    all_told = all(any(by == stage and at >= epoch for by, at in told) for stage, epoch in record.epochs.items())
    bill.complete = record.bill_complete and (record.state == "away" or all_told)
    return bill.fact()


class _Found(NamedTuple):
    record: CallRecord
    revision: int
    verdict: Verdict


class Reaper:
    """One edge's.

    Args:
        store: where the records are.
        bus: where the facts of `StageSettled` are.
        events: takes the facts of the end.
        edge: this one.
        alive: whether a process has been heard of lately.
        ours: whether a call is live at this edge.
        clock: monotonic seconds for what is seen, wall-clock seconds for records.
    """

    def __init__(
        self,
        store: CallStore,
        bus: HasControl,
        events: EventLog,
        edge: WorkerId,
        *,
        alive: Callable[[WorkerId], bool],
        ours: Callable[[CallId], bool],
        clock: Clock,
    ) -> None:
        self.counts: Final[Counter[str]] = Counter()
        """``reaped``, ``settled`` (an end that its edge had not told), ``forgotten``, ``outrun``, ``unreadable``,
        ``sweeps`` and ``sweeps_failed``."""
        self._store = store
        self._bus = bus
        self._events = events
        self._edge = edge
        self._alive = alive
        self._ours = ours
        self._clock = clock
        self._sightings = Sightings()
        self._owed: dict[CallId, CallRecord] = {}
        self._connection = -1
        self._swept_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look, one period from now."""
        self._task = asyncio.create_task(self._sweep_all(), name="reaper")

    async def stop(self) -> None:
        """Look no more. What is owed is told by another edge."""
        if self._task is not None:
            await ended(self._task)

    async def sweep(self) -> None:
        """Look at every record once, and do what is to be done.

        Raises:
            BusUnavailable: JetStream is away. Everything is seen for the first time again.
        """
        try:
            self._look_to_ourselves()
            for record in list(self._owed.values()):
                await self._tell_end(record)
            found = await self._look()
            for call, each in found.items():
                if not self._undisturbed:
                    return
                await self._deal(call, each)
        except BusUnavailable:
            self._sightings.clear()
            raise

    async def _sweep_all(self) -> None:
        failing = False
        while True:
            await asyncio.sleep(PERIOD_S * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311 - no secret
            try:
                await self.sweep()
                self.counts["sweeps"] += 1
                failing = False
            except Exception as error:
                self.counts["sweeps_failed"] += 1
                if not isinstance(error, BusUnavailable):
                    log.exception("records were not looked at")
                elif not failing:
                    log.warning("records cannot be looked at", extra={"problem": str(error)})
                failing = True

    @property
    def _undisturbed(self) -> bool:
        return self._bus.control.is_connected and self._bus.control.stats["reconnects"] == self._connection

    def _look_to_ourselves(self) -> None:
        """Forget what was seen if this process was cut off, or held up, since."""
        at = self._clock.monotonic()
        if not self._undisturbed or at - self._swept_at > _LATE * PERIOD_S:
            self._sightings.clear()
        self._connection = self._bus.control.stats["reconnects"]
        self._swept_at = at
        if not self._bus.control.is_connected:
            raise BusUnavailable("not connected to NATS")

    async def _look(self) -> Mapping[CallId, _Found]:
        """Return what is to be done, `MOST_A_SWEEP` calls at most; those that are to be forgotten last."""
        found: dict[CallId, _Found] = {}
        stale: dict[CallId, _Found] = {}
        keys, edges = set(), set()
        async for key, stored in self._store.all(".edge"):
            try:
                glance = codec.decode(_GLANCE, stored.data)
                keys.add(key)
                edges.add(glance.edge)
                if (verdict := self._verdict(key, stored.revision, glance)) is not None:
                    record = codec.decode(codec.RECORD, stored.data)
                    (stale if verdict == "forget" else found)[record.call] = _Found(record, stored.revision, verdict)
            except BadMessage:
                self.counts["unreadable"] += 1
        self._sightings.retain(keys, edges)
        return dict([*found.items(), *stale.items()][:MOST_A_SWEEP])

    def _verdict(self, key: str, revision: int, glance: Glance) -> Verdict | None:
        if self._ours(glance.call) or glance.call in self._owed:
            return None
        at = self._clock.monotonic()
        unchanged_s = self._sightings.unchanged_s(key, revision, at)
        # A call of this edge that is not here any more has left a record behind: its end could not be written.
        there = glance.state == "ended" if glance.edge == self._edge else self._alive(glance.edge)
        return judge(glance.state, unchanged_s, self._sightings.silent_s(glance.edge, alive=there, at=at))

    async def _deal(self, call: CallId, found: _Found) -> None:
        record = found.record
        if found.verdict == "forget":
            await self._store.delete(edge_key(call))
            await self._store.delete(brain_key(call))
            self.counts["forgotten"] += 1
            return
        if self._ours(call):
            return  # its caller has come back meanwhile
        reason = EDGE_LOST if record.state == "live" else record.reason or EDGE_LOST
        ended = msgspec.structs.replace(concluded(record), edge=self._edge, reason=reason)
        try:
            await self._store.put(edge_key(call), codec.encode(ended), found.revision)
        except Outdated:
            self.counts["outrun"] += 1
            return
        # From here on the facts are ours to tell. Should this process die first, the next reaper finds an ended call of
        # a silent edge.
        self._owed[call] = msgspec.structs.replace(record, reason=reason)
        await self._tell_end(self._owed[call])

    async def _tell_end(self, record: CallRecord) -> None:
        """Emit the bill and the end of a call whose record we have ended, unless they are stored already."""
        call = record.call
        told = await facts_of(self._bus, call, "call.ended")
        if not told:
            events = await facts_of(self._bus, call, "stage.settled")
            bill = bill_of(record, [event.fact for event in events if isinstance(event.fact, StageSettled)])
            if bill is not None:
                self._events.emit(call, bill, record.tenant)
            ended = CallEnded(
                reason=record.reason,
                duration_s=round(max(0.0, record.written_at - record.started_at), 3),
                frames_in=record.frames_in,
                audio_ms_out=record.audio_ms_out,
            )
            self._events.emit(call, ended, record.tenant)
            self.counts["settled" if record.state == "ended" else "reaped"] += 1
            log.warning(
                "call that nobody had is ended",
                extra={
                    "call": call,
                    "reason": record.reason,
                    "was": record.state,
                    "edge": record.edge,
                    "duration_s": ended.duration_s,
                    "usd": bill.usd if bill else 0.0,
                    "complete": bill.complete if bill else record.bill_complete,
                },
            )
        self._owed.pop(call, None)
        with contextlib.suppress(BusUnavailable):
            await self._store.delete(brain_key(call))
