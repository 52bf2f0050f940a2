"""Who serves a call: claims a worker for each stage, numbers the assignments, lets them go.

The edge alone assigns, so the epoch is an integer in its memory. It is raised *before* a worker is asked: from that
moment whatever the last one says is void. Heartbeats tell who lives and has room, so a claim goes to one worker by
name, the freer of two drawn at random; the stage's queue group serves an edge that knows nobody yet, and tells at once
when there is nobody. Whoever refuses or does not answer is not asked again for the same assignment, until all others
have been. A claim that was not answered in time may have been accepted all the same; its late answer is awaited in the
background and the worker let go, so that no worker keeps a call it does not serve.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Coroutine
from typing import Final, Literal, NamedTuple

from trunkline.bus import SETTLED_S, Bus, BusError, BusTimeout, BusUnavailable, NoWorker
from trunkline.edge.errors import NoStageWorker
from trunkline.edge.liveness import Liveness
from trunkline.edge.metrics import EdgeMetrics
from trunkline.proto import codec, subjects
from trunkline.proto.errors import BadMessage
from trunkline.proto.ids import STAGES, CallId, Epoch, Stage, WorkerId
from trunkline.proto.messages import Claim, Claimed, Refused, Release
from trunkline.runtime.clock import Clock

log = logging.getLogger("trunkline.edge.assign")

TRIES: Final = 6
"""Claims for one assignment of a call that begins; one that goes on asks as long as there is time."""
_AGAIN_S: Final = 0.1
"""Between two rounds of asking for a call that goes on."""
_LATE_S: Final = 5.0
"""So long after it was given up, an answer is still taken note of: the worker would keep the call otherwise."""
_RELEASE_S: Final = 2.0 + SETTLED_S
"""How long a worker may take to let a call go and to store its last facts, beside the tools it must wait for."""

MakeClaim = Callable[[Stage, Epoch], Claim]
_NOBODY: Final = "nobody"
_Reply = Claimed | Refused | Literal["nobody"] | None


class Held(NamedTuple):
    """A worker that has the call for a stage."""

    worker: WorkerId
    epoch: Epoch
    claim_ms: float
    at: float
    """When it took the call, monotonic seconds."""


class Pool(NamedTuple):
    """Where workers are asked for, and on whose behalf."""

    bus: Bus
    liveness: Liveness
    clock: Clock
    metrics: EdgeMetrics
    timeout_s: float


class Assignments:
    """The workers of one call.

    Args:
        pool: see there.
        call: whose.
        make: returns the claim for a stage, in an epoch, as things are.
        longest_tool_s: how long a tool may run on when the caller has hung up; its facts come before the call's last.
        epochs: those the stages have had already, when the call comes from another edge.
    """

    def __init__(
        self, pool: Pool, call: CallId, make: MakeClaim, longest_tool_s: float, epochs: dict[Stage, Epoch] | None = None
    ) -> None:
        self._pool = pool
        self._call = call
        self._make = make
        self._release_s = _RELEASE_S + longest_tool_s
        self._epochs: dict[Stage, Epoch] = dict.fromkeys(STAGES, Epoch(0)) | (epochs or {})
        self._held: dict[Stage, Held] = {}
        self._asking: set[asyncio.Task[bytes]] = set()
        self._releasing: set[asyncio.Task[object]] = set()

    @property
    def epochs(self) -> dict[Stage, Epoch]:
        """The highest epoch of each stage."""
        return dict(self._epochs)

    def epoch(self, stage: Stage) -> Epoch:
        """Return the epoch below which messages of `stage` are void."""
        return self._epochs[stage]

    def held(self, stage: Stage) -> Held | None:
        """Return who serves `stage` now."""
        return self._held.get(stage)

    @property
    def all_held(self) -> Collection[Held]:
        """Who serves a stage now."""
        return self._held.values()

    async def claim(self, stage: Stage, patience_s: float = 0.0, without: WorkerId | None = None) -> Held:
        """Find a worker for `stage`, in a new epoch; but not `without`.

        Args:
            stage: of the pipeline.
            patience_s: for how long to ask again while there is nobody.
            without: who gives the call away.

        Raises:
            NoStageWorker: nobody took it in that time, or a worker says that none can serve it.
        """
        pool = self._pool
        begun = pool.clock.monotonic()
        self._held.pop(stage, None)
        avoided = set() if without is None else {without}
        asked: set[WorkerId] = set()
        why, tries = "", 0
        while True:
            worker = self._choose(stage, asked | avoided)
            tries += 1
            epoch = self._epochs[stage] = Epoch(self._epochs[stage] + 1)
            subject = subjects.claim(stage) if worker is None else subjects.claim_of(stage, worker)
            reply, why = await self._try(stage, epoch, subject)
            if isinstance(reply, Claimed):
                taken_s = pool.clock.monotonic() - begun
                pool.metrics.claims[f"{stage}_claimed"] += 1
                pool.metrics.claim_seconds.labels(stage).observe(taken_s)
                pool.liveness.expect(reply.worker)
                held = self._held[stage] = Held(reply.worker, epoch, taken_s * 1000, begun + taken_s)
                return held
            if isinstance(reply, Refused) and not reply.retry:
                raise NoStageWorker(stage, why)
            patient = pool.clock.monotonic() - begun < patience_s
            if not patient and (reply is _NOBODY or tries >= TRIES):
                raise NoStageWorker(stage, why)
            if worker is not None:
                asked.add(worker)
            else:
                asked.clear()
                await asyncio.sleep(_AGAIN_S)

    def candidates(self, stage: Stage, without: WorkerId) -> bool:
        """Return whether anybody but `without` could serve `stage`."""
        return bool(self._pool.liveness.candidates(stage, (without,)))

    def drop(self, stage: Stage, reason: str) -> Held | None:
        """Give up the worker of `stage` and tell it so, should it ever hear again; the next claim voids its words."""
        held = self._held.pop(stage, None)
        if held is not None:
            self._spawn(self._tell(held, reason))
        return held

    def relieve(self, held: Held) -> None:
        """Let go of a worker that somebody else has relieved."""
        self._spawn(self._release(held.worker, held.epoch, "handed-over", goes_on=True))

    async def release(self, reason: str, *, goes_on: bool = False) -> bool:
        """Let every worker go; return when each has said its last word, or is too late; tell whether all have."""
        held, self._held = self._held, {}
        said = await asyncio.gather(
            *(self._release(entry.worker, entry.epoch, reason, goes_on=goes_on) for entry in held.values())
        )
        return all(said)

    def _choose(self, stage: Stage, without: set[WorkerId]) -> WorkerId | None:
        candidates = self._pool.liveness.candidates(stage, without)
        if not candidates:
            return None
        # Of all edges that hear the same heartbeats not everyone must run to the same worker.
        drawn = random.sample(candidates, min(2, len(candidates)))
        return max(drawn, key=lambda candidate: candidate.free).worker

    async def _try(self, stage: Stage, epoch: Epoch, subject: str) -> tuple["_Reply", str]:
        """Ask on `subject`; return the answer, if there is one, and else why not."""
        metrics = self._pool.metrics
        try:
            reply = codec.decode(codec.CLAIM_REPLY, await self._ask(stage, epoch, subject))
        except NoWorker as error:
            metrics.claims[f"{stage}_no_worker"] += 1
            return (_NOBODY if subject == subjects.claim(stage) else None), str(error)
        except (BusTimeout, BusUnavailable, BadMessage) as error:
            metrics.claims[f"{stage}_unanswered"] += 1
            return None, str(error)
        if isinstance(reply, Refused):
            metrics.claims[f"{stage}_refused"] += 1
            return reply, reply.reason
        return reply, ""

    async def _ask(self, stage: Stage, epoch: Epoch, subject: str) -> bytes:
        pool = self._pool
        claim = self._make(stage, epoch)
        asking = asyncio.create_task(pool.bus.request(subject, claim, timeout_s=pool.timeout_s + _LATE_S))
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)
        answered = False
        try:
            await asyncio.wait({asking}, timeout=pool.timeout_s)
            answered = asking.done()
        finally:
            if not answered:  # too late, or nobody waits any more because the call has ended
                asking.add_done_callback(lambda late: self._answered_late(late, epoch))
        if not answered:
            raise BusTimeout(f"no answer to a claim for {stage} within {pool.timeout_s * 1000:.0f} ms")
        return asking.result()

    def _answered_late(self, late: "asyncio.Task[bytes]", epoch: Epoch) -> None:
        if late.cancelled() or late.exception() is not None:
            return
        try:
            reply = codec.decode(codec.CLAIM_REPLY, late.result())
        except BadMessage:
            return
        if isinstance(reply, Claimed):
            self._pool.metrics.claims["answered_late"] += 1
            self._spawn(self._release(reply.worker, epoch, "answered-late", goes_on=True))

    async def _release(self, worker: WorkerId, epoch: Epoch, reason: str, *, goes_on: bool) -> bool:
        release = Release(call=self._call, epoch=epoch, reason=reason, goes_on=goes_on)
        try:
            await self._pool.bus.request(subjects.release(worker), release, timeout_s=self._release_s)
        except BusError as error:
            extra = {"call": self._call, "worker": worker, "error": str(error)}
            log.warning("worker did not confirm the release", extra=extra)
            return False
        return True

    async def _tell(self, held: Held, reason: str) -> None:
        try:
            release = Release(call=self._call, epoch=held.epoch, reason=reason, goes_on=True)
            await self._pool.bus.publish(subjects.release(held.worker), release)
        except BusError:
            log.debug("release not sent", extra={"call": self._call, "worker": held.worker})

    def _spawn(self, work: Coroutine[None, None, object]) -> None:
        task = asyncio.create_task(work)
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)
