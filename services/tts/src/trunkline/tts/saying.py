"""One sentence on its way to the caller: by a clip, by a provider, by the next one after that, or by an apology.

What was published is never said again. A provider that fails before any sound is replaced without a trace (`Attempts`);
one that breaks off is replaced from the next word on (`resume`). Every piece of sound passes `_heard`, so the audio of
an utterance is one stream whoever speaks: filler, gap, voices, apology.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from trunkline.audio.levels import silence
from trunkline.proto.agent import Agent
from trunkline.proto.events import ProviderFailed
from trunkline.proto.frame import Flag
from trunkline.proto.ids import Generation
from trunkline.proto.messages import SpokenMessage, WordsTimed
from trunkline.providers.attempts import AllFailed, Attempts, BrokeOff, Candidate
from trunkline.runtime.clock import Clock
from trunkline.tts.chunks import BYTES_PER_MS, RATE_HZ, SentenceChunks
from trunkline.tts.clips import Clips
from trunkline.tts.feed import Bell, Draft, Feed
from trunkline.tts.fillers import Fillers
from trunkline.tts.metrics import Outcome, TtsMetrics
from trunkline.tts.provider import Points, Spoken
from trunkline.tts.resume import Timing, resume_at
from trunkline.tts.sentence import Sentence
from trunkline.tts.voices import CallVoice

log = logging.getLogger("trunkline.tts.saying")

_RESUMPTIONS: Final = 4
"""After so many providers have broken off in one sentence its rest is given up."""
_MOST_EARLY: Final = 1_000
"""Timings before the first sound that are kept; a sentence has no more characters."""


class Memory:
    """What the caller has heard of the agent, as far as the next sentence's beginning hangs on it."""

    def __init__(self) -> None:
        self.spoken: Generation | None = None
        """The generation spoken in last."""
        self.apologised: Generation | None = None


class Means(NamedTuple):
    """What a call's sentences are spoken with."""

    agent: Agent
    lines: Mapping[str, str]
    """What is said word for word in any call, by how it is when it has been made speakable."""
    voices: Sequence[CallVoice]
    attempts: Attempts[Spoken]
    clips: Clips
    memory: Memory
    bell: Bell
    clock: Clock
    metrics: TtsMetrics
    pieces_stall_s: float
    publish: Callable[[Sentence, bytes, Flag], Awaitable[None]]
    tell: Callable[[SpokenMessage], Awaitable[None]]
    failed: Callable[[ProviderFailed], None]


class _Stretch:
    """What one stream of `Attempts` has said: a beginning of the sentence, or a part from its midst."""

    def __init__(self, start: int, feeds: list[Feed]) -> None:
        self.start = start
        self.feeds = feeds
        self.candidate: int | None = None
        self.base_ms = 0.0
        self.sound_bytes = 0
        self.timing = Timing()
        self.early: list[Points] = []

    @property
    def text(self) -> str:
        return "" if self.candidate is None else self.feeds[self.candidate].text

    @property
    def ms(self) -> float:
        return self.sound_bytes / BYTES_PER_MS


