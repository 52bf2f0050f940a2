"""The edges whose calls a worker serves: which of them has fallen silent, and which knows nothing of a call any more.

It judges edges only. What becomes of a call is the worker's business. It also knows when the worker cannot be sure that
its calls are still its own: it has hung, or was cut off, and somebody else may have been given them meanwhile.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Final, Literal

from trunkline.bus.connection import Bus
from trunkline.bus.doubt import Doubt
from trunkline.bus.ending import ended
from trunkline.bus.errors import BusTimeout, BusUnavailable, NoWorker
from trunkline.proto import codec, subjects
from trunkline.proto.errors import BadMessage
from trunkline.proto.ids import Stage, WorkerId
from trunkline.proto.messages import Claim, Holds

ORPHAN_S: Final = 2.0
"""A call whose edge was silent for so long is let go: nobody is left who could hear it."""
_CHECK_S: Final = 0.5
RECONCILE_S: Final = 2.0
HUNG_S: Final = 0.4
"""A process that stood still for so long may have been replaced: edges need a little longer to notice."""
_TICK_S: Final = 0.1
_TRIES: Final = 3

EdgeReason = Literal["edge-lost", "disowned"]
LetGo = Callable[[Claim, EdgeReason], None]


class Edges:
    """Watches the edges of the calls `held`, and has those let go that no edge stands behind."""

    def __init__(
        self, bus: Bus, stage: Stage, worker: WorkerId, held: Callable[[], Iterable[Claim]], let_go: LetGo
    ) -> None:
        self._bus = bus
        self._stage = stage
        self._worker = worker
        self._held = held
        self._let_go = let_go
        self._heard: dict[WorkerId, float] = {}
        self._known: set[WorkerId] = set()
        """Edges that may think that a call of theirs is here."""
        self.doubt: Final = Doubt(bus, self._compare_all, _TRIES)
        """Whether the calls held are ours. What edges do not stand behind is let go; who is gone contradicts nobody."""
        self._tasks: list[asyncio.Task[None]] = []

    def asked(self, edge: WorkerId) -> None:
        """`edge` has claimed a call: it lives, and may come to think that the call is here."""
        self._heard.setdefault(edge, asyncio.get_running_loop().time())
        self._known.add(edge)

    async def start(self) -> None:
        """Begin to watch."""
        await self._bus.subscribe(subjects.alive_of("edge"), self._on_alive)
        self._tasks.append(asyncio.create_task(self._find_orphans(), name="orphans"))
        self._tasks.append(asyncio.create_task(self._reconcile(), name="reconcile"))
        self._tasks.append(asyncio.create_task(self._watch_ourselves(), name="hangs"))

    async def stop(self) -> None:
        """Stop watching."""
        await ended(*self._tasks)

    def _on_alive(self, subject: str, _data: bytes) -> None:
        self._heard[WorkerId(subjects.last_token(subject))] = asyncio.get_running_loop().time()

    async def _find_orphans(self) -> None:
        loop = asyncio.get_running_loop()
        checked_at = loop.time()
        while True:
            await asyncio.sleep(_CHECK_S)
            now = loop.time()
            overslept, checked_at = now - checked_at > 2 * _CHECK_S, now
            if overslept or not self._bus.settled(_CHECK_S):
                # Silence says nothing about an edge while we are the deaf one, or were until just now.
                self._heard = dict.fromkeys(self._heard, now)
                continue
            edges = {claim.edge for claim in self._held()}
            self._heard = {edge: self._heard.get(edge, now) for edge in edges}
            gone = {edge for edge, heard in self._heard.items() if now - heard > ORPHAN_S}
            if gone and not await self._heard_ourselves():
                self._heard = dict.fromkeys(self._heard, now)
                continue
            for claim in [claim for claim in self._held() if claim.edge in gone]:
                self._let_go(claim, "edge-lost")

    async def _heard_ourselves(self) -> bool:
        """Return whether the server answers: a line that is dead may look alive for some seconds."""
        try:
            await self._bus.flush(1.0)
        except BusUnavailable:
            return False
        return True

    async def _watch_ourselves(self) -> None:
        """Notice that this process stood still, before it hears what it has missed."""
        loop = asyncio.get_running_loop()
        ticked_at = loop.time()
        while True:
            await asyncio.sleep(_TICK_S)
            now = loop.time()
            if now - ticked_at > HUNG_S:
                self.doubt.hung()
            ticked_at = now

    async def _reconcile(self) -> None:
        """Compare notes with every edge now and then: a release, or a whole outage, may have passed one side by."""
        while True:
            await asyncio.sleep(RECONCILE_S)
            for edge in list(self._known):
                with contextlib.suppress(BusTimeout, BusUnavailable, BadMessage):
                    await self._compare(edge)

    async def confirm(self, claim: Claim) -> bool:
        """Ask the edge of a held call; return whether it answers and does not say that the call is somebody else's.

        An edge that is gone contradicts nobody.
        """
        try:
            await self._compare(claim.edge)
        except (BusTimeout, BusUnavailable, BadMessage):
            return False
        return any(held is claim for held in self._held())

    async def _compare_all(self) -> None:
        for edge in list(self._known):
            await self._compare(edge)

    async def _compare(self, edge: WorkerId) -> None:
        ours = {claim.call: claim for claim in self._held() if claim.edge == edge}
        calls = tuple((call, claim.epoch) for call, claim in ours.items())
        holds = Holds(worker=self._worker, stage=self._stage, calls=calls)
        try:
            answer = codec.decode(codec.DISOWNED, await self._bus.request(subjects.holds(edge), holds, timeout_s=1.0))
        except NoWorker:
            # The edge is gone, and so are its calls; `_find_orphans` sees to that.
            if not ours:
                self._known.discard(edge)
            return
        for call in answer.calls:
            if call in ours:
                self._let_go(ours[call], "disowned")
