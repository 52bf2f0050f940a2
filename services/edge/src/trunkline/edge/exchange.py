"""All calls of this edge: lets them in, brings them their audio, and gives them away or waits for their end."""

import asyncio
import contextlib
import logging
from typing import Final

from trunkline.agents import AgentFolder
from trunkline.bus import Bus, BusError, BusUnavailable, CallStore, EventLog, Heartbeat
from trunkline.bus.heartbeat import PERIOD_S
from trunkline.edge.books import Past
from trunkline.edge.call import AGAIN, Call
from trunkline.edge.carrier import Carrier, Line, Rejected, Started, Stopped
from trunkline.edge.clips import Clips
from trunkline.edge.close_codes import NORMAL, POLICY_VIOLATION
from trunkline.edge.comeback import next_seq, read_record, take_up
from trunkline.edge.doubt import guard
from trunkline.edge.ending import REFUSED
from trunkline.edge.errors import LineClosed
from trunkline.edge.facilities import Facilities
from trunkline.edge.inbound import Leg
from trunkline.edge.liveness import Liveness
from trunkline.edge.metrics import EdgeMetrics
from trunkline.edge.reaper import Reaper
from trunkline.edge.settings import EdgeSettings
from trunkline.edge.uplink import unheard_of
from trunkline.edge.watch import PROBE, Watch
from trunkline.proto import codec, subjects
from trunkline.proto.agent import Agent
from trunkline.proto.ids import CallId, WorkerId, call_id_of, new_worker_id
from trunkline.proto.messages import Disowned, HandedOver, Ringing
from trunkline.runtime.process import Chassis

log = logging.getLogger("trunkline.edge.exchange")

TRY_AGAIN_LATER: Final = 1013
GIVE_AWAY_S: Final = 15.0
"""How long a draining edge waits for a moment in which nobody speaks, before it gives a call away all the same."""
_FORGET_S: Final = 5.0
"""When nobody asks about a call any more that is gone."""
_LOOK_S: Final = 0.1
_END_S: Final = 5.0
_GLANCE_S: Final = 0.2
"""How long a new call may wait to learn that it is none."""
_TAKE_UP_S: Final = (0.1, 0.2, 0.4, 0.8, 0.0)
"""Waits between the attempts at the record of a call that has come back."""
_ENDED_KEPT: Final = 4_096


