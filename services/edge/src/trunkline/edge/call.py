"""One call at the edge: the carrier's line on one side, the bus on the other.

A shell around the carrier's machine, the uplink (the caller's audio) and the downlink (the agent's). Four tasks live as
long as the call: one reads the line, one sends to it, one publishes in order, one finds workers. `end` may be called by
anybody and any number of times; the first reason stands. It knows nothing of what is said.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Coroutine
from typing import Final, NamedTuple

import msgspec

from trunkline.audio.framing import Framer
from trunkline.audio.g711 import mulaw_to_pcm16
from trunkline.bus import Bus, BusError, EventLog, Subscription
from trunkline.edge.assign import Assigned, Assignments, Pool
from trunkline.edge.bill import Bill
from trunkline.edge.carrier import Carrier, CarrierEvent, Digit, Frame, Line, MarkReturned, Rejected, Started, Stopped
from trunkline.edge.clips import Clips
from trunkline.edge.downlink import Downlink, Wire
from trunkline.edge.errors import LineClosed, NoStageWorker
from trunkline.edge.liveness import Liveness
from trunkline.edge.metrics import EdgeMetrics
from trunkline.edge.ring import Ring
from trunkline.edge.settings import EdgeSettings
from trunkline.edge.uplink import Uplink
from trunkline.proto import clips, codec, subjects
from trunkline.proto.agent import Agent
from trunkline.proto.errors import BadFrame, BadMessage
from trunkline.proto.events import CallEnded, CallStarted, Fact, KeyPressed, StageAssigned, StageLost
from trunkline.proto.frame import Codec, unpack_audio
from trunkline.proto.ids import STAGES, CallId, Epoch, Generation, Seq, Stage, UtteranceId, WorkerId
from trunkline.proto.messages import (
    DigitPressed,
    FinalTranscript,
    HangUp,
    Interrupt,
    PlayoutFinished,
    PlayoutMessage,
    Used,
    WindUp,
)
from trunkline.runtime.clock import Clock

log = logging.getLogger("trunkline.edge.call")

NORMAL: Final = 1000
POLICY_VIOLATION: Final = 1008
INTERNAL_ERROR: Final = 1011
FRAME_MS: Final = 20
CLIP_BYTES_PER_S: Final = 2 * clips.RATE_HZ
PARTING_SLACK_S: Final = 1.0
"""How much longer than its length the last sentence may take to be heard."""
WIND_UP_S: Final = 30.0
"""How long the brain may take to bring a call to its end."""
JUST_ASSIGNED_S: Final = 1.0
"""What a worker says of its calls may have been written before it took the newest."""
_CLOSE_S: Final = 1.0


class Facilities(NamedTuple):
    """What all calls of an edge share."""

    bus: Bus
    events: EventLog
    edge: WorkerId
    clock: Clock
    settings: EdgeSettings
    metrics: EdgeMetrics
    liveness: Liveness
    clips: Clips


class Leg(NamedTuple):
    """The carrier's side of a call: its stream, which has just started, and the line it comes on."""

    started: Started
    carrier: Carrier
    line: Line


class Ending(NamedTuple):
    """Why a call ends, and how its line is closed."""

    reason: str
    close_code: int
    close_text: str


