"""A stage's process on the bus: it claims calls while it has room, and lets them go.

A claim is a request to this worker by name, or to the stage's queue group. The server picks a member of the group
blindly, so a worker without room leaves it: when all are full or gone the edge knows at once, because nobody listens. A
claim that reaches a worker without room is refused, and the edge asks another.

A call is let go when its edge says so, when its edge is gone, and when somebody else has it in a higher epoch. Only in
the second case is nobody left who goes on with it.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, Protocol
from weakref import WeakValueDictionary

from trunkline.bus.connection import Bus, Subscription
from trunkline.bus.edges import EdgeReason, Edges
from trunkline.bus.errors import BusUnavailable, Unservable
from trunkline.bus.event_log import EventLog
from trunkline.bus.handover import HandingOver
from trunkline.bus.heartbeat import PERIOD_S, Heartbeat
from trunkline.bus.strain import Strain
from trunkline.proto import codec, subjects
from trunkline.proto.errors import BadMessage
from trunkline.proto.ids import CallId, Epoch, Stage, WorkerId
from trunkline.proto.messages import Claim, Claimed, ClaimReply, Refused, Released

log = logging.getLogger("trunkline.bus.worker")

OLDEST_CLAIM_S: Final = 5.0
"""Who asked before that has long asked another: the claim lay in a buffer while somebody was away."""


class CallSession(Protocol):
    """What a worker does for one call."""

    async def close(self, reason: str, *, goes_on: bool) -> None:
        """Let the call go: stop everything, publish what is owed, forget it.

        With `goes_on` somebody else serves the call, and what is left to say of it is theirs; without, it is over.
        """
        ...

    async def rest(self) -> None:
        """Return when nothing is half heard, half thought or half said. May be cancelled, and asked again."""
        ...

    def forget(self) -> None:
        """Let go of everything, some seconds after `close`.

        What a call is made of knows it, and is known by it. Taken apart, it is freed at once; left to the collector, it
        would hold up all other calls when that is done.
        """
        ...


_FORGET_S: Final = 5.0

OpenCall = Callable[[Claim], Awaitable[CallSession]]


def _never() -> None:
    return None


class _Held:
    """A call this worker serves."""

    def __init__(self, claim: Claim, session: CallSession) -> None:
        self.claim = claim
        self.session = session
        self.leaving = False
        """Whether somebody else is asked to take it."""
        self.gone = asyncio.Event()


class Worker:
    """Claims, capacity, releases, hand-overs, heartbeats and orphans of one process.

    `open_call` must have subscribed to everything the call needs when it returns, because the edge speaks to it the
    moment it is claimed; it raises `Unservable` to refuse. While `strained` returns a reason, and for a second after,
    no call is taken. With `wall` (seconds since 1970) claims older than `OLDEST_CLAIM_S` are refused.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        stage: Stage,
        worker: WorkerId,
        capacity: int,
        open_call: OpenCall,
        strained: Callable[[], str | None] = _never,
        wall: Callable[[], float] | None = None,
    ) -> None:
        self.worker = worker
        self.capacity = capacity
        self.counts: Counter[str] = Counter()
        self._bus = bus
        self._stage = stage
        self._open_call = open_call
        self._strain = Strain(strained)
        self._wall = wall
        self._held: dict[CallId, _Held] = {}
        self._closing: dict[CallId, asyncio.Task[None]] = {}
        self._claiming: WeakValueDictionary[CallId, asyncio.Lock] = WeakValueDictionary()
        self._opening: dict[CallId, Epoch] = {}
        """Calls being opened, each with the highest epoch in which somebody else has been assigned meanwhile."""
        self._draining = False
        self._stopped = False
        self._group: Subscription | None = None
        self._probe: Subscription | None = None
        self._membership = asyncio.Lock()
        self._empty = asyncio.Event()
        self._empty.set()
        self._edges = Edges(bus, stage, worker, self._claims, self._let_go_for_edge)
        self._events: EventLog | None = None
        self._watch: asyncio.Task[None] | None = None
        self._handing = HandingOver(bus, worker)
        self._leaving: set[asyncio.Task[None]] = set()
        self._heartbeat = Heartbeat(
            bus,
            stage=stage,
            worker=worker,
            calls=lambda: self._taken,
            capacity=capacity,
            room=lambda: self._look() is None,
        )

    @property
    def calls(self) -> int:
        """How many calls are held."""
        return len(self._held)

    @property
    def _taken(self) -> int:
        return len(self._held) + len(self._opening)

    def _claims(self) -> list[Claim]:
        return [held.claim for held in self._held.values()]

    def sessions(self) -> list[tuple[CallId, CallSession]]:
        """Return the calls held and what serves them."""
        return [(call, held.session) for call, held in self._held.items()]

    def session(self, call: CallId) -> CallSession | None:
        """Return what serves a call, if it is held."""
        held = self._held.get(call)
        return held.session if held is not None else None

    async def still_ours(self, claim: Claim) -> bool:
        """Ask the call's edge; return False when it says no, or cannot be asked."""
        return await self._edges.confirm(claim)

    def guard(self, events: EventLog) -> None:
        """Have facts wait while it is not sure that the calls are still held; those of a lost call are dropped."""
        self._events = events
        events.guard(self._edges.doubt.sure)

    async def start(self) -> None:
        """Listen for releases and edges, beat, and join the queue group."""
        await self._bus.serve(subjects.release(self.worker), self._on_release)
        await self._bus.serve(subjects.claim_of(self._stage, self.worker), self._on_claim)
        self._probe = await self._bus.subscribe(subjects.probe(self.worker), _hear_nothing)
        await self._bus.subscribe(subjects.ASSIGNMENTS, self._on_assigned)
        self._heartbeat.start()
        await self._edges.start()
        self._watch = asyncio.create_task(self._watch_strain(), name="strain")
        await self._settle_membership()
        await self._bus.flush()

    async def drain(self) -> None:
        """Take nothing new, hand every call over, and return when the last is gone."""
        self._draining = self._heartbeat.draining = True
        await self._settle_membership()
        for held in self._held.values():
            self._hand_over(held)
        try:
            await self._empty.wait()
        finally:
            for task in self._leaving:
                task.cancel()

    async def stop(self) -> None:
        """Let every call go, all at once, and fall silent. Their edges notice, and find them somebody else."""
        self._draining = self._stopped = self._heartbeat.draining = True
        if self._probe is not None:
            await self._probe.unsubscribe()
        await self._settle_membership()
        calls = [*self._held, *self._closing]
        await asyncio.gather(
            *(self._let_go(call, "worker-stopped", goes_on=True) for call in calls), return_exceptions=True
        )
        if self._watch is not None:
            self._watch.cancel()
        await self._edges.stop()
        await self._heartbeat.stop()

    async def _settle_membership(self) -> None:
        """Be in the group exactly while there is room. Serialised, because joining and leaving take a round trip."""
        async with self._membership:
            wanted = not self._draining and self._look() is None and self._taken < self.capacity
            if wanted and self._group is None:
                self._group = await self._bus.serve(subjects.claim(self._stage), self._on_claim, queue=self._stage)
            elif not wanted and self._group is not None:
                group, self._group = self._group, None
                await group.drain()  # a claim on its way is refused, which is quicker than a time-out

    async def _on_claim(self, data: bytes) -> ClaimReply | None:
        try:
            claim = codec.decode(codec.CLAIM, data)
        except BadMessage as error:
            self.counts["claims_malformed"] += 1
            log.warning("claim refused: malformed", extra={"error": str(error)})
            return Refused(worker=self.worker, reason=f"malformed claim: {error}", retry=False)
        lock = self._claiming.setdefault(claim.call, asyncio.Lock())
        async with lock:
            return await self._take(claim)

    async def _take(self, claim: Claim) -> ClaimReply:
        """Open the call, unless it is held in as high an epoch. One at a time per call: the edge may ask again."""
        held = self._held.get(claim.call)
        if held is not None and held.claim.epoch >= claim.epoch:
            return self._refuse(claim, f"held here already in epoch {held.claim.epoch}", retry=True)
        if self._wall is not None and claim.asked_at and self._wall() - claim.asked_at > OLDEST_CLAIM_S:
            return self._refuse(claim, "too old", retry=False)
        if (problem := self._no_room(again=held is not None)) is not None:
            return self._refuse(claim, problem, retry=True)
        self._opening[claim.call] = Epoch(0)
        self._note_empty()
        try:
            await self._let_go(claim.call, "claimed-again", goes_on=True)
            self._edges.asked(claim.edge)
            if self._events is not None:
                self._events.remember(claim.call)
            held = _Held(claim, await self._open_call(claim))
        except Unservable as error:
            return self._refuse(claim, error.reason, retry=error.retry)
        except Exception:
            log.exception("call not opened", extra={"call": claim.call})
            return self._refuse(claim, f"{self._stage} failed to open the call", retry=True)
        else:
            self._held[claim.call] = held
        finally:
            deposed = self._opening.pop(claim.call) > claim.epoch
            self._note_empty()
            await self._settle_membership()
        if deposed or self._stopped:
            self._begin_closing(claim.call, "deposed" if deposed else "worker-stopped", goes_on=True)
            return self._refuse(claim, "somebody else has it meanwhile" if deposed else "stopped", retry=True)
        if self._draining and not held.gone.is_set():
            self._hand_over(held)
        self.counts["claims_accepted"] += 1
        log.info("call claimed", extra={"call": claim.call, "epoch": claim.epoch, "agent": claim.agent.name})
        return Claimed(worker=self.worker, free=max(0, self.capacity - self._taken))

    def _no_room(self, *, again: bool) -> str | None:
        """Return why no call can be taken; one that is held already (`again`) needs no room."""
        if self._draining:
            return "draining"
        return self._look() or ("full" if not again and self._taken >= self.capacity else None)

    def _look(self) -> str | None:
        return self._strain.look(asyncio.get_running_loop().time())

    async def _watch_strain(self) -> None:
        """Leave the group and join it again as the strain comes and goes."""
        while True:
            await asyncio.sleep(PERIOD_S)
            with contextlib.suppress(BusUnavailable):
                await self._settle_membership()

    def _refuse(self, claim: Claim, reason: str, *, retry: bool) -> Refused:
        self.counts["claims_refused"] += 1
        log.warning("claim refused", extra={"call": claim.call, "reason": reason, "retry": retry})
        return Refused(worker=self.worker, reason=reason, retry=retry)

    async def _on_release(self, data: bytes) -> Released:
        release = codec.decode(codec.RELEASE, data)
        held = self._held.get(release.call)
        known = held.claim.epoch <= release.epoch if held is not None else release.call in self._closing
        if known:
            await self._let_go(release.call, release.reason, goes_on=release.goes_on)
        return Released(known=known)

    def _on_assigned(self, subject: str, data: bytes) -> None:
        assigned = codec.decode(codec.ASSIGNED, data)
        if assigned.stage != self._stage or assigned.worker == self.worker:
            return
        call = CallId(subject.split(".")[1])
        if call in self._opening:
            self._opening[call] = max(self._opening[call], assigned.epoch)
        held = self._held.get(call)
        if held is not None and held.claim.epoch < assigned.epoch:
            if held.leaving:
                self.counts["handed_over"] += 1
                self._begin_closing(call, "handed-over", goes_on=True)
            else:
                self.counts["deposed"] += 1
                self._lose(call, "deposed")

    def _hand_over(self, held: _Held) -> None:
        held.leaving = True
        leaving = asyncio.create_task(
            self._handing.hand_over(held.claim, held.session.rest, held.gone), name=f"hand over {held.claim.call}"
        )
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    async def _let_go(self, call: CallId, reason: str, *, goes_on: bool) -> None:
        """Close what is held of a call; return when it is closed, whoever began it. Cancelling does not undo it."""
        closing = self._begin_closing(call, reason, goes_on=goes_on)
        if closing is not None:
            await asyncio.shield(closing)

    def _begin_closing(self, call: CallId, reason: str, *, goes_on: bool) -> asyncio.Task[None] | None:
        """Close a call in a task of its own: a close may be slow, and must hold up no other."""
        held = self._held.pop(call, None)
        if held is not None:
            held.gone.set()
            closing = asyncio.create_task(
                self._close(call, held.session, reason, goes_on=goes_on), name=f"close {call}"
            )
            self._closing[call] = closing
            closing.add_done_callback(lambda _: self._closed(call))
        return self._closing.get(call)

    async def _close(self, call: CallId, session: CallSession, reason: str, *, goes_on: bool) -> None:
        try:
            await session.close(reason, goes_on=goes_on)
        except Exception:
            log.exception("call not closed cleanly", extra={"call": call})
        log.info("call let go", extra={"call": call, "reason": reason, "goes_on": goes_on})
        asyncio.get_running_loop().call_later(_FORGET_S, session.forget)
        with contextlib.suppress(BusUnavailable):  # closed for good, which ends the process by itself
            await self._settle_membership()

    def _closed(self, call: CallId) -> None:
        del self._closing[call]
        self._note_empty()

    def _note_empty(self) -> None:
        """Let `drain` end exactly when no call is being opened, held or closed."""
        if self._held or self._closing or self._opening:
            self._empty.clear()
        else:
            self._empty.set()

    def _let_go_for_edge(self, claim: Claim, reason: EdgeReason) -> None:
        held = self._held.get(claim.call)
        if held is not None and held.claim is claim:
            self.counts["orphans" if reason == "edge-lost" else reason] += 1
            if reason == "edge-lost":
                self._begin_closing(claim.call, reason, goes_on=False)
            else:
                self._lose(claim.call, reason)

    def _lose(self, call: CallId, reason: str) -> None:
        """Let go of a call that somebody else has got, without a word."""
        if self._events is not None:
            self._events.forget(call)
        self._begin_closing(call, reason, goes_on=True)


def _hear_nothing(_subject: str, _data: bytes) -> None:
    """Take a probe: that somebody subscribes is the answer."""
