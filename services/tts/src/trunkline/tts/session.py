"""One call's speech: the shell around `Floor`.

It listens to ``call.<id>.speak`` and ``call.<id>.interrupt``, has one sentence at a time spoken by the call's voice and
publishes it as `AudioChunk`s to the edge. Every sentence that is not interrupted ends with a chunk flagged LAST, even
when it was empty or failed, so that nobody waits for it forever; a sentence that is cut gets none, because its
generation is void wherever it would arrive.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import NamedTuple

from trunkline.bus import Bus, Subscription
from trunkline.proto import codec, subjects
from trunkline.proto.errors import BadMessage
from trunkline.proto.frame import AudioChunk, Codec, Flag, pack_audio
from trunkline.proto.ids import Generation, Seq
from trunkline.proto.messages import Claim, Say
from trunkline.providers.errors import Transient
from trunkline.runtime.clock import Clock
from trunkline.tts.chunks import BYTES_PER_MS, RATE_HZ, SentenceChunks
from trunkline.tts.floor import Floor, Verdict
from trunkline.tts.metrics import Outcome, TtsMetrics
from trunkline.tts.provider import Spoken, TtsCapabilities, TtsVoice
from trunkline.tts.settings import TtsSettings
from trunkline.tts.text import speakable

log = logging.getLogger("trunkline.tts.session")


class Surroundings(NamedTuple):
    """What the calls of a process share."""

    bus: Bus
    clock: Clock
    metrics: TtsMetrics
    settings: TtsSettings


async def _whole(text: str) -> AsyncGenerator[str, None]:
    yield text


class CallSpeech:
    """What the agent says in one call. `start` it, and `close` it in the end."""

    def __init__(self, claim: Claim, voice: TtsVoice, capabilities: TtsCapabilities, shared: Surroundings) -> None:
        self._call = claim.call
        self._epoch = claim.epoch
        self._provider = claim.agent.tts.provider
        self._voice = voice
        self._gap_ms = capabilities.sentence_gap_ms
        self._shared = shared
        self._floor = Floor(claim.generation, shared.settings.queue_sentences)
        self._audio_subject = subjects.audio(claim.edge, claim.call)
        self._seq = 0
        self._last_spoken: Generation | None = None
        self._more = asyncio.Event()
        self._subscriptions: list[Subscription] = []
        self._sentence: asyncio.Task[None] | None = None
        self._speaker: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many sentences wait for their turn."""
        return self._floor.waiting

    async def start(self) -> None:
        """Subscribe and be ready to speak.

        No round trip is made to be sure: the claim is answered on the same connection, so behind the subscriptions.
        """
        for subject, on_message in (
            (subjects.interrupt(self._call), self._on_interrupt),
            (subjects.speak(self._call), self._on_say),
        ):
            self._subscriptions.append(await self._shared.bus.subscribe(subject, on_message))
        self._speaker = asyncio.create_task(self._speak_on(), name=f"speech {self._call}")

    async def close(self, reason: str) -> None:
        """Stop in mid-word and forget the call."""
        log.debug("speech closed", extra={"call": self._call, "reason": reason, "chunks": self._seq})
        for subscription in self._subscriptions:
            await subscription.unsubscribe()
        if self._speaker is not None:
            self._speaker.cancel()
            await asyncio.gather(self._speaker, return_exceptions=True)
        await self._voice.aclose()

    async def _on_say(self, _subject: str, data: bytes) -> None:
        try:
            say = codec.decode(codec.SPEAK, data)
        except BadMessage as error:
            self._refuse("malformed", str(error))
            return
        deposed = self._floor.deposed
        verdict = self._floor.take(say)
        self._shared.metrics.dropped("deposed-brain", self._floor.deposed - deposed)
        if verdict is Verdict.TAKEN:
            self._more.set()
        else:
            self._refuse(verdict.value, f"utterance {say.utterance} of generation {say.generation}")

    async def _on_interrupt(self, _subject: str, data: bytes) -> None:
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
        self._shared.metrics.dropped("interrupted", cut.dropped)
        log.info(
            "interrupted",
            extra={"call": self._call, "generation": order.generation, "stopped": cut.stop, "dropped": cut.dropped},
        )

    def _refuse(self, reason: str, what: str) -> None:
        self._shared.metrics.dropped(reason)
        log.warning("message not used", extra={"call": self._call, "reason": reason, "what": what})

    async def _speak_on(self) -> None:
        try:
            while True:
                say = self._floor.next()
                if say is None:
                    self._more.clear()
                    await self._more.wait()
                    continue
                # A task of its own, so that an interrupt can cancel the sentence and not the queue.
                self._sentence = asyncio.create_task(self._say(say), name=f"sentence {self._call}")
                await asyncio.wait({self._sentence})
        finally:
            if self._sentence is not None:
                self._sentence.cancel()
                await asyncio.gather(self._sentence, return_exceptions=True)

    async def _say(self, say: Say) -> None:
        outcome = Outcome.CUT
        try:
            outcome = await self._synthesise(say)
        except Exception:
            outcome = Outcome.FAILED
            log.exception("sentence failed", extra={"call": self._call, "utterance": say.utterance})
            await self._publish(say, b"", Flag.LAST)
        finally:
            self._shared.metrics.sentence(self._provider, outcome)

    async def _synthesise(self, say: Say) -> Outcome:
        text, dropped_chars = speakable(say.text)
        if dropped_chars:
            self._refuse("too-long", f"{dropped_chars} characters at the end of utterance {say.utterance}")
        goes_on = self._last_spoken == say.generation
        chunks = SentenceChunks(self._voice.sample_rate_hz, self._gap_ms if goes_on else 0)
        began = self._shared.clock.monotonic()
        heard = False
        if text:
            async with contextlib.aclosing(self._voice.speak(_whole(text))) as pieces:
                while piece := await self._next_of(pieces):
                    for payload in chunks.push(piece):
                        await self._publish(say, payload)
                        if not heard:
                            heard = True
                            self._shared.metrics.first_audio(self._provider, self._shared.clock.monotonic() - began)
        *rest, last = chunks.end()
        for payload in rest:
            await self._publish(say, payload)
        await self._publish(say, last, Flag.LAST)
        if heard or rest or last:
            self._last_spoken = say.generation
            return Outcome.SPOKEN
        log.warning("nothing to say", extra={"call": self._call, "utterance": say.utterance, "pii.text": say.text})
        return Outcome.EMPTY

    async def _next_of(self, pieces: AsyncGenerator[Spoken, None]) -> bytes:
        """Return the provider's next piece that is not empty; nothing at the end."""
        limit_ms = self._shared.settings.stall_ms
        try:
            async with asyncio.timeout(limit_ms / 1_000):
                async for piece in pieces:
                    if isinstance(piece, bytes) and piece:
                        return piece
        except TimeoutError as error:
            raise Transient(f"the provider was silent for {limit_ms} ms") from error
        return b""

    async def _publish(self, say: Say, payload: bytes, flags: Flag = Flag.NONE) -> None:
        # A provider that is slow to stop cannot make void speech heard.
        if not self._floor.stands(say):
            return
        chunk = AudioChunk(
            codec=Codec.PCM16,
            sample_rate_hz=RATE_HZ,
            flags=flags,
            epoch=self._epoch,
            seq=Seq(self._seq),
            synthesised_us=int(self._shared.clock.wall() * 1_000_000),
            generation=say.generation,
            utterance=say.utterance,
            payload=payload,
        )
        self._seq += 1
        if await self._shared.bus.media.publish_frame(self._audio_subject, pack_audio(chunk)):
            self._shared.metrics.chunk(len(payload) / BYTES_PER_MS / 1_000)
        else:
            self._shared.metrics.dropped("bus-unavailable")
