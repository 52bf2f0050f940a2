"""A stage's process on the bus: it claims calls while it has room, and lets them go.

A claim is a request to the stage's queue group. The server picks a member blindly, so a worker without room leaves the
group: when all are full or gone the edge knows at once, because nobody listens. A call that reaches a worker which has
just filled up is refused, and the edge asks again.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, Protocol
from weakref import WeakValueDictionary

from trunkline.bus.connection import Bus, Subscription
from trunkline.bus.errors import BusTimeout, BusUnavailable, NoWorker, Unservable
from trunkline.bus.heartbeat import Heartbeat
from trunkline.proto import codec, subjects
from trunkline.proto.errors import BadMessage
from trunkline.proto.ids import CallId, Stage, WorkerId
from trunkline.proto.messages import Claim, Claimed, ClaimReply, Holds, Refused, Released

log = logging.getLogger("trunkline.bus.worker")

ORPHAN_S: Final = 2.0
"""A call whose edge was silent for so long is let go: nobody is left who could hear it."""
_CHECK_S: Final = 0.5
RECONCILE_S: Final = 2.0


class CallSession(Protocol):
    """What a worker does for one call."""

    async def close(self, reason: str) -> None:
        """Let the call go: stop everything, publish what is owed, forget it."""
        ...


OpenCall = Callable[[Claim], Awaitable[CallSession]]


class _Held:
    """A call this worker serves."""

    def __init__(self, claim: Claim, session: CallSession) -> None:
        self.claim = claim
        self.session = session


class Worker:
    """Claims, capacity, releases, heartbeats and orphans of one process.

    `open_call` must have subscribed to everything the call needs when it returns, because the edge speaks to it the
    moment it is claimed; it raises `Unservable` to refuse.
    """

    def __init__(self, bus: Bus, *, stage: Stage, worker: WorkerId, capacity: int, open_call: OpenCall) -> None:
        self.worker = worker
        self.capacity = capacity
        self.counts: Counter[str] = Counter()
        self._bus = bus
        self._stage = stage
        self._open_call = open_call
        self._held: dict[CallId, _Held] = {}
        self._closing: dict[CallId, asyncio.Task[None]] = {}
        self._claiming: WeakValueDictionary[CallId, asyncio.Lock] = WeakValueDictionary()
        self._opening = 0
        self._draining = False
        self._group: Subscription | None = None
        self._membership = asyncio.Lock()
        self._empty = asyncio.Event()
        self._empty.set()
        self._edge_heard: dict[WorkerId, float] = {}
        self._edges: set[WorkerId] = set()
        """Edges that may think that a call of theirs is here."""
        self._tasks: list[asyncio.Task[None]] = []
        self._heartbeat = Heartbeat(bus, stage=stage, worker=worker, calls=lambda: len(self._held), capacity=capacity)

    @property
    def calls(self) -> int:
        """How many calls are held."""
        return len(self._held)

    def sessions(self) -> list[tuple[CallId, CallSession]]:
        """Return the calls held and what serves them."""
        return [(call, held.session) for call, held in self._held.items()]

    async def start(self) -> None:
        """Listen for releases and edges, beat, and join the queue group."""
        await self._bus.serve(subjects.release(self.worker), self._on_release)
        await self._bus.subscribe(subjects.alive_of("edge"), self._on_edge_alive)
        self._heartbeat.start()
        self._tasks.append(asyncio.create_task(self._find_orphans(), name="orphans"))
        self._tasks.append(asyncio.create_task(self._reconcile(), name="reconcile"))
        await self._settle_membership()
        await self._bus.flush()

    async def drain(self) -> None:
        """Leave the group and wait until the last call is gone."""
        self._draining = self._heartbeat.draining = True
        await self._settle_membership()
        await self._empty.wait()

    async def stop(self) -> None:
        """Let every call go, all at once, and fall silent."""
        self._draining = True
        await self._settle_membership()
        calls = [*self._held, *self._closing]
        await asyncio.gather(*(self._let_go(call, "worker-stopped") for call in calls), return_exceptions=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._heartbeat.stop()

    async def _settle_membership(self) -> None:
        """Be in the group exactly while there is room. Serialised, because joining and leaving take a round trip."""
        async with self._membership:
            wanted = not self._draining and len(self._held) + self._opening < self.capacity
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
        if self._draining or (held is None and len(self._held) + self._opening >= self.capacity):
            return self._refuse(claim, "draining" if self._draining else "full", retry=True)
        self._opening += 1
        self._note_empty()
        try:
            await self._let_go(claim.call, "claimed-again")
            self._edge_heard.setdefault(claim.edge, asyncio.get_running_loop().time())
            self._edges.add(claim.edge)
            session = await self._open_call(claim)
            self._held[claim.call] = _Held(claim, session)
        except Unservable as error:
            return self._refuse(claim, error.reason, retry=error.retry)
        except Exception:
            log.exception("call not opened", extra={"call": claim.call})
            return self._refuse(claim, f"{self._stage} failed to open the call", retry=True)
        finally:
            self._opening -= 1
            self._note_empty()
            await self._settle_membership()
        self.counts["claims_accepted"] += 1
        log.info("call claimed", extra={"call": claim.call, "epoch": claim.epoch, "agent": claim.agent.name})
        return Claimed(worker=self.worker, free=self.capacity - len(self._held))

    def _refuse(self, claim: Claim, reason: str, *, retry: bool) -> Refused:
        self.counts["claims_refused"] += 1
        log.warning("claim refused", extra={"call": claim.call, "reason": reason, "retry": retry})
        return Refused(worker=self.worker, reason=reason, retry=retry)

    async def _on_release(self, data: bytes) -> Released:
        release = codec.decode(codec.RELEASE, data)
        held = self._held.get(release.call)
        known = held.claim.epoch <= release.epoch if held is not None else release.call in self._closing
        if known:
            await self._let_go(release.call, release.reason)
        return Released(known=known)

    async def _let_go(self, call: CallId, reason: str) -> None:
        """Close what is held of a call; return when it is closed, whoever began it. Cancelling does not undo it."""
        closing = self._begin_closing(call, reason)
        if closing is not None:
            await asyncio.shield(closing)

    def _begin_closing(self, call: CallId, reason: str) -> asyncio.Task[None] | None:
        """Close a call in a task of its own: a close may be slow, and must hold up no other."""
        held = self._held.pop(call, None)
        if held is not None:
            closing = asyncio.create_task(self._close(call, held.session, reason), name=f"close {call}")
            self._closing[call] = closing
            closing.add_done_callback(lambda _: self._closed(call))
        return self._closing.get(call)

    async def _close(self, call: CallId, session: CallSession, reason: str) -> None:
        try:
            await session.close(reason)
        except Exception:
            log.exception("call not closed cleanly", extra={"call": call})
        log.info("call let go", extra={"call": call, "reason": reason})
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

    async def _on_edge_alive(self, subject: str, _data: bytes) -> None:
        self._edge_heard[WorkerId(subjects.last_token(subject))] = asyncio.get_running_loop().time()

    async def _find_orphans(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_CHECK_S)
            now = loop.time()
            if not self._bus.connected:
                # Silence says nothing about an edge while we are the deaf one.
                self._edge_heard = dict.fromkeys(self._edge_heard, now)
                continue
            edges = {held.claim.edge for held in self._held.values()}
            self._edge_heard = {edge: self._edge_heard.get(edge, now) for edge in edges}
            gone = {edge for edge, heard in self._edge_heard.items() if now - heard > ORPHAN_S}
            for call in [call for call, held in self._held.items() if held.claim.edge in gone]:
                self.counts["orphans"] += 1
                self._begin_closing(call, "edge-lost")

    async def _reconcile(self) -> None:
        """Compare notes with every edge now and then: a release, or a whole outage, may have passed one side by."""
        while True:
            await asyncio.sleep(RECONCILE_S)
            for edge in list(self._edges):
                with contextlib.suppress(BusTimeout, BusUnavailable, BadMessage):
                    await self._compare(edge)

    async def _compare(self, edge: WorkerId) -> None:
        ours = {call: held.claim.epoch for call, held in self._held.items() if held.claim.edge == edge}
        holds = Holds(worker=self.worker, stage=self._stage, calls=tuple(ours.items()))
        try:
            answer = codec.decode(codec.DISOWNED, await self._bus.request(subjects.holds(edge), holds, timeout_s=1.0))
        except NoWorker:
            # The edge is gone, and so are its calls; `_find_orphans` sees to that.
            if not ours:
                self._edges.discard(edge)
            return
        for call in answer.calls:
            held = self._held.get(call)
            if held is not None and held.claim.epoch == ours.get(call):
                self.counts["disowned"] += 1
                self._begin_closing(call, "disowned")
