"""One call at the edge: the carrier's line on one side, the bus on the other.

A shell around the carrier's machine, the uplink (the caller's audio), the downlink (the agent's), the call's workers.
As long as it lives one task reads the line, one sends to it, one publishes in order. `end` may be called by anybody
and any number of times; the first reason stands. A call whose line breaks off is not over if its carrier brings the
caller back: it is away, and whichever edge the caller comes back to goes on with it. It knows nothing of what is said.
"""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from functools import partial
from typing import Final, Literal

from trunkline.bus import BusError, Subscription, ended
from trunkline.edge.allowance import Allowance
from trunkline.edge.arrivals import Arrivals
from trunkline.edge.assign import Assignments, Held, Pool
from trunkline.edge.books import Books, Carried, Past, opened
from trunkline.edge.carrier import CarrierEvent, Digit, MarkReturned, Rejected, Stopped
from trunkline.edge.close_codes import INTERNAL_ERROR, NORMAL, POLICY_VIOLATION
from trunkline.edge.comeback import reopened
from trunkline.edge.complaints import Complaints
from trunkline.edge.downlink import Downlink, Wire
from trunkline.edge.ending import BROKEN_OFF, GIVEN_AWAY, REFUSED, USURPED, Ending, of_closed
from trunkline.edge.errors import LineClosed
from trunkline.edge.facilities import Facilities
from trunkline.edge.inbound import Leg, listen
from trunkline.edge.own import OwnVoice
from trunkline.edge.ring import Ring
from trunkline.edge.serving import Serving
from trunkline.edge.story import Story
from trunkline.edge.telling import Telling
from trunkline.edge.uplink import Uplink
from trunkline.proto import codec, subjects
from trunkline.proto.agent import Agent
from trunkline.proto.errors import BadMessage
from trunkline.proto.events import KeyPressed, StageAssigned, StageLost
from trunkline.proto.frame import FRAME_MS, Codec
from trunkline.proto.ids import CallId, Epoch, Generation, Seq, Stage, UtteranceId
from trunkline.proto.messages import (
    Assigned,
    Claim,
    DigitPressed,
    FinalTranscript,
    HangUp,
    Interrupt,
    PartialTranscript,
    PlayoutMessage,
    Say,
    SpeechMessage,
    SpeechStarted,
    SpeechStopped,
    TurnEnded,
    Used,
    VoiceChanged,
    WordsTimed,
)

log = logging.getLogger("trunkline.edge.call")

UNHEARD: Final = 3
"""So many frames in a row that nobody heard, and the STT worker is gone."""
RETURNS: Final = "returns"
"""Parameter of a stream, ``1`` when the carrier's instructions bring the caller back to us once it has ended."""
AGAIN: Final = "again"
"""Parameter of a stream, ``1`` when the caller has come back."""
_CLOSE_S: Final = 1.0
_TOPICS: Final = frozenset({"speech", "speak", "spoken", "interrupt", "control", "usage", "assigned"})


