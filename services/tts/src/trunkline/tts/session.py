"""One call's speech: the shell around `Floor`.

It listens to ``call.<id>.speak``, ``call.<id>.interrupt`` and ``call.<id>.assigned``, has one sentence at a time spoken
(`Saying`), publishes it as `AudioChunk`s to the edge. Every sentence that is not interrupted ends with a chunk flagged
LAST, even when it was empty or failed, so that nobody waits for it forever; a sentence that is cut gets none, because
its generation is void wherever it would arrive.
"""

import asyncio
import logging
from typing import Final, NamedTuple

import msgspec

from trunkline.bus import BACK_S, Bus, BusError, EventLog, Subscription
from trunkline.proto import codec, subjects
from trunkline.proto.errors import BadMessage
from trunkline.proto.events import ProviderFailed, StageSettled
from trunkline.proto.frame import AudioChunk, Codec, Flag
from trunkline.proto.messages import Claim, Missed, SpeakingFailed, SpokenMessage, Used
from trunkline.providers.attempts import AllFailed, Attempts
from trunkline.providers.course import RetryRules
from trunkline.providers.health import Health
from trunkline.providers.prices import Prices
from trunkline.providers.usage import Meter
from trunkline.runtime.clock import Clock
from trunkline.runtime.journal import Journal
from trunkline.tts.chunks import BYTES_PER_MS, RATE_HZ
from trunkline.tts.clips import Clips
from trunkline.tts.feed import Bell
from trunkline.tts.floor import Floor, Verdict
from trunkline.tts.line import AudioLine
from trunkline.tts.metrics import Outcome, TtsMetrics
from trunkline.tts.saying import Means, Memory, Saying
from trunkline.tts.sentence import Sentence
from trunkline.tts.settings import TtsSettings
from trunkline.tts.text import speakable
from trunkline.tts.voices import CallVoice, Open, open_first

log = logging.getLogger("trunkline.tts.session")

_USAGE_S: Final = 1.0
_BUS_AWAY_S: Final = 3.0
"""For how long speech waits for a bus that is away; what would be later still is not said."""
_LOOK_S: Final = 0.02
_STOP_S: Final = 0.25
_CLOSE_S: Final = 1.0


class Surroundings(NamedTuple):
    """What the calls of a process share."""

    bus: Bus
    clock: Clock
    metrics: TtsMetrics
    settings: TtsSettings
    events: EventLog
    health: Health
    rules: RetryRules
    prices: Prices
    clips: Clips
    journal: Journal


