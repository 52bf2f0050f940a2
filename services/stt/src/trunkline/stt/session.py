"""One call's hearing: frames in, what the caller said out.

It joins the pure parts (intake, endpointing) to the detector's cadence, to a provider's stream and to the call's
subject. It decides nothing about turns beyond the endpointing's word: who may speak is the brain's business.

Another worker may take over at any time and is then given the audio since the last utterance was judged to be over. So
that it hears, cuts and names what this one would have, this one begins anew there as well: the detector forgets.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec

from trunkline.bus import EventLog
from trunkline.proto import subjects
from trunkline.proto.errors import BadFrame
from trunkline.proto.events import ProviderFailed, StageSettled
from trunkline.proto.frame import FRAME_MS
from trunkline.proto.ids import CallId, Seq, UtteranceId
from trunkline.proto.messages import (
    Claim,
    FinalTranscript,
    PartialTranscript,
    SpeechMessage,
    SpeechStarted,
    SpeechStopped,
    TurnEnded,
    Used,
)
from trunkline.providers.health import Health
from trunkline.providers.prices import Prices
from trunkline.providers.usage import Meter
from trunkline.runtime.clock import Clock
from trunkline.runtime.journal import Journal
from trunkline.stt.cadence import Cadence
from trunkline.stt.endpointing import PRE_ROLL, End, Endpointing, Onset, Rules, frames_of
from trunkline.stt.intake import Frame, Intake, Taken, pcm16_of
from trunkline.stt.metrics import SttMetrics
from trunkline.stt.outbox import Outbox
from trunkline.stt.provider import Billed, Failed, Heard, Lost, Partial, TurnOver
from trunkline.stt.provider import Final as FinalWords
from trunkline.stt.relay import Lender, Means, Relay
from trunkline.stt.settings import SttSettings
from trunkline.stt.vad import VoiceDetector

log = logging.getLogger("trunkline.stt.session")

_FRAMES_PER_SAMPLE: Final = 10
"""Of so many frames, the delay of one is noted."""
_FRAMES_PER_BILL: Final = 160
"""5 s: how often what was used is told."""


class Surroundings(msgspec.Struct, frozen=True):
    """What all calls of the process share."""

    detector: VoiceDetector
    cadence: Cadence
    outbox: Outbox
    clock: Clock
    metrics: SttMetrics
    settings: SttSettings
    events: EventLog
    health: Health
    prices: Prices
    journal: Journal


class _Utterance:
    """One that began and whose turn has not been told to be over."""

    def __init__(self, utterance: UtteranceId, onset_at: float) -> None:
        self.id = utterance
        self.onset_at = onset_at
        self.partial = ""
        self.stop_at = 0.0
        self.ended_at = 0.0
        self.committed = Seq(0)
        self.deadline: asyncio.TimerHandle | None = None
        self.final: FinalWords | None = None
        self.final_at: float | None = None
        """When its words stood, or were given up; None while they are awaited."""


class CallHearing:
    """Hears one call, from its claim to its release. A `CallSession` of the bus and a `Listener` of the cadence."""

    def __init__(self, claim: Claim, shared: Surroundings) -> None:
        self.call: Final[CallId] = claim.call
        self.row: Final = shared.detector.join()
        self._claim = claim
        self._shared = shared
        self._subject = subjects.speech(claim.call)
        self._intake = Intake(claim.epoch)
        self._rules = Rules.of(claim.agent.turns)
        self._endpointing = Endpointing(self._rules)
        self._recent: deque[Frame] = deque(maxlen=PRE_ROLL + frames_of(self._rules.min_speech_ms))
        self._spent = Seq(0)
        """What comes before it belonged to utterances that are over."""
        self._utterances: dict[UtteranceId, _Utterance] = {}
        self._at_rest = asyncio.Event()
        self._at_rest.set()
        self._malformed = False
        self._closed = False
        self._succeeded = False
        """Whether somebody else hears the call: what is not published yet is theirs to tell."""
        self._used: dict[tuple[str, str], Used] = {}
        self._meter = Meter("stt", claim.epoch, shared.prices, shared.health.spent)
        self._unbilled = 0
        self._stream: Relay | None = None

    async def listen(self, lenders: Sequence[Lender]) -> None:
        """Hand what is heard to the first of `lenders` that works, from now on.

        Raises:
            Unusable: none does.
        """
        shared = self._shared
        means = Means(shared.health, shared.settings.retry_rules, shared.clock.monotonic, self._meter, self._on_failure)
        relay = Relay(lenders, means, self.on_heard)
        await relay.start()
        self._stream = relay

    async def close(self, reason: str, *, goes_on: bool) -> None:
        """Stop hearing; words still awaited are not told.

        When the edge is lost and nobody goes on with the call, what was used is stored as a fact too.
        """
        if self._closed:
            return
        self._closed = True
        self._succeeded = goes_on
        self._shared.cadence.forget(self)
        self._shared.detector.leave(self.row)
        for utterance in self._utterances.values():
            if utterance.deadline is not None:
                utterance.deadline.cancel()
        if self._stream is not None:
            await self._stream.aclose()
        self._tell_usage()
        if reason == "edge-lost" and not goes_on:
            settled = StageSettled(stage="stt", epoch=self._claim.epoch, used=tuple(self._used.values()))
            self._shared.events.emit(self.call, settled, self._claim.tenant)
        await self._shared.outbox.flush()
        await self._shared.events.flush()
        log.debug("call closed", extra={"call": self.call, "reason": reason})

    async def rest(self) -> None:
        """Return when no utterance is open and no words are awaited."""
        await self._at_rest.wait()

    def forget(self) -> None:
        """Let go of everything."""
        vars(self).clear()

    # --- audio in -----------------------------------------------------------------------------------------------------

    def on_frame(self, data: bytes) -> None:
        """Take a frame off the bus."""
        intake, shared = self._intake, self._shared
        if intake.follow(data):
            shared.metrics.frames[Taken.KEPT] += 1
        elif not self._take(data):
            return
        if shared.journal.on:
            shared.journal.note("heard", self.call, epoch=self._claim.epoch, seq=intake.newest)
        if not intake.newest % _FRAMES_PER_SAMPLE and intake.live_us:
            shared.metrics.arrived(shared.clock.wall() - intake.live_us / 1e6)
        shared.cadence.attend(self)

    def _take(self, data: bytes) -> bool:
        """Take a frame that is not just the next one; return whether it was kept."""
        frames = self._shared.metrics.frames
        gaps = self._intake.gaps
        try:
            taken = self._intake.take(data)
        except BadFrame as error:
            frames["malformed"] += 1
            if not self._malformed:
                self._malformed = True
                log.warning(
                    "malformed frame; further ones are counted only", extra={"call": self.call, "why": str(error)}
                )
            return False
        frames[taken] += 1
        if self._intake.gaps != gaps:
            frames["missing"] += self._intake.gaps - gaps
        if taken is Taken.BROKEN:
            self._broke_off()
        return taken is Taken.KEPT or taken is Taken.BROKEN

    def frame(self) -> Frame | None:
        """Return the next frame, as it came; None when there is none."""
        return self._intake.frame()

    def judged(self, frame: Frame, pcm: bytes, probability: float) -> None:
        """Go on with `frame`, of samples `pcm`, which is voice with `probability`."""
        stream = self._stream
        if stream is None:
            return
        if self._intake.ready:
            self._shared.cadence.attend(self)
        self._recent.append(frame)
        endpointing = self._endpointing
        verdict = endpointing.hear(frame.seq, probability)
        stream.push(pcm, voiced=endpointing.voiced)
        self._unbilled += 1
        if self._unbilled >= _FRAMES_PER_BILL:
            self._tell_usage()
        if verdict is None:
            return
        if isinstance(verdict, Onset):
            self._on_onset(verdict, stream)
        else:
            self._on_end(verdict, stream)

    def _broke_off(self) -> None:
        self._shared.detector.reset(self.row)
        self._recent.clear()
        log.warning("stream broke off and began anew", extra={"call": self.call, "epoch": self._claim.epoch})
        end = self._endpointing.cut()
        if end is not None and self._stream is not None:
            self._on_end(end, self._stream)

    # --- utterances ---------------------------------------------------------------------------------------------------

    def _on_onset(self, onset: Onset, stream: Relay) -> None:
        onset_at = self._intake.captured_at(onset.first) - FRAME_MS / 1_000
        self._utterances[onset.utterance] = _Utterance(onset.utterance, onset_at)
        self._at_rest.clear()
        self._shared.metrics.counts["utterances"] += 1
        judged_at = self._shared.clock.wall()
        self._publish(
            SpeechStarted(epoch=self._claim.epoch, utterance=onset.utterance, onset_at=onset_at, judged_at=judged_at)
        )
        first = max(onset.first - PRE_ROLL, self._spent)
        lead = [frame for frame in self._recent if frame.seq >= first]
        stream.begin(onset.utterance, b"".join(pcm16_of(lead)))

    def _on_end(self, end: End, stream: Relay) -> None:
        utterance = self._utterances[end.utterance]
        self._spent = Seq(end.last + 1)
        utterance.stop_at = self._intake.captured_at(end.last)
        utterance.ended_at = self._shared.clock.wall()
        if end.forced:
            self._shared.metrics.counts["utterances_forced"] += 1
        loop = asyncio.get_running_loop()
        timeout_s = self._shared.settings.final_timeout_ms / 1_000
        utterance.deadline = loop.call_later(timeout_s, self._time_out, utterance, stream)
        self._publish(SpeechStopped(epoch=self._claim.epoch, utterance=utterance.id, endpoint_at=utterance.ended_at))
        utterance.committed = end.judged
        self._shared.detector.reset(self.row)
        stream.finish()

    def on_heard(self, heard: Heard) -> None:
        """Take what the provider tells."""
        if self._closed or isinstance(heard, Lost | Billed):
            return
        if isinstance(heard, TurnOver):
            self._on_turn_over(heard)
            return
        utterance = self._utterances.get(heard.utterance)
        if utterance is None or utterance.final_at is not None:
            self._shared.metrics.counts["words_late"] += 1
            return
        match heard:
            case Partial(text=text):
                if text and text != utterance.partial:
                    utterance.partial = text
                    self._shared.metrics.counts["partials"] += 1
                    self._publish(PartialTranscript(epoch=self._claim.epoch, utterance=utterance.id, text=text))
            case FinalWords():
                utterance.final = heard
                self._settle(utterance)
            case Failed(error=error):
                self._give_up(utterance, str(error))

    def _on_turn_over(self, over: TurnOver) -> None:
        """The provider judges that the caller has finished: sooner than silence would tell."""
        utterance = self._utterances.get(over.utterance)
        if self._stream is None or utterance is None or utterance.ended_at:
            return
        self._shared.metrics.counts["turns_ended_by_provider"] += 1
        end = self._endpointing.cut()
        if end is not None:
            self._on_end(end, self._stream)

    def _time_out(self, utterance: _Utterance, stream: Relay) -> None:
        self._give_up(utterance, "no words in time")
        stream.give_up(utterance.id)

    def _give_up(self, utterance: _Utterance, why: str) -> None:
        self._shared.metrics.counts["finals_missing"] += 1
        log.warning("utterance without words", extra={"call": self.call, "utterance": utterance.id, "why": why})
        self._settle(utterance)

    def _settle(self, utterance: _Utterance) -> None:
        utterance.final_at = self._shared.clock.wall()
        if utterance.deadline is not None:
            utterance.deadline.cancel()
        # Utterances are told in the order in which they were spoken, whichever is known first.
        for first in list(self._utterances.values()):
            if first.final_at is None or first.ended_at == 0.0:
                return
            del self._utterances[first.id]
            self._tell(first, first.final_at)
        self._at_rest.set()

    def _tell(self, utterance: _Utterance, final_at: float) -> None:
        metrics = self._shared.metrics
        final = utterance.final
        if final is not None and self._stream is not None:
            metrics.final(self._stream.provider, final_at - utterance.ended_at)
            metrics.counts["finals" if final.text else "finals_empty"] += 1
        if final is not None and final.text:
            self._publish(
                FinalTranscript(
                    epoch=self._claim.epoch,
                    utterance=utterance.id,
                    text=final.text,
                    committed=utterance.committed,
                    onset_at=utterance.onset_at,
                    offset_at=utterance.stop_at,
                    confidence=final.confidence,
                )
            )
        self._publish(
            TurnEnded(
                epoch=self._claim.epoch,
                utterance=utterance.id,
                speech_ended_at=utterance.stop_at,
                endpoint_at=utterance.ended_at,
                final_at=final_at,
                failed=final is None,
                committed=utterance.committed,
            )
        )
        self._shared.journal.note(
            "final",
            self.call,
            epoch=self._claim.epoch,
            utterance=utterance.id,
            length=len(final.text) if final is not None else 0,
            committed=utterance.committed,
        )
        self._tell_usage()
        log.info(
            "utterance heard",
            extra={
                "call": self.call,
                "utterance": utterance.id,
                "speech_ms": round((utterance.stop_at - utterance.onset_at) * 1_000),
                "final_ms": round((final_at - utterance.ended_at) * 1_000),
                "pii.text": final.text if final is not None else "",
            },
        )

    def _on_failure(self, fact: ProviderFailed) -> None:
        self._shared.health.record(self.call, self._claim.tenant, fact)
        self._shared.events.emit(self.call, fact, self._claim.tenant)

    def _tell_usage(self) -> None:
        self._unbilled = 0
        if self._stream is not None:
            self._stream.settle()
        for used in self._meter.used():
            self._used[used.provider, used.model] = used
            self._shared.outbox.put(subjects.usage(self.call), used)

    def _publish(self, message: SpeechMessage) -> None:
        self._shared.outbox.put(self._subject, message, lambda: not self._succeeded)