class Saying:
    """The speaking of one sentence."""

    def __init__(self, sentence: Sentence, means: Means) -> None:
        self.sentence = sentence
        self._means = means
        self._draft = Draft(sentence, means.bell, means.pieces_stall_s)
        self._chunks = SentenceChunks()
        self._began_at = means.clock.monotonic()
        self._stretch: _Stretch | None = None
        self._broke_off: ProviderFailed | None = None
        self._voiced = False
        """Whether sound of the sentence itself was heard, not only a filler."""
        turns = means.agent.turns
        wanted = sentence.filler_at > 0 and means.memory.spoken != sentence.generation
        self._fillers = Fillers(sentence.filler_at, turns.filler_again_ms / 1_000, len(turns.fillers) if wanted else 0)

    async def run(self) -> Outcome:
        """Speak it, and end it with a chunk flagged LAST.

        Raises:
            AllFailed: nobody could speak it, or its rest; `fail` is to follow.
        """
        clip = self._clip()
        if clip is not None:
            self._means.metrics.clip("played")
            await self._gap()
            await self._heard(clip)
        else:
            await self._speak()
        await self._end()
        return Outcome.SPOKEN if self._voiced or clip is not None else Outcome.EMPTY

    async def fail(self) -> bool:
        """End it because nobody can speak it; return whether the caller was given our apology."""
        means, sentence = self._means, self.sentence
        line = means.lines.get(sentence.text) or means.agent.apology
        apology = means.clips.find_any(means.agent.tts, line)
        if means.memory.apologised == sentence.generation:
            apology = None
        if apology is not None:
            means.memory.apologised = sentence.generation
            await self._gap()
            await self._heard(apology)
        await self._end()
        return apology is not None

    def failure(self, fact: ProviderFailed) -> None:
        """Take what `Attempts` tells of a failure, and pass it on once it is known what follows."""
        for voice in self._means.voices:
            voice.begin()
        if self._stretch is not None and self._stretch.sound_bytes:
            self._broke_off = fact
        else:
            self._means.failed(fact)

    # --- sound --------------------------------------------------------------------------------------------------------

    def _clip(self) -> bytes | None:
        line = self._means.lines.get(self.sentence.text) if self.sentence.complete else None
        return None if line is None else self._means.clips.find(self._means.agent.tts, line)

    async def _speak(self) -> None:
        async with contextlib.aclosing(self._sound()) as sound:
            while (pcm := await self._next(sound)) is not None:
                await self._heard(pcm)
                if not self._voiced:
                    self._voiced = True
                    took_s = self._means.clock.monotonic() - self._began_at
                    self._means.metrics.first_audio(self._label(), took_s)

    async def _next(self, sound: AsyncGenerator[bytes, None]) -> bytes | None:
        """Return what comes next of `sound`, None at its end; until the first comes, fillers are said."""
        if self._voiced:
            return await anext(sound, None)
        clock = self._means.clock
        coming = asyncio.ensure_future(_step(sound))
        try:
            while not coming.done():
                await asyncio.wait({coming}, timeout=self._fillers.wait_s(clock.wall()))
                if not coming.done() and (number := self._fillers.due(clock.wall())) is not None:
                    await self._fill(number)
            return coming.result()
        finally:
            if not coming.done():
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)

    async def _fill(self, number: int) -> None:
        agent = self._means.agent
        clip = self._means.clips.find_any(agent.tts, agent.turns.fillers[number])
        if clip is None:
            self._fillers.stop()
            return
        self._fillers.said(self._means.clock.wall(), len(clip) / BYTES_PER_MS / 1_000)
        self._means.metrics.clip("filler")
        await self._heard(clip)
        if rest := self._chunks.rest():
            await self._means.publish(self.sentence, rest, Flag.NONE)
        await self._mark(((0, round(self._chunks.ms)),))  # none of the sentence yet

    async def _sound(self) -> AsyncGenerator[bytes, None]:
        """Yield the sentence as sound, with silence before it where there must be some."""
        start = 0
        if not self._means.voices[0].capabilities.streams_text:
            await self._draft.whole()
        for resumptions in range(_RESUMPTIONS + 1):
            if not await self._draft.beyond(start):
                return
            stretch = self._stretch = self._begin(start)
            try:
                async with contextlib.aclosing(self._stream(stretch)) as sound:
                    async for pcm in sound:
                        yield pcm
            except BrokeOff as error:
                start = self._after(stretch)
                self._tell_break(error.candidate, start, last=resumptions == _RESUMPTIONS)
                if resumptions == _RESUMPTIONS:
                    raise AllFailed(error.error) from error
            else:
                if stretch.candidate is not None:
                    self._means.voices[stretch.candidate].pace.heard(len(stretch.text), stretch.ms)
                return

    def _begin(self, start: int) -> _Stretch:
        feeds = [Feed(self._draft, start, self._means.clock.monotonic) for _ in self._means.voices]
        return _Stretch(start, feeds)

    async def _stream(self, stretch: _Stretch) -> AsyncGenerator[bytes, None]:
        candidates = [self._candidate(number, voice, stretch) for number, voice in enumerate(self._means.voices)]
        things = self._means.attempts.stream(candidates, lambda thing: isinstance(thing, bytes))
        async with contextlib.aclosing(things):
            async for number, thing in things:
                match thing:
                    case bytes():
                        if stretch.candidate is None:
                            stretch.candidate = number
                            if not self._voiced and (gap := self._gap_before(number)):
                                yield gap
                            stretch.base_ms = self._chunks.ms
                            for points in stretch.early:
                                await self._time(stretch, points)
                        stretch.sound_bytes += len(thing)
                        yield thing
                    case Points() if stretch.candidate is None:
                        if len(stretch.early) < _MOST_EARLY:
                            stretch.early.append(thing)
                    case Points():
                        await self._time(stretch, thing)

    def _candidate(self, number: int, voice: CallVoice, stretch: _Stretch) -> Candidate[Spoken]:
        def start() -> AsyncGenerator[Spoken, None]:
            stretch.feeds[number] = Feed(self._draft, stretch.start, self._means.clock.monotonic)
            stretch.early.clear()
            return voice.speak(stretch.feeds[number])

        return Candidate(voice.choice, voice.choice.timeouts, start, lambda: stretch.feeds[number].owing_since)

    def _after(self, stretch: _Stretch) -> int:
        """Return where the sentence goes on after `stretch` broke off."""
        if stretch.candidate is None:
            return stretch.start
        pace = self._means.voices[stretch.candidate].pace.ms_per_character
        return stretch.start + resume_at(stretch.text, stretch.ms, stretch.timing.points, pace)

    def _tell_break(self, candidate: int, start: int, *, last: bool) -> None:
        fact, self._broke_off = self._broke_off, None
        if fact is None:
            return
        voices = self._means.voices
        nothing_left = self.sentence.complete and start >= len(self.sentence.text)
        following = next((voice.label for number, voice in enumerate(voices) if number != candidate), "")
        if last:
            fact = msgspec.structs.replace(fact, then="apology", to="")
        elif nothing_left:
            fact = msgspec.structs.replace(fact, then="nothing", to="")
        else:
            then = "fallback" if following else "retry"
            fact = msgspec.structs.replace(fact, then=then, to=following or fact.provider)
        self._means.failed(fact)

    # --- what leaves --------------------------------------------------------------------------------------------------

    async def _heard(self, pcm: bytes) -> None:
        """Publish `pcm` as the utterance's next sound."""
        for payload in self._chunks.push(pcm):
            await self._means.publish(self.sentence, payload, Flag.NONE)
        self._means.memory.spoken = self.sentence.generation

    async def _gap(self) -> None:
        """Put silence between a clip and what was heard before it."""
        if gap := self._gap_before(0):
            await self._heard(gap)

    def _gap_before(self, number: int) -> bytes:
        if self._means.memory.spoken != self.sentence.generation:
            return b""
        return silence(self._means.voices[number].capabilities.sentence_gap_ms, RATE_HZ)

    async def _end(self) -> None:
        await self._means.publish(self.sentence, self._chunks.rest(), Flag.LAST)

    async def _time(self, stretch: _Stretch, said: Points) -> None:
        believed = stretch.timing.push(said.points, len(stretch.text))
        if not believed:
            return
        original = self.sentence.original
        await self._mark(tuple((original(stretch.start + upto), round(stretch.base_ms + ms)) for upto, ms in believed))

    async def _mark(self, points: tuple[tuple[int, int], ...]) -> None:
        sentence = self.sentence
        await self._means.tell(
            WordsTimed(
                epoch=sentence.epoch, generation=sentence.generation, utterance=sentence.utterance, points=points
            )
        )

    def _label(self) -> str:
        stretch = self._stretch
        number = 0 if stretch is None or stretch.candidate is None else stretch.candidate
        return self._means.voices[number].choice.provider


async def _step(sound: AsyncGenerator[bytes, None]) -> bytes | None:
    return await anext(sound, None)