class Call:
    """A call from its stream's start to its end."""

    def __init__(self, call: CallId, agent: Agent, leg: Leg, facilities: Facilities) -> None:
        settings, clock = facilities.settings, facilities.clock
        self.id: Final = call
        self.agent: Final = agent
        started, self._carrier, self._line = leg
        self._started = started
        self._bus = facilities.bus
        self._facilities = facilities
        self._clock = clock
        self._metrics = facilities.metrics
        self._began_at = clock.monotonic()
        pool = Pool(self._bus, facilities.edge, clock, self._metrics, settings.claim_timeout_ms / 1000)
        self._assignments = Assignments(pool, call, agent, clock.wall())
        wire = Wire(self._carrier, started.codec, started.sample_rate_hz, settings.unsent_bytes)
        self._downlink = Downlink(wire, clock, self._metrics, self._on_playout)
        on_bus = Codec.MULAW if settings.media_codec == "mulaw" else Codec.PCM16
        self._decode = mulaw_to_pcm16 if (started.codec, on_bus) == (Codec.MULAW, Codec.PCM16) else None
        rate_hz = started.sample_rate_hz
        self._ring = Ring(rate_hz * on_bus.bytes_per_sample * settings.replay_ms // 1000)
        self._uplink = Uplink(self._bus.media, self._ring, on_bus, rate_hz, self._metrics.traffic)
        self._committed = -1
        self._bill = Bill(agent.limits.max_cost_usd)
        self._winding_up = False
        self._greeting = UtteranceId(0)
        self._parting: tuple[Generation, str] | None = None
        self._served = asyncio.Event()
        self._tellings: asyncio.Queue[tuple[str, msgspec.Struct]] = asyncio.Queue()
        self._over: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._story: Subscription | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._recovering: set[Stage] = set()
        self._complaints: Counter[str] = Counter()

    async def run(self) -> None:
        """Live through the call; return when it is over and everybody has been told."""
        self._emit(
            CallStarted(
                agent=self.agent.name,
                carrier=self._carrier.name,
                carrier_call=self._started.carrier_call,
                edge=self._facilities.edge,
                direction="outbound" if self._started.parameters.get("direction") == "outbound" else "inbound",
            )
        )
        log.info("call started", extra={"call": self.id, "agent": self.agent.name, "carrier": self._carrier.name})
        longest_s = self.agent.limits.max_duration_s
        too_long = asyncio.get_running_loop().call_later(longest_s, self.end, "exceeded-max-duration")
        self._greet()
        for work in (self._listen(), self._downlink.deliver(self._line), self._tell_all(), self._assign_all()):
            self._spawn(work)
        ending = Ending("edge-stopped", INTERNAL_ERROR, "")
        try:
            ending = await asyncio.shield(self._over)
        finally:
            too_long.cancel()
            await self._finish(ending)

    def end(self, reason: str, close_code: int = NORMAL, close_text: str = "") -> None:
        """Have the call end, unless it is ending already."""
        if not self._over.done():
            self._over.set_result(Ending(reason, close_code, close_text or reason))

    def on_audio(self, data: bytes) -> None:
        """Take an `AudioChunk` of the agent. Never waits, never raises."""
        try:
            chunk = unpack_audio(data)
        except BadFrame:
            self._metrics.dropped["audio_malformed"] += 1
            return
        if chunk.epoch < self._assignments.epoch("tts"):
            self._metrics.fenced["audio_epoch"] += 1
            return
        if complaint := self._downlink.take(chunk):
            self._complain(complaint, sample_rate_hz=str(chunk.sample_rate_hz))

    def on_unheard(self, epoch: Epoch, seq: Seq) -> None:
        """Take note that no STT worker listened when a frame was sent."""
        self._uplink.unheard(epoch, seq)

    def on_lost(self, workers: frozenset[WorkerId]) -> None:
        """Take note that `workers` are silent: have their stages served by others."""
        for stage in STAGES:
            assigned = self._assignments.held(stage)
            if assigned is not None and assigned.worker in workers and stage not in self._recovering:
                self._recovering.add(stage)
                self._spawn(self._recover(stage))

    def disowns(self, stage: Stage, worker: WorkerId, epoch: Epoch) -> bool:
        """Tell whether `worker`, which holds this call for `stage`, should not. It may just be being claimed."""
        assigned = self._assignments.held(stage)
        return epoch < self._assignments.epoch(stage) or (assigned is not None and assigned.worker != worker)

    def misses(self, stage: Stage, worker: WorkerId) -> bool:
        """Tell whether `worker`, which does not hold this call, has had it for `stage` for longer than a moment."""
        assigned = self._assignments.held(stage)
        return (
            assigned is not None
            and assigned.worker == worker
            and self._clock.monotonic() - assigned.at > JUST_ASSIGNED_S
        )

    # --- from the carrier ---------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        line, carrier, uplink, wall, decode = self._line, self._carrier, self._uplink, self._clock.wall, self._decode
        traffic = self._metrics.traffic
        # Twilio sends 20 ms at a time but promises no size.
        cut = Framer(FRAME_MS * self._started.sample_rate_hz * self._started.codec.bytes_per_sample // 1000).push
        try:
            while True:
                event = carrier.receive(await line.receive())
                if isinstance(event, Frame):
                    captured_us = int(wall() * 1e6)
                    for payload in cut(event.payload):
                        traffic["frames_in"] += 1
                        await uplink.push(captured_us, decode(payload) if decode else payload)
                elif event is not None:
                    self._on_carrier(event)
        except LineClosed as closed:
            self._on_closed(closed)

    def _on_carrier(self, event: CarrierEvent) -> None:
        match event:
            case MarkReturned(name=name):
                self._downlink.returned(name)
            case Digit(digit=digit):
                at = self._clock.wall()
                self._tell(subjects.dtmf(self.id), DigitPressed(digit=digit, at=at))
                self._emit(KeyPressed(digit=digit, at=at))
            case Stopped():
                self.end("customer-ended-call")
            case Rejected(reason=reason, detail=detail, close_code=None):
                self._metrics.bad[reason] += 1
                self._complain("bad message ignored", reason=reason, detail=detail)
            case Rejected(reason=reason, detail=detail, close_code=code):
                self._metrics.refused[reason] += 1
                log.warning("stream refused", extra={"call": self.id, "reason": reason, "detail": detail, "code": code})
                self.end("carrier-protocol-error", code or POLICY_VIOLATION, detail)
            case _:
                pass

    def _on_closed(self, closed: LineClosed) -> None:
        refused = {1009: "oversize-message", 1007: "invalid-utf8"}.get(closed.code)
        if refused is None:
            self.end("phone-call-provider-closed-websocket")
            return
        self._metrics.refused[refused] += 1
        log.warning("stream refused", extra={"call": self.id, "reason": refused, "code": closed.code})
        self.end("carrier-protocol-error", closed.code)

    # --- from the bus -------------------------------------------------------------------------------------------------

    async def _on_story(self, subject: str, data: bytes) -> None:
        topic = subjects.last_token(subject)
        if topic not in {"speech", "interrupt", "control", "usage"}:
            return
        try:
            message = codec.decode_story(topic, data)
        except BadMessage as error:
            self._metrics.dropped[f"{topic}_malformed"] += 1
            self._complain("message of the call refused", topic=topic, error=str(error))
            return
        match message:
            case FinalTranscript(epoch=epoch, committed=committed):
                if epoch >= self._assignments.epoch("stt"):
                    self._committed = max(self._committed, committed)
            case Used():
                self._bill.take(message)
                self._watch_cost()
            case Interrupt() | HangUp() if message.epoch < self._assignments.epoch("brain"):
                self._metrics.fenced[f"{topic}_epoch"] += 1
            case Interrupt(generation=generation):
                self._downlink.interrupt(generation)
            case HangUp(generation=generation, reason=reason):
                if generation < self._downlink.floor:
                    self._metrics.fenced["control_generation"] += 1
                else:
                    self.end(reason)
            case _:
                pass

    # --- workers ------------------------------------------------------------------------------------------------------

    async def _assign_all(self) -> None:
        """Find everybody; whoever speaks first is asked last."""
        try:
            story = await self._bus.subscribe(f"call.{self.id}.*", self._on_story)
        except BusError as error:
            log.error("call cannot be served", extra={"call": self.id, "error": str(error)})  # noqa: TRY400
            self.end("edge-bus-unavailable", INTERNAL_ERROR)
            return
        self._story = story
        first: tuple[Stage, ...] = ("stt", "tts")
        if all(await asyncio.gather(*(self._assign(stage) for stage in first))) and await self._assign("brain"):
            self._served.set()

    async def _assign(self, stage: Stage) -> bool:
        """Find a worker and hand it the call; without one the call ends. Return whether there is one."""
        try:
            greeting = UtteranceId(0) if self._served.is_set() else self._greeting
            assigned = await self._assignments.claim(stage, self._downlink.highest, greeting)
        except NoStageWorker as error:
            log.warning("no worker for the call", extra={"call": self.id, "stage": stage, "why": error.why})
            await self._part(f"no-{stage}-worker", self.agent.farewell if self._served.is_set() else self.agent.busy)
            return False
        self._facilities.liveness.expect(assigned.worker)
        self._emit(StageAssigned(stage=stage, worker=assigned.worker, epoch=assigned.epoch, claim_ms=assigned.claim_ms))
        if stage == "stt":
            await self._uplink.connect(self.id, assigned.worker, assigned.epoch, Seq(self._committed + 1))
        return True

    async def _recover(self, stage: Stage) -> None:
        lost = self._assignments.drop(stage, "silent")
        if lost is not None:
            self._lose(stage, lost)
            if stage == "brain":
                await self._part("brain-lost", self.agent.farewell)
            else:
                await self._assign(stage)
        self._recovering.discard(stage)

    def _lose(self, stage: Stage, lost: Assigned) -> None:
        log.warning("worker lost", extra={"call": self.id, "stage": stage, "worker": lost.worker})
        self._metrics.claims[f"{stage}_lost"] += 1
        self._bill.complete = False  # what it used last it cannot tell
        self._emit(StageLost(stage=stage, worker=lost.worker, epoch=lost.epoch, reason="silent"))
        if stage == "stt":
            self._uplink.disconnect()
        if stage == "tts":
            self._downlink.abandon()

    # --- what the edge says by itself ---------------------------------------------------------------------------------

    def _greet(self) -> None:
        """Greet the caller at once if the greeting is at hand: workers are looked for meanwhile."""
        pcm = self._facilities.clips.find(self.agent, self.agent.greeting)
        if pcm is not None:
            self._greeting = UtteranceId(1)
            self._downlink.play(pcm, Generation(1), self._greeting)

    async def _part(self, reason: str, text: str) -> None:
        """Have the call end for `reason`, once the caller has heard `text` if that is at hand."""
        pcm = self._facilities.clips.find_any(self.agent, text)
        if pcm is not None and self._parting is None:
            generation = Generation(self._downlink.highest + 1)
            self._parting = generation, reason
            self._downlink.interrupt(generation)
            self._downlink.play(pcm, generation, UtteranceId(1))
            await asyncio.sleep(len(pcm) / CLIP_BYTES_PER_S + PARTING_SLACK_S)
        self.end(reason)

    def _on_playout(self, said: PlayoutMessage) -> None:
        self._tell(subjects.playout(self.id), said)
        if self._parting is not None and isinstance(said, PlayoutFinished) and said.generation == self._parting[0]:
            self.end(self._parting[1])

    def _watch_cost(self) -> None:
        if self._bill.exceeded and not self._winding_up:
            self._winding_up = True
            reason = "exceeded-max-cost"
            log.warning("call has cost what it may", extra={"call": self.id, "usd": round(self._bill.usd, 4)})
            self._tell(subjects.control(self.id), WindUp(reason=reason))
            self._spawn(self._end_later(reason, WIND_UP_S))

    async def _end_later(self, reason: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self.end(reason)

    # --- the end ------------------------------------------------------------------------------------------------------

    async def _finish(self, ending: Ending) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(LineClosed, TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._line.close(ending.close_code, ending.close_text)
        if not await self._assignments.release(ending.reason):
            self._bill.complete = False
        if self._story is not None:
            await self._story.drain()  # the workers' last words, which tell what they used, came before
        if (bill := self._bill.fact()) is not None:
            self._emit(bill)
        duration_s = round(self._clock.monotonic() - self._began_at, 3)
        frames_in, audio_ms_out = int(self._ring.next_seq), self._downlink.audio_ms
        self._emit(
            CallEnded(reason=ending.reason, duration_s=duration_s, frames_in=frames_in, audio_ms_out=audio_ms_out)
        )
        self._metrics.ended[ending.reason] += 1
        self._metrics.traffic["audio_ms_out"] += audio_ms_out
        log.info(
            "call ended",
            extra={
                "call": self.id,
                "reason": ending.reason,
                "duration_s": duration_s,
                "frames_in": frames_in,
                "audio_ms_out": audio_ms_out,
                "bad_messages": sum(self._complaints.values()),
            },
        )

    # --- odds and ends ------------------------------------------------------------------------------------------------

    def _tell(self, subject: str, message: msgspec.Struct) -> None:
        self._tellings.put_nowait((subject, message))

    async def _tell_all(self) -> None:
        await self._served.wait()  # nobody who is meant listens before
        while True:
            subject, message = await self._tellings.get()
            try:
                await self._bus.publish(subject, message)
            except BusError as error:
                self._metrics.dropped["message_unsent"] += 1
                self._complain("message not sent", error=str(error))

    def _emit(self, fact: Fact) -> None:
        self._facilities.events.emit(self.id, fact)

    def _complain(self, what: str, **fields: str) -> None:
        """Log once per call and kind; the counters have the rest."""
        key = f"{what} {fields.get('reason', '')}"
        self._complaints[key] += 1
        if self._complaints[key] == 1:
            log.warning(what, extra={"call": self.id, **fields})

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(self._guarded(work), name=f"call-{self.id}")
        self._tasks.add(task)

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except LineClosed as closed:
            self._on_closed(closed)
        except Exception:
            log.exception("call failed", extra={"call": self.id})
            self.end("edge-error", INTERNAL_ERROR)