class Call:
    """A call, from the start of a stream to its end.

    Args:
        call: its id.
        agent: who answers; that of `past`, if there is one.
        leg: the carrier's side.
        facilities: the edge's.
        past: of a call whose caller has come back.
    """

    def __init__(self, call: CallId, agent: Agent, leg: Leg, facilities: Facilities, past: Past | None = None) -> None:
        settings, clock = facilities.settings, facilities.clock
        self.id: Final = call
        self.agent: Final = agent
        self._leg = leg
        started, carrier, self._line, revision = leg
        self._past = past
        self._bus = facilities.bus
        self._facilities = facilities
        self._clock = clock
        self._metrics = facilities.metrics
        self._journal = facilities.journal
        self.gone: Final = asyncio.Event()
        """Set when nothing is left of it here."""
        wire = Wire(carrier, started.codec, started.sample_rate_hz, settings.unsent_bytes)
        self._downlink = Downlink(wire, clock, self._metrics, self._on_playout)
        self._own = OwnVoice(agent, facilities.clips, self._downlink, self.end)
        on_bus = Codec.MULAW if settings.media_codec == "mulaw" else Codec.PCM16
        first = Seq(0) if past is None else past.first_seq
        self._ring = Ring(settings.replay_ms // FRAME_MS, first)
        self._uplink = Uplink(
            self._bus.media, self._ring, on_bus, started.sample_rate_hz, self._metrics.traffic, self._journal
        )
        self._committed = int(first) - 1
        pool = Pool(self._bus, facilities.liveness, clock, self._metrics, settings.claim_timeout_ms / 1000)
        longest_tool_s = max((tool.timeout_s for tool in agent.tools), default=0.0)
        epochs = past.record.epochs if past is not None else None
        self._assignments = Assignments(pool, call, self._claim, longest_tool_s, epochs)
        self._serving = Serving(call, self._bus, self._assignments, clock, settings.reclaim_s, self, self._spawn)
        self._complain = Complaints(call)
        self._arrivals = Arrivals(
            call,
            facilities,
            self._assignments,
            self._downlink,
            lambda complaint, rate: self._complain(complaint, sample_rate_hz=str(rate)),
            self._spawn,
        )
        self._story = Story()
        record = (
            opened(call, agent, started, carrier.name, facilities.edge, clock.wall())
            if past is None
            else reopened(past.record, facilities.edge)
        )
        self._books = Books(record, revision, past, facilities, self._carried, self.usurped)
        self._greeting = UtteranceId(0)
        self._telling = Telling(call, self._bus, self._serving.listening, self._metrics)
        self._tell = self._telling.tell
        self._allowance = Allowance(
            agent.limits.max_duration_s, self._books, partial(self._tell, subjects.control(call)), self.end
        )
        self._over: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._subscription: Subscription | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Live through the call; return when it is over, or gone, and everybody has been told."""
        log.info(
            "call started" if self._past is None else "call resumed",
            extra={"call": self.id, "agent": self.agent.name, "carrier": self._leg.carrier.name},
        )
        self._allowance.begin()
        if self._past is None:
            self._greeting = self._own.greet()
            if self._greeting:
                self._story.spoke(Generation(1), self._greeting, self.agent.greeting)
        self._books.begin()
        self._arrivals.watch()
        for work in (self._listen(), self._downlink.deliver(self._line), self._telling.run(), self._begin()):
            self._spawn(work)
        ending = BROKEN_OFF
        try:
            ending = await asyncio.shield(self._over)
        finally:
            self._allowance.close()
            await self._finish(ending)

    def end(self, reason: str, close_code: int = NORMAL, close_text: str = "") -> None:
        """Have the call end, unless it is ending already."""
        self._leave(Ending(reason, close_code, close_text or reason))

    def give_away(self) -> None:
        """Have the caller brought back, to another edge: this one is to stop. What is being said is lost."""
        if self.comes_back:
            self._leave(GIVEN_AWAY)

    def usurped(self) -> None:
        """Another line has the call: let go of this one without a word."""
        self._leave(USURPED)

    def forget(self) -> None:
        """Let go of everything but who it was and how it ended: all parts know the call, and it knows them."""
        kept = {"id", "gone", "_over"}
        for name in vars(self).keys() - kept:
            delattr(self, name)

    @property
    def comes_back(self) -> bool:
        """Whether the carrier brings the caller back when the line ends."""
        return self._leg.started.parameters.get(RETURNS) == "1"

    @property
    def at_rest(self) -> bool:
        """Whether nothing is lost if the line is changed now: nobody speaks, and all that was said was heard."""
        return self._serving.began and self._downlink.idle and not self._story.caller_speaks and not self._own.parting

    @property
    def is_over(self) -> bool:
        """Whether the call itself has ended, not only its line."""
        return self._over.done() and self._over.result().fate == "over"

    @property
    def serving(self) -> Serving:
        """The call's workers."""
        return self._serving

    def on_audio(self, data: bytes) -> None:
        """Take an `AudioChunk` of the agent. Never waits, never raises."""
        self._arrivals.take(data)

    def on_unheard(self, epoch: Epoch, seq: Seq, *, believed: bool) -> None:
        """Take note that no STT worker listened when a frame was sent; `believed`, it is not our own connection."""
        if self._uplink.unheard(epoch, seq) >= UNHEARD and believed:
            self._serving.replace("stt", "unheard")

    async def bus_away(self) -> None:
        """Nobody can be reached any more: take leave of the caller."""
        await self._own.part("bus-lost", self.agent.farewell)

    # --- from the carrier ---------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        try:
            await listen(self._leg, self._uplink, self._clock, self._metrics.traffic, self._on_carrier)
        except LineClosed as closed:
            if refused := REFUSED.get(closed.code):
                self._metrics.refused[refused] += 1
                log.warning("stream refused", extra={"call": self.id, "reason": refused, "code": closed.code})
            self._leave(of_closed(closed, comes_back=self.comes_back))

    def _on_carrier(self, event: CarrierEvent) -> None:
        match event:
            case MarkReturned(name=name):
                self._downlink.returned(name)
            case Digit(digit=digit):
                at = self._clock.wall()
                pressed = DigitPressed(digit=digit, at=at)
                self._story.pressed(pressed)
                self._tell(subjects.dtmf(self.id), pressed)
                self._books.emit(KeyPressed(digit=digit, at=at))
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

    # --- from the bus -------------------------------------------------------------------------------------------------

    def _on_story(self, subject: str, data: bytes) -> None:
        topic = subjects.last_token(subject)
        if topic not in _TOPICS:
            return
        try:
            message = codec.decode_story(topic, data)
        except BadMessage as error:
            self._metrics.dropped[f"{topic}_malformed"] += 1
            self._complain("message of the call refused", topic=topic, error=str(error))
            return
        match message:
            case SpeechStarted() | PartialTranscript() | SpeechStopped() | FinalTranscript() | TurnEnded():
                self._on_speech(message)
            case Used():
                self._allowance.use(message)
            case Assigned(stage=stage, epoch=epoch) if epoch > self._assignments.epoch(stage):
                self.usurped()
            case WordsTimed():
                self._story.timed(message)
            case Say() | Interrupt() | HangUp():
                self._on_brain(topic, message)
            case _:
                pass

    def _on_speech(self, message: SpeechMessage) -> None:
        if message.epoch < self._assignments.epoch("stt"):
            self._metrics.fenced["speech_epoch"] += 1
            return
        if not self._story.heard(message):
            return  # our own repetition
        if self._serving.began and self._serving.held("brain") is None:
            self._tell(subjects.speech(self.id), message)  # the next brain may listen only after its recap was written
        if isinstance(message, TurnEnded):  # a final without its end has to be told again
            self._committed = max(self._committed, message.committed)

    def _on_brain(self, topic: str, message: Say | Interrupt | HangUp) -> None:
        match message:
            case Say() | Interrupt() | HangUp() if message.epoch < self._assignments.epoch("brain"):
                self._metrics.fenced[f"{topic}_epoch"] += 1
            case Say(voice=voice):
                self._story.ordered(message, heeded=not voice or voice == self._assignments.epoch("tts"))
            case Interrupt(generation=generation, onset_at=onset_at):
                if self._downlink.interrupt(generation) and (began := self._story.began(onset_at)) is not None:
                    self._metrics.barged_in(began, self._clock.wall())
            case HangUp(generation=generation, reason=reason):
                if generation < self._downlink.floor:
                    self._metrics.fenced["control_generation"] += 1
                else:
                    self.end(reason)

    # --- workers ------------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        try:
            self._subscription = await self._bus.subscribe(f"call.{self.id}.*", self._on_story)
        except BusError as error:
            log.error("call cannot be served", extra={"call": self.id, "error": str(error)})  # noqa: TRY400
            self.end("edge-bus-unavailable", INTERNAL_ERROR)
            return
        await self._serving.begin()

    def _claim(self, stage: Stage, epoch: Epoch) -> Claim:
        past, takes_over, record = self._past, self._serving.began, self._books.record
        line: Literal["", "moved", "lost"] = ""
        if past is not None and not takes_over:
            line = "moved" if past.record.planned else "lost"
        recap = self._story.recap(self._downlink.reached, record.winding_up) if takes_over or line else None
        return Claim(
            call=self.id,
            stage=stage,
            epoch=epoch,
            edge=record.edge,
            agent=self.agent,
            generation=max(self._downlink.highest, self._story.generation),
            tenant=record.tenant,
            started_at=record.started_at,
            greeting=UtteranceId(0) if takes_over else self._greeting,
            asked_at=self._clock.wall(),
            voice=self._assignments.epoch("tts"),
            recap=recap if stage == "brain" else None,
            line=line,
        )

    async def taken(self, stage: Stage, held: Held) -> None:
        """Somebody serves `stage` from now on."""
        self._books.emit(StageAssigned(stage=stage, worker=held.worker, epoch=held.epoch, claim_ms=held.claim_ms))
        self._journal.note("assigned", self.id, stage=stage, worker=held.worker, epoch=held.epoch)
        self._books.assign(self._assignments.epochs)
        if stage == "stt":
            self._uplink.connect(self.id, held.worker, held.epoch, Seq(self._committed + 1))
        elif stage == "tts" and self._serving.began:
            # Before the end of what was broken off is told: its rest is said again only if the brain learns this first.
            self._tell(subjects.playout(self.id), VoiceChanged(voice=held.epoch, reached=self._downlink.reached))
            self._downlink.abandon()

    def lost(self, stage: Stage, held: Held, reason: str) -> None:
        """Whoever served `stage` is gone; another is being looked for."""
        self._metrics.claims[f"{stage}_lost"] += 1
        self._books.lack()
        self._journal.note("lost", self.id, stage=stage, worker=held.worker, epoch=held.epoch, reason=reason)
        self._books.emit(StageLost(stage=stage, worker=held.worker, epoch=held.epoch, reason=reason))
        if stage == "stt":
            self._uplink.disconnect()
        elif stage == "tts":
            self._story.voice_lost()

    async def deserted(self, stage: Stage) -> None:
        """Nobody serves `stage`, and nobody will."""
        await self._own.part(f"no-{stage}-worker", self.agent.farewell if self._serving.goes_on else self.agent.busy)

    async def waiting(self, stage: Stage) -> None:  # noqa: ARG002 - the caller need not know which
        """Bridge the time until somebody serves `stage` again; cancelled then."""
        await self._own.fill()

    # --- what is told -------------------------------------------------------------------------------------------------

    def _on_playout(self, said: PlayoutMessage) -> None:
        self._story.played(said)
        self._tell(subjects.playout(self.id), said)
        self._own.on_playout(said)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _leave(self, ending: Ending) -> None:
        if not self._over.done():
            self._over.set_result(ending)

    async def _finish(self, ending: Ending) -> None:
        self._arrivals.close()
        await ended(*self._tasks)
        self._journal.note("end", self.id, reason=ending.reason, fate=ending.fate)
        if ending.fate == "over":
            await self._books.conclude(ending.reason)
            await self._hang_up(ending)
            await self._let_go(ending)
            if not self._books.usurped:  # or else it is told by whoever has the call now
                self._books.tell_end(ending.reason)
        else:
            await self._let_go(ending)
            if ending.fate == "away":
                await self._books.set_aside(ending.reason, planned=ending.planned)
            await self._hang_up(ending)
            self._metrics.ended[f"{ending.fate}-{ending.reason}"] += 1
        await self._books.aclose()
        log.info(
            "call ended" if ending.fate == "over" else "call let go",
            extra={
                "call": self.id,
                "reason": ending.reason,
                "fate": ending.fate,
                "duration_s": round(self._books.age_s, 3),
                "frames_in": self._ring.count,
                "audio_ms_out": self._downlink.audio_ms,
                "bad_messages": self._complain.total,
            },
        )

    async def _hang_up(self, ending: Ending) -> None:
        with contextlib.suppress(LineClosed, TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._line.close(ending.close_code, ending.close_text)

    async def _let_go(self, ending: Ending) -> None:
        """Release the workers; what they say last, which tells what they used, comes before this returns."""
        if not await self._assignments.release(ending.reason, goes_on=ending.fate != "over"):
            self._books.lack()
        if self._subscription is not None:
            await self._subscription.drain()

    def _carried(self) -> Carried:
        return Carried(self._ring.count, self._downlink.audio_ms, self._ring.next_seq)

    # --- tasks --------------------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(self._guarded(work), name=f"call-{self.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except LineClosed:
            pass  # `_listen` hears of it as well, behind what the carrier said before: it may have said goodbye
        except Exception:
            log.exception("call failed", extra={"call": self.id})
            self.end("edge-error", INTERNAL_ERROR)
