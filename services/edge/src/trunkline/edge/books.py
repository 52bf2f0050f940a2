"""What a call leaves behind: its record for whoever goes on with it, its bill, and the facts of its beginning and end.

A call that has come back on a new line goes on in the same books: what the lines before carried is carried over.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from trunkline.edge.bill import Bill
from trunkline.edge.carrier import Started
from trunkline.edge.facilities import Facilities
from trunkline.edge.keeping import Keeping
from trunkline.proto.agent import Agent
from trunkline.proto.events import CallEnded, CallResumed, CallStarted, Fact
from trunkline.proto.ids import CallId, Epoch, Seq, Stage, WorkerId
from trunkline.proto.messages import Used
from trunkline.proto.records import CallRecord

SETTLE_S: Final = 0.3
"""How long the end of a call may wait for its record: without it another edge might take the call up again."""


class Past(NamedTuple):
    """What was before this line: the record as another edge (or this one) left it, and what was made of it."""

    record: CallRecord
    first_seq: Seq
    """Of the frames on this line."""


class Carried(NamedTuple):
    """What this line has carried so far."""

    frames_in: int
    audio_ms_out: int
    next_seq: Seq
    """Of the caller's frames, over all lines."""


def opened(call: CallId, agent: Agent, started: Started, carrier: str, edge: WorkerId, now: float) -> CallRecord:
    """Return the record of a call that begins `now` (seconds since 1970)."""
    return CallRecord(
        call=call,
        state="live",
        edge=edge,
        written_at=now,
        agent=agent,
        carrier=carrier,
        carrier_call=started.carrier_call,
        direction="outbound" if started.parameters.get("direction") == "outbound" else "inbound",
        started_at=now,
    )


class Books:
    """One call's. Make it inside a running loop.

    Args:
        record: as it is from now on (`opened`, or `comeback.reopened`).
        revision: of the record as it is stored; 0 when there is none.
        past: of a call whose caller has come back.
        facilities: the edge's.
        carried: returns what this line has carried so far.
        on_usurped: called once, when another edge has written the record: the call is theirs.
    """

    def __init__(
        self,
        record: CallRecord,
        revision: int,
        past: Past | None,
        facilities: Facilities,
        carried: Callable[[], Carried],
        on_usurped: Callable[[], None],
    ) -> None:
        self._events = facilities.events
        self._metrics = facilities.metrics
        self._wall = facilities.clock.wall
        self._carried = carried
        self._before = past.record if past is not None else None
        self._bill = Bill(record.agent.limits.max_cost_usd)
        for used in record.used:
            self._bill.take(used)
        self._bill.complete = record.bill_complete
        self._keeping = Keeping(facilities.store, record, revision, self._wall, on_usurped)

    @property
    def record(self) -> CallRecord:
        """The record as of the last entry."""
        return self._keeping.record

    @property
    def usurped(self) -> bool:
        """Whether another edge has written the record: what is told of the call's end is theirs."""
        return self._keeping.usurped

    @property
    def age_s(self) -> float:
        """For how long there has been the call, on whatever line."""
        return self._wall() - self.record.started_at

    @property
    def usd(self) -> float:
        """What the call has cost so far."""
        return self._bill.usd

    def emit(self, fact: Fact) -> None:
        """Have `fact` of this call told to the world."""
        self._events.emit(self.record.call, fact)

    def begin(self) -> None:
        """Tell that the call begins, or goes on, here; and write it down."""
        self.emit(self._beginning())
        self._keeping.change()

    def assign(self, epochs: dict[Stage, Epoch]) -> None:
        """Write down which `epochs` the stages have come to."""
        self._keeping.change(epochs=epochs, **self._counts())

    def enter(self, used: Used) -> bool:
        """Enter what a worker has used; return whether with it, for the first time, the call costs what it may."""
        self._bill.take(used)
        self._keeping.change(eager=False, **self._counts())
        return self._bill.exceeded and not self.record.winding_up

    def wind_up(self, reason: str) -> None:
        """Write down that the call is being brought to its end."""
        self._keeping.change(winding_up=reason, **self._counts())

    def lack(self) -> None:
        """Take note that a worker is gone: what it used last it cannot tell."""
        self._bill.complete = False

    async def conclude(self, reason: str) -> None:
        """Write down that the call is over: whoever finds the record does not take it up again."""
        await self._keeping.settle(SETTLE_S, state="ended", reason=reason, **self._counts())

    async def set_aside(self, reason: str, *, planned: bool) -> None:
        """Write down that the call waits for its caller to come back."""
        await self._keeping.settle(SETTLE_S, state="away", reason=reason, planned=planned, **self._counts())

    def tell_end(self, reason: str) -> None:
        """Tell the bill and the end of the call."""
        if (bill := self._bill.fact()) is not None:
            self.emit(bill)
        counts = self._counts()
        ended = CallEnded(
            reason=reason,
            duration_s=round(self.age_s, 3),
            frames_in=counts["frames_in"],
            audio_ms_out=counts["audio_ms_out"],
        )
        self.emit(ended)
        self._metrics.ended[reason] += 1
        self._metrics.traffic["audio_ms_out"] += self._carried().audio_ms_out

    async def aclose(self) -> None:
        """Write nothing any more."""
        await self._keeping.aclose()

    def _beginning(self) -> CallStarted | CallResumed:
        record, before = self.record, self._before
        if before is None:
            return CallStarted(
                agent=record.agent.name,
                carrier=record.carrier,
                carrier_call=record.carrier_call,
                edge=record.edge,
                direction=record.direction,
            )
        away_ms = max(0, round((self._wall() - before.written_at) * 1000))
        return CallResumed(edge=record.edge, before=before.edge, away_ms=away_ms, planned=before.planned)

    def _counts(self) -> dict[str, Any]:
        """Return what this line and those before it have carried, as a `CallRecord` has it."""
        line, before = self._carried(), self._before
        return {
            "frames_in": line.frames_in + (before.frames_in if before else 0),
            "audio_ms_out": line.audio_ms_out + (before.audio_ms_out if before else 0),
            "next_seq": line.next_seq,
            "used": self._bill.totals,
            "bill_complete": self._bill.complete,
        }