class Exchange:
    """The telephone exchange: carrier lines come in, calls live here.

    Args:
        bus: where workers are.
        agents: who answers.
        settings: the edge's.
        metrics: the edge's.
        chassis: the process's.
    """

    def __init__(
        self,
        bus: Bus,
        agents: AgentFolder,
        settings: EdgeSettings,
        metrics: EdgeMetrics,
        chassis: Chassis,
    ) -> None:
        self.edge: Final[WorkerId] = new_worker_id("edge")
        self.agents: Final = agents
        self.calls: Final[dict[CallId, Call]] = {}
        self._bus = bus
        self._settings = settings
        self._metrics = metrics
        self._lag = chassis.lag
        clock, replicas, journal = chassis.clock, chassis.base.nats_replicas, chassis.journal
        self.liveness: Final = Liveness(self.edge, PERIOD_S)
        self._watch = Watch(bus, self.edge, self.liveness, self.calls, clock, metrics)
        self.events: Final = EventLog(bus, clock.wall, replicas=replicas)
        self.clips: Final = Clips(bus, agents, replicas=replicas)
        self.store: Final = CallStore(bus, replicas=replicas)
        guard(bus, self.store, self.events, self.edge, self._on_usurped)
        journal.who = self.edge
        self._facilities = Facilities(
            bus,
            self.events,
            self.edge,
            clock,
            settings,
            metrics,
            self.liveness,
            self.clips,
            self.store,
            journal,
        )
        self._heartbeat = Heartbeat(
            bus, stage="edge", worker=self.edge, calls=lambda: len(self.calls), capacity=settings.capacity
        )
        self.reaper: Final = Reaper(
            self.store,
            bus,
            self.events,
            self.edge,
            alive=self.liveness.alive,
            ours=self.calls.__contains__,
            clock=clock,
        )
        self._ended: dict[CallId, None] = {}
        self._draining = False
        self._closing = False
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def heard(self) -> int:
        """How many other processes beat."""
        return self.liveness.heard

    def room(self) -> str | None:
        """Return why no further call can be taken, or None."""
        if self._closing or self._draining:
            return "draining"
        return "full" if len(self.calls) >= self._settings.capacity else self._lag.late()

    def _on_usurped(self, call: CallId) -> None:
        if (live := self.calls.get(call)) is not None:
            live.usurped()

    def ended_lately(self, call: CallId) -> bool:
        """Whether `call` has ended at this edge."""
        return call in self._ended

    async def start(self) -> None:
        """Listen for agent audio and heartbeats, and beat.

        Raises:
            BusUnavailable: the bus is away.
        """
        await self._bus.media.subscribe(subjects.audio_of(self.edge), self._on_audio)
        await self._bus.media.flush()
        await self._bus.media.watch_unheard(self._on_unheard)
        await self._bus.serve(subjects.holds(self.edge), self._on_holds)
        await self._bus.serve(subjects.handover(self.edge), self._on_handover)
        await self._watch.start()
        # Before the first claim names this edge, audio addressed to it must find it.
        await self._bus.media.flush()
        await self._bus.flush()
        self._heartbeat.start()
        self.clips.start()
        self.reaper.start()

    async def drain(self) -> None:
        """Give the calls away if there is another edge to take them, each when nobody speaks; wait for the rest."""
        self._draining = self._heartbeat.draining = True
        loop = asyncio.get_running_loop()
        began = loop.time()
        while self.calls:
            if self.liveness.other_edge():
                in_time = loop.time() - began < GIVE_AWAY_S
                for call in self.calls.values():
                    if call.comes_back and (call.at_rest or not in_time):
                        call.give_away()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._empty.wait()

    async def stop(self) -> None:
        """End what is left and store what is known of it. Calls that still come in are refused."""
        self._closing = True
        await self.clips.stop()
        for call in self.calls.values():
            call.end("edge-stopped", TRY_AGAIN_LATER)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                await self._empty.wait()
        await self.reaper.stop()
        await self._watch.stop()
        await self.events.flush()
        await self.events.close()
        await self._heartbeat.stop()

    async def ringing(self, agent: Agent) -> None:
        """Tell all workers that a call for `agent` is about to begin. Nothing depends on it."""
        with contextlib.suppress(BusError):
            await self._bus.publish(subjects.RINGING, Ringing(agent=agent))

    async def answer(self, line: Line, carrier: Carrier) -> None:
        """Serve one carrier line from its first message to its close."""
        started = await self._begin(line, carrier)
        if started is None:
            return
        call_id = call_id_of(carrier.name, started.carrier_call)
        if self._closing:
            # Nobody would end it, and its end could not be stored: the event log closes.
            await self._refuse(line, "edge-stopping", TRY_AGAIN_LATER, "the edge is stopping")
            return
        again = started.parameters.get(AGAIN) == "1"
        if not again and call_id in self.calls:
            await self._refuse(line, "call-already-live", POLICY_VIOLATION, "this call has a live stream already")
            return
        past, revision = await self._past(call_id, again=again)
        name = started.agent or self._settings.default_agent
        agent = self.agents.get(name) if past is None else past.record.agent
        if agent is None:
            known = ", ".join(self.agents.names)
            await self._refuse(
                line, "no-such-agent", POLICY_VIOLATION, f"no such agent {name[:40]!r}; there are: {known}"
            )
        elif past is None and len(self.calls) >= self._settings.capacity:
            await self._refuse(line, "edge-full", TRY_AGAIN_LATER, "all lines are busy")
        else:
            await self._live(Call(call_id, agent, Leg(started, carrier, line, revision), self._facilities, past))

    async def _live(self, call: Call) -> None:
        self.calls[call.id] = call
        self.events.remember(call.id)
        self._empty.clear()
        try:
            await call.run()
        finally:
            del self.calls[call.id]
            call.gone.set()
            asyncio.get_running_loop().call_later(_FORGET_S, call.forget)
            if call.is_over:
                self._ended[call.id] = None
            while len(self._ended) > _ENDED_KEPT:
                del self._ended[next(iter(self._ended))]
            if not self.calls:
                self._empty.set()

    async def _past(self, call_id: CallId, *, again: bool) -> tuple[Past | None, int]:
        """Return what is known of a call that lives already, and the revision of its record (0: there is none).

        A caller who has come back is waited for; one who has not is not kept waiting for a record that there hardly is.
        """
        clock = self._facilities.clock
        taken, revision = None, 0
        for wait_s in _TAKE_UP_S if again else (0.0,):
            try:
                async with asyncio.timeout(None if again else _GLANCE_S):
                    found = await read_record(self.store, call_id)
                    if found is not None:
                        revision = found[1]
                        taken = await take_up(self.store, call_id, self.edge, clock.wall)
                break
            except (BusUnavailable, TimeoutError) as error:
                log.warning("no record to be had of a call", extra={"call": call_id, "problem": str(error)})
                await asyncio.sleep(wait_s)
        if (old := self.calls.get(call_id)) is not None:
            old.usurped()
            await old.gone.wait()
        if taken is None:
            return None, revision
        return Past(taken.record, next_seq(taken.record, clock.wall())), taken.revision

    async def _begin(self, line: Line, carrier: Carrier) -> Started | None:
        """Return the start of the stream; None when the line was refused or went away instead."""
        complained: set[str] = set()
        try:
            async with asyncio.timeout(self._settings.start_timeout_s):
                while True:
                    match carrier.receive(await line.receive()):
                        case Started() as started:
                            return started
                        case Stopped():
                            await self._refuse(line, "stopped-before-start", NORMAL, "stopped before start")
                            return None
                        case Rejected(reason=reason, detail=detail, close_code=None):
                            self._metrics.bad[reason] += 1
                            if reason not in complained:
                                complained.add(reason)
                                log.warning("bad message ignored", extra={"reason": reason, "detail": detail})
                        case Rejected(reason=reason, detail=detail, close_code=code):
                            await self._refuse(line, reason, code or POLICY_VIOLATION, detail)
                            return None
        except TimeoutError:
            waited = f"no {carrier.waiting_for} within {self._settings.start_timeout_s:g} s"
            await self._refuse(line, "no-start", POLICY_VIOLATION, waited)
        except LineClosed as closed:
            reason = REFUSED.get(closed.code, "left-before-start")
            self._metrics.refused[reason] += 1
            log.warning("stream refused", extra={"reason": reason, "code": closed.code})
        return None

    async def _refuse(self, line: Line, reason: str, code: int, text: str) -> None:
        self._metrics.refused[reason] += 1
        log.warning("stream refused", extra={"reason": reason, "detail": text, "code": code})
        with contextlib.suppress(LineClosed):
            await line.close(code, text)

    def _on_audio(self, subject: str, data: bytes) -> None:
        call = self.calls.get(CallId(subjects.last_token(subject)))
        if call is None:
            self._metrics.dropped["audio_of_no_call"] += 1
        else:
            call.on_audio(data)

    def _on_unheard(self, token: str) -> None:
        if token.startswith(PROBE):
            self._watch.on_absent(token)
            return
        try:
            call_id, epoch, seq = unheard_of(token)
        except ValueError:
            return
        if (call := self.calls.get(call_id)) is not None:
            call.on_unheard(epoch, seq, believed=self._watch.believes)

    async def _on_handover(self, data: bytes) -> HandedOver:
        """Have one call of a worker that wants to stop served by somebody else."""
        order = codec.decode(codec.HAND_OVER, data)
        call = self.calls.get(order.call)
        return HandedOver(problem="" if call is None else await call.serving.hand_over(order))

    async def _on_holds(self, data: bytes) -> Disowned:
        """Compare a worker's calls with ours: tell which it should not hold, and replace it where it holds none."""
        holds = codec.decode(codec.HOLDS, data)
        there = dict(holds.calls)
        for call in list(self.calls.values()):
            if call.id not in there and call.serving.misses(holds.stage, holds.worker):
                self._metrics.claims[f"{holds.stage}_missing"] += 1
                call.serving.replace(holds.stage, "missing")
        disowned = []
        for call_id, epoch in there.items():
            live = self.calls.get(call_id)
            if live is None or live.serving.disowns(holds.stage, holds.worker, epoch):
                disowned.append(call_id)
        return Disowned(calls=tuple(disowned))
