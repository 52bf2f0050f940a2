"""Who serves a call: claims a worker for each stage, numbers the assignments, lets them go.

The edge alone assigns, so the epoch is an integer in its memory. It is raised *before* a worker is asked: from that
moment whatever the last one says is void. A claim that was not answered in time may have been accepted all the same;
its late answer is awaited in the background and the worker let go, so that no worker keeps a call it does not serve.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Final, NamedTuple

from trunkline.bus import Bus, BusError, BusTimeout, BusUnavailable, NoWorker
from trunkline.edge.errors import NoStageWorker
from trunkline.edge.metrics import EdgeMetrics
from trunkline.proto import codec, subjects
from trunkline.proto.agent import Agent
from trunkline.proto.errors import BadMessage
from trunkline.proto.ids import STAGES, CallId, Epoch, Generation, Stage, UtteranceId, WorkerId
from trunkline.proto.messages import Claim, Claimed, Refused, Release
from trunkline.runtime.clock import Clock

log = logging.getLogger("trunkline.edge.assign")

TRIES: Final = 3
_NO_GREETING: Final = UtteranceId(0)
_LATE_S: Final = 5.0
_RELEASE_S: Final = 2.0
"""How long a worker may take to let a call go, beside the tools it must wait for."""


class Assigned(NamedTuple):
    """A worker that has the call for a stage."""

    worker: WorkerId
    epoch: Epoch
    claim_ms: float
    at: float
    """When it took the call, monotonic seconds."""


class Pool(NamedTuple):
    """Where workers are asked for, and on whose behalf."""

    bus: Bus
    edge: WorkerId
    clock: Clock
    metrics: EdgeMetrics
    timeout_s: float


class Assignments:
    """The workers of one call."""

    def __init__(self, pool: Pool, call: CallId, agent: Agent, started_at: float) -> None:
        self._pool = pool
        self._call = call
        self._agent = agent
        # A tool that runs on when the caller hangs up still has its facts recorded before the call's last one.
        self._release_s = _RELEASE_S + max((tool.timeout_s for tool in agent.tools), default=0.0)
        self._started_at = started_at
        self._epochs: dict[Stage, Epoch] = dict.fromkeys(STAGES, Epoch(0))
        self._held: dict[Stage, Assigned] = {}
        self._asking: set[asyncio.Task[bytes]] = set()
        self._releasing: set[asyncio.Task[object]] = set()

    def epoch(self, stage: Stage) -> Epoch:
        """Return the epoch below which messages of `stage` are void."""
        return self._epochs[stage]

    def held(self, stage: Stage) -> Assigned | None:
        """Return who serves `stage` now."""
        return self._held.get(stage)

    async def claim(self, stage: Stage, generation: Generation, greeting: UtteranceId = _NO_GREETING) -> Assigned:
        """Find a worker for `stage`, in a new epoch; `greeting` is what we play of `generation` already.

        Raises:
            NoStageWorker: nobody listens, nobody answered `TRIES` times, or a worker says that none can serve it.
        """
        pool = self._pool
        begun = pool.clock.monotonic()
        self._held.pop(stage, None)
        why = ""
        for _ in range(TRIES):
            epoch = self._epochs[stage] = Epoch(self._epochs[stage] + 1)
            try:
                reply = codec.decode(codec.CLAIM_REPLY, await self._ask(stage, epoch, generation, greeting))
            except NoWorker as error:
                pool.metrics.claims[f"{stage}_no_worker"] += 1
                raise NoStageWorker(stage, str(error)) from error
            except (BusTimeout, BusUnavailable, BadMessage) as error:
                pool.metrics.claims[f"{stage}_unanswered"] += 1
                why = str(error)
                continue
            match reply:
                case Claimed(worker=worker):
                    taken_s = pool.clock.monotonic() - begun
                    pool.metrics.claims[f"{stage}_claimed"] += 1
                    pool.metrics.claim_seconds.labels(stage).observe(taken_s)
                    assigned = self._held[stage] = Assigned(worker, epoch, taken_s * 1000, begun + taken_s)
                    return assigned
                case Refused(reason=reason, retry=retry):
                    pool.metrics.claims[f"{stage}_refused"] += 1
                    why = reason
                    if not retry:
                        break
        raise NoStageWorker(stage, why)

    def drop(self, stage: Stage, reason: str) -> Assigned | None:
        """Give up the worker of `stage` and tell it so, should it ever hear again; the next claim voids its words."""
        assigned = self._held.pop(stage, None)
        if assigned is not None:
            self._spawn(self._tell(assigned.worker, assigned.epoch, reason))
        return assigned

    async def release(self, reason: str) -> bool:
        """Let every worker go; return when each has said its last word, or is too late; tell whether all have."""
        held, self._held = self._held, {}
        said = await asyncio.gather(*(self._release(entry.worker, entry.epoch, reason) for entry in held.values()))
        return all(said)

    async def _ask(self, stage: Stage, epoch: Epoch, generation: Generation, greeting: UtteranceId) -> bytes:
        pool = self._pool
        claim = Claim(
            call=self._call,
            stage=stage,
            epoch=epoch,
            edge=pool.edge,
            agent=self._agent,
            generation=generation,
            greeting=greeting,
            started_at=self._started_at,
        )
        asking = asyncio.create_task(pool.bus.request(subjects.claim(stage), claim, timeout_s=_LATE_S))
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
            self._spawn(self._release(reply.worker, epoch, "answered-late"))

    async def _release(self, worker: WorkerId, epoch: Epoch, reason: str) -> bool:
        release = Release(call=self._call, epoch=epoch, reason=reason)
        try:
            await self._pool.bus.request(subjects.release(worker), release, timeout_s=self._release_s)
        except BusError as error:
            extra = {"call": self._call, "worker": worker, "error": str(error)}
            log.warning("worker did not confirm the release", extra=extra)
            return False
        return True

    async def _tell(self, worker: WorkerId, epoch: Epoch, reason: str) -> None:
        try:
            release = Release(call=self._call, epoch=epoch, reason=reason)
            await self._pool.bus.publish(subjects.release(worker), release)
        except BusError:
            log.debug("release not sent", extra={"call": self._call, "worker": worker})

    def _spawn(self, work: Coroutine[None, None, object]) -> None:
        task = asyncio.create_task(work)
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)
