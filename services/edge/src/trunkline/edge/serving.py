"""The workers of one call, as long as it lives: found, lost, found again, relieved.

It decides when somebody else is asked; whom, and in which epoch, is the business of `Assignments`; what a change means
for the call's audio and for what is told to whom is the call's own (`Served`).
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Coroutine
from typing import Final, Protocol

from trunkline.bus import Bus, BusError
from trunkline.edge.assign import Assignments, Held
from trunkline.edge.errors import NoStageWorker
from trunkline.proto import subjects
from trunkline.proto.ids import STAGES, CallId, Epoch, Stage, WorkerId
from trunkline.proto.messages import Assigned, HandOver
from trunkline.runtime.clock import Clock

log = logging.getLogger("trunkline.edge.serving")

JUST_BACK_S: Final = 2.0
"""A bus that has not stood for so long: workers may still be on their way back."""
JUST_ASSIGNED_S: Final = 1.0
"""What a worker says of its calls may have been written before it took the newest."""


class Served(Protocol):
    """The call."""

    async def taken(self, stage: Stage, held: Held) -> None:
        """Somebody serves `stage` from now on."""
        ...

    def lost(self, stage: Stage, held: Held, reason: str) -> None:
        """Whoever served `stage` is gone; another is being looked for."""
        ...

    async def deserted(self, stage: Stage) -> None:
        """Nobody serves `stage`, and nobody will."""
        ...

    async def waiting(self, stage: Stage) -> None:
        """Bridge the time until somebody serves `stage` again; cancelled then."""
        ...


class Serving:
    """Who serves one call.

    Args:
        call: whose workers.
        bus: where the changes are told.
        assignments: theirs.
        clock: for how long they have it.
        patience_s: for how long another worker is looked for when one is lost.
        served: the call.
        spawn: runs work as long as the call lives.
    """

    def __init__(
        self,
        call: CallId,
        bus: Bus,
        assignments: Assignments,
        clock: Clock,
        patience_s: float,
        served: Served,
        spawn: Callable[[Coroutine[None, None, None]], None],
    ) -> None:
        self._call = call
        self._bus = bus
        self._assignments = assignments
        self._clock = clock
        self._patience_s = patience_s
        self._served = served
        self._spawn = spawn
        self._was_served = any(assignments.epochs.values())
        self._changing: set[Stage] = set()
        self.began = False
        """Whether everybody has been there once."""
        self.listening: Final = asyncio.Event()
        """Set while there is a brain to tell things to."""

    async def begin(self) -> None:
        """Find everybody; whoever speaks first is asked last."""
        first: tuple[Stage, ...] = ("stt", "tts")
        if all(await asyncio.gather(*(self._find(stage) for stage in first))) and await self._find("brain"):
            self.began = True

    def on_lost(self, workers: frozenset[WorkerId], reason: str) -> None:
        """Take note that `workers` are gone: have what they did be done by others."""
        for stage in STAGES:
            held = self._assignments.held(stage)
            if held is not None and held.worker in workers:
                self.replace(stage, reason)

    def replace(self, stage: Stage, reason: str) -> None:
        """Give up whoever serves `stage` and find somebody else."""
        if stage not in self._changing:
            self._changing.add(stage)
            self._spawn(self._replace(stage, reason))

    async def hand_over(self, order: HandOver) -> str:
        """Have somebody else serve a stage whose worker wants to stop; return why not, or ``""``."""
        stage, held = order.stage, self._assignments.held(order.stage)
        if held is None or (held.worker, held.epoch) != (order.worker, order.epoch):
            return ""  # it is somebody else's already, and a release is on its way
        if not self.began or stage in self._changing:
            return "the call is just being taken"
        if not self._assignments.candidates(stage, order.worker):
            return "nobody else is there"
        self._changing.add(stage)
        try:
            await self._find(stage, without=order.worker)
        finally:
            self._changing.discard(stage)
        self._assignments.relieve(held)
        return ""

    def held(self, stage: Stage) -> Held | None:
        """Return who serves `stage` now."""
        return self._assignments.held(stage)

    @property
    def all_held(self) -> Collection[Held]:
        """Who serves the call now."""
        return self._assignments.all_held

    def disowns(self, stage: Stage, worker: WorkerId, epoch: Epoch) -> bool:
        """Tell whether `worker`, which holds this call for `stage`, should not. It may just be being claimed."""
        held = self._assignments.held(stage)
        return epoch < self._assignments.epoch(stage) or (held is not None and held.worker != worker)

    def misses(self, stage: Stage, worker: WorkerId) -> bool:
        """Tell whether `worker`, which does not hold this call, has had it for `stage` for longer than a moment."""
        held = self._assignments.held(stage)
        return held is not None and held.worker == worker and self._clock.monotonic() - held.at > JUST_ASSIGNED_S

    async def _replace(self, stage: Stage, reason: str) -> None:
        try:
            held = self._assignments.drop(stage, reason)
            if held is not None:
                if stage == "brain":
                    self.listening.clear()
                log.warning(
                    "worker lost", extra={"call": self._call, "stage": stage, "worker": held.worker, "why": reason}
                )
                self._served.lost(stage, held, reason)
                await self._find(stage)
        finally:
            self._changing.discard(stage)

    @property
    def goes_on(self) -> bool:
        """Whether the call was served before, here or on another line: it is not given up as soon as a new one."""
        return self.began or self._was_served

    @property
    def _patience(self) -> float:
        """How long somebody may be looked for: who calls while all is well need not wait to be told that it is not."""
        if self.goes_on:
            return self._patience_s
        just_back = self._bus.breaks > 0 and not self._bus.settled(JUST_BACK_S)
        return min(JUST_BACK_S, self._patience_s) if just_back else 0.0

    async def _find(self, stage: Stage, without: WorkerId | None = None) -> bool:
        """Find a worker and hand it the call; without one the call ends. Return whether there is one."""
        bridging = asyncio.create_task(self._served.waiting(stage)) if self.goes_on else None
        try:
            held = await self._assignments.claim(stage, self._patience, without)
        except NoStageWorker as error:
            log.warning("no worker for the call", extra={"call": self._call, "stage": stage, "why": error.why})
            held = None
        finally:
            if bridging is not None:
                bridging.cancel()
                await asyncio.gather(bridging, return_exceptions=True)
        if held is None:
            await self._served.deserted(stage)
            return False
        with contextlib.suppress(BusError):
            assigned = Assigned(stage=stage, epoch=held.epoch, worker=held.worker)
            await self._bus.publish(subjects.assigned(self._call), assigned)
        await self._served.taken(stage, held)
        if stage == "brain":
            self.listening.set()
        return True