class CallSpeech:
    """What the agent says in one call. `start` it, and `close` it in the end."""

    def __init__(self, claim: Claim, open_voice: Open, shared: Surroundings) -> None:
        self._claim = claim
        self._call = claim.call
        self._shared = shared
        self._floor = Floor(claim.generation, shared.settings.queue_sentences)
        self._meter = Meter("tts", claim.epoch, shared.prices, shared.health.spent)
        tts = claim.agent.tts
        self._voices = [CallVoice(choice, open_voice, self._meter) for choice in (tts, *tts.fallbacks)]
        self._means = Means(
            agent=claim.agent,
            lines={speakable(line).text: line for line in claim.agent.clips},
            voices=self._voices,
            attempts=Attempts("tts", shared.health, shared.rules, shared.clock.monotonic, self._on_failure),
            clips=shared.clips,
            memory=Memory(),
            bell=Bell(),
            clock=shared.clock,
            metrics=shared.metrics,
            pieces_stall_s=shared.settings.pieces_stall_ms / 1_000,
            publish=self._publish,
            tell=self._tell,
            failed=self._record,
        )
        self._used: dict[tuple[str, str], Used] = {}
        self._line = AudioLine(shared.bus, subjects.audio(claim.edge, claim.call), shared.clock.monotonic)
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._closed = False
        self._subscriptions: list[Subscription] = []
        self._saying: Saying | None = None
        self._sentence: asyncio.Task[None] | None = None
        self._speaker: asyncio.Task[None] | None = None
        self._usage: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many sentences wait for their turn."""
        return self._floor.waiting

    async def start(self) -> None:
        """Open a voice, subscribe and be ready to speak.

        No round trip is made to be sure: the claim is answered on the same connection, so behind the subscriptions.

        Raises:
            Unusable: the agent has no voice that could be opened here.
            BusUnavailable: the bus is gone.
        """
        await open_first(self._voices)
        for subject, on_message in (
            (subjects.assigned(self._call), self._on_assigned),
            (subjects.interrupt(self._call), self._on_interrupt),
            (subjects.speak(self._call), self._on_say),
        ):
            self._subscriptions.append(await self._shared.bus.subscribe(subject, on_message))
        self._speaker = asyncio.create_task(self._speak_on(), name=f"speech {self._call}")
        self._line.open()
        agent = self._claim.agent
        self._shared.clips.want(agent.tts, agent.clips, self._quiet)

    async def close(self, reason: str, *, goes_on: bool) -> None:
        """Stop in mid-word, tell what was used, and forget the call.

        When the edge is lost and nobody goes on with the call, what was used is stored as a fact too.
        """
        self._closed = True  # nothing more is published, however long the rest takes
        log.debug("speech closed", extra={"call": self._call, "reason": reason, "chunks": self._line.next_seq})
        self._line.close()
        tasks = [task for task in (self._speaker, self._sentence, self._usage) if task is not None]
        for task in tasks:
            task.cancel()
        for subscription in self._subscriptions:
            await subscription.unsubscribe()
        if tasks and (await asyncio.wait(tasks, timeout=_CLOSE_S))[1]:
            log.error("provider does not stop; going on without it", extra={"call": self._call})
            self._shared.metrics.dropped("did-not-stop")
        self._quiet.set()
        await asyncio.gather(*(voice.aclose() for voice in self._voices))
        await self._tell_usage()
        if reason == "edge-lost" and not goes_on:
            settled = StageSettled(stage="tts", epoch=self._claim.epoch, used=tuple(self._used.values()))
            self._shared.events.emit(self._call, settled, self._claim.tenant)
        await self._shared.events.flush()

    def repeat(self, missed: Missed) -> None:
        """Have audio that the edge has missed sent again."""
        if missed.epoch == self._claim.epoch:
            self._line.repeat(missed.seq)

    async def rest(self) -> None:
        """Return when nothing is being said and nothing waits."""
        await self._quiet.wait()

    def forget(self) -> None:
        """Let go of everything, when a provider has stopped that did not at once."""
        going = [task for task in (self._speaker, self._sentence, self._usage) if task is not None and not task.done()]
        if going:
            going[0].add_done_callback(lambda _: self.forget())
        else:
            vars(self).clear()

    # --- orders -------------------------------------------------------------------------------------------------------

    def _on_say(self, _subject: str, data: bytes) -> None:
        try:
            say = codec.decode(codec.SPEAK, data)
        except BadMessage as error:
            self._refuse("malformed", str(error))
            return
        verdict = self._floor.take(say) if say.voice in (0, self._claim.epoch) else Verdict.OTHER_VOICE
        if verdict is Verdict.TAKEN:
            self._quiet.clear()
        else:
            self._refuse(verdict.value, f"utterance {say.utterance} of generation {say.generation}")
        self._means.bell.ring()

    def _on_assigned(self, _subject: str, data: bytes) -> None:
        try:
            assigned = codec.decode(codec.ASSIGNED, data)
        except BadMessage as error:
            self._refuse("malformed", str(error))
            return
        if assigned.stage == "brain":
            self._floor.follow(assigned.epoch)
            self._means.bell.ring()

    def _on_interrupt(self, _subject: str, data: bytes) -> None:
        try:
            order = codec.decode(codec.INTERRUPT, data)
        except BadMessage as error:
            self._refuse("malformed", str(error))
            return
        cut = self._floor.interrupt(order)
        if cut.verdict is not Verdict.TAKEN:
            self._refuse(cut.verdict.value, f"interrupt to generation {order.generation}")
            return
        if cut.stop and self._sentence is not None:
            self._sentence.cancel()
        self._means.bell.ring()
        self._shared.metrics.dropped("interrupted", cut.dropped)
        log.info(
            "interrupted",
            extra={"call": self._call, "generation": order.generation, "stopped": cut.stop, "dropped": cut.dropped},
        )

    def _refuse(self, reason: str, what: str) -> None:
        self._shared.metrics.dropped(reason)
        log.warning("message not used", extra={"call": self._call, "reason": reason, "what": what})

    # --- speech -------------------------------------------------------------------------------------------------------

    async def _speak_on(self) -> None:
        try:
            while True:
                sentence = self._floor.next()
                if sentence is None:
                    self._quiet.set()
                    await self._means.bell.wait()
                    continue
                self._quiet.clear()
                saying = self._saying = Saying(sentence, self._means)
                # A task of its own, so that an interrupt can cancel the sentence and not the queue.
                self._sentence = asyncio.create_task(self._say(saying), name=f"sentence {self._call}")
                await self._until_over(self._sentence, sentence)
                if self._sentence.done() and self._sentence.cancelled() and self._floor.stands(sentence):
                    # Nobody of us did that: a library let its own cancellation out.
                    log.error("sentence cancelled from within", extra={"call": self._call})
                    await self._give_up(saying)
                self._plan_usage()
        finally:
            if self._sentence is not None:
                self._sentence.cancel()
                await asyncio.gather(self._sentence, return_exceptions=True)

    async def _until_over(self, speaking: asyncio.Task[None], sentence: Sentence) -> None:
        """Wait for the sentence, but not for a provider that does not stop when told."""
        while not speaking.done():
            void = not self._floor.stands(sentence)
            await asyncio.wait({speaking}, timeout=_STOP_S)
            if void and not speaking.done():
                log.error("provider does not stop; going on without it", extra={"call": self._call})
                self._shared.metrics.dropped("did-not-stop")
                return

    async def _say(self, saying: Saying) -> None:
        sentence = saying.sentence
        outcome = Outcome.CUT
        try:
            outcome = await saying.run()
        except AllFailed as error:
            outcome = Outcome.FAILED
            log.error(  # noqa: TRY400 - every failure that led to it is logged by itself
                "nobody can speak", extra={"call": self._call, "utterance": sentence.utterance, "kind": error.kind}
            )
            await self._give_up(saying)
        except Exception:
            outcome = Outcome.FAILED
            log.exception("sentence failed", extra={"call": self._call, "utterance": sentence.utterance})
            await self._give_up(saying)
        finally:
            self._shared.metrics.sentence(self._claim.agent.tts.provider, outcome)
        if sentence.dropped_chars:
            self._refuse("too-long", f"{sentence.dropped_chars} characters of utterance {sentence.utterance}")
        if outcome is Outcome.EMPTY:
            extra = {"call": self._call, "utterance": sentence.utterance, "pii.text": sentence.text}
            log.warning("nothing to say", extra=extra)

    async def _give_up(self, saying: Saying) -> None:
        """Nobody can speak: what else was to be said in this turn is not said, and the brain is told."""
        sentence = saying.sentence
        self._shared.metrics.dropped("nobody-speaks", self._floor.drop(sentence.generation))
        apologised = await saying.fail()
        await self._tell(
            SpeakingFailed(
                epoch=sentence.epoch,
                generation=sentence.generation,
                utterance=sentence.utterance,
                instead="apology" if apologised else "",
            )
        )

    # --- what leaves --------------------------------------------------------------------------------------------------

    async def _publish(self, sentence: Sentence, payload: bytes, flags: Flag) -> None:
        # A provider that is slow to stop cannot make void speech heard.
        await self._until_heard(sentence)
        if self._closed or not self._floor.stands(sentence):
            return
        chunk = AudioChunk(
            codec=Codec.PCM16,
            sample_rate_hz=RATE_HZ,
            flags=flags,
            epoch=self._claim.epoch,
            seq=self._line.next_seq,
            synthesised_us=int(self._shared.clock.wall() * 1_000_000),
            generation=sentence.generation,
            utterance=sentence.utterance,
            payload=payload,
        )
        sent = await self._line.send(chunk)
        if sent is None:
            self._shared.metrics.dropped("bus-unavailable")
            return
        self._shared.metrics.chunk(len(payload) / BYTES_PER_MS / 1_000)
        if self._shared.journal.on:
            self._note(sent)

    async def _until_heard(self, sentence: Sentence) -> None:
        """Wait while the bus is away, and until edges must be back as well: the carrier has what is to be heard now."""
        bus, clock = self._shared.bus, self._shared.clock
        given_up_at = clock.monotonic() + _BUS_AWAY_S
        while not bus.settled(BACK_S) and self._floor.stands(sentence) and not self._closed:
            if clock.monotonic() > given_up_at:
                return
            await asyncio.sleep(_LOOK_S)

    async def _tell(self, message: SpokenMessage) -> None:
        if message.generation >= self._floor.generation and not self._closed:
            await self._send(subjects.spoken(self._call), message)

    async def _send(self, subject: str, message: msgspec.Struct) -> None:
        try:
            await self._shared.bus.publish(subject, message)
        except BusError as error:
            self._shared.metrics.dropped("bus-unavailable")
            log.warning("message not sent", extra={"call": self._call, "problem": str(error)})

    def _on_failure(self, fact: ProviderFailed) -> None:
        if self._saying is None:
            self._record(fact)
        else:
            self._saying.failure(fact)

    def _record(self, fact: ProviderFailed) -> None:
        self._shared.health.record(self._call, self._claim.tenant, fact)
        self._shared.events.emit(self._call, fact, self._claim.tenant)

    def _plan_usage(self) -> None:
        """Tell what was used, soon; not more often than once a second."""
        if self._usage is None or self._usage.done():
            self._usage = asyncio.create_task(self._tell_usage_later(), name=f"usage {self._call}")

    async def _tell_usage_later(self) -> None:
        while True:
            if not await self._tell_usage():
                return
            await asyncio.sleep(_USAGE_S)

    async def _tell_usage(self) -> bool:
        """Tell what has changed; return whether anything had."""
        changed = self._meter.used()
        for used in changed:  # remembered first: this may be cancelled, and must be told all the same in the end
            self._used[used.provider, used.model] = used
        for used in changed:
            await self._send(subjects.usage(self._call), used)
        return bool(changed)

    def _note(self, chunk: AudioChunk) -> None:
        self._shared.journal.note(
            "spoke",
            self._call,
            epoch=chunk.epoch,
            generation=chunk.generation,
            utterance=chunk.utterance,
            seq=chunk.seq,
            ms=len(chunk.payload) / BYTES_PER_MS,
        )
