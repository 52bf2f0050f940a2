"""What every text-to-speech provider must do, as checks that anybody can run on their own.

Each rule is a function of `RULES`; its docstring states it. They speak to a live service, or to what stands in for it,
and break nothing on purpose; where `unreachable` is given, they also see what happens when nobody answers. Needs no
test framework.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise
from typing import Final

import msgspec
import numpy as np

from trunkline.proto.agent import Tts
from trunkline.providers.conformance import Broken, NotConformant, keeps, nothing_left, require, within
from trunkline.providers.errors import ProviderError
from trunkline.tts.provider import Billed, Points, TtsProvider, TtsVoice

__all__ = ["RULES", "NotConformant", "check_tts_provider"]

SENTENCE: Final = "Your table for four people is booked for tomorrow at eight."
OTHER: Final = "Thank you very much for calling, and goodbye."
LONG: Final = " and then ".join(["we look forward to seeing you and all of your friends here tomorrow"] * 12)[
    :900
].strip()
SPEAK_S: Final = 60.0
"""How long a sentence is waited for; the limits of a call are the service's business."""
STOP_S: Final = 1.0
LOST_S: Final = 5.0
LOUD: Final = 200
"""Peak, of 32768, from which on something can be heard."""
ALIKE: Final = (0.6, 1.6)
"""How much shorter or longer a sentence may be when it is spoken again: voices vary."""
_SLACK_MS: Final = 250


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules are tried on; see `check_tts_provider`."""

    make: Callable[[], TtsProvider]
    tts: Tts
    unreachable: Callable[[], TtsProvider] | None
    ms_per_character: tuple[float, float]


Rule = Callable[[Asked], Awaitable[None]]


async def check_tts_provider(
    make: Callable[[], TtsProvider],
    tts: Tts,
    *,
    unreachable: Callable[[], TtsProvider] | None = None,
    ms_per_character: tuple[float, float] = (30.0, 250.0),
    rules: Sequence[Rule] | None = None,
) -> None:
    """Try `RULES` on a provider.

    Args:
        make: makes it, as a process would; called anew for every rule.
        tts: what an agent asks of it; an English voice.
        unreachable: makes one whose service does not answer: its address is a closed port.
        ms_per_character: the least and the most that speech can take.
        rules: others than `RULES`, or some of them.

    Raises:
        NotConformant: a rule is broken.
    """
    await keeps(
        RULES if rules is None else rules,
        Asked(make=make, tts=tts, unreachable=unreachable, ms_per_character=ms_per_character),
    )


class Said(msgspec.Struct, frozen=True):
    """A sentence, and what was yielded for it."""

    text: str
    pcm: bytes
    rate_hz: int
    points: tuple[tuple[int, int], ...]
    billed: tuple[int, ...]

    @property
    def ms(self) -> float:
        """Its length."""
        return len(self.pcm) / 2 / self.rate_hz * 1000


@asynccontextmanager
async def _provider(asked: Asked, make: Callable[[], TtsProvider] | None = None) -> AsyncIterator[TtsProvider]:
    provider = (make or asked.make)()
    try:
        provider.check(asked.tts)
        yield provider
    finally:
        await provider.aclose()


@asynccontextmanager
async def _voice(asked: Asked, provider: TtsProvider) -> AsyncIterator[TtsVoice]:
    voice = await provider.open(asked.tts)
    try:
        yield voice
    finally:
        await within(STOP_S, voice.aclose(), "aclose of the voice")


async def _written(*pieces: str) -> AsyncGenerator[str, None]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)


async def _say(voice: TtsVoice, *pieces: str) -> Said:
    """Have the sentence of `pieces` spoken; every piece of sound is whole samples."""
    sound: list[bytes] = []
    points: list[tuple[int, int]] = []
    billed: list[int] = []

    async def whole() -> None:
        async with aclosing(voice.speak(_written(*pieces))) as things:
            async for thing in things:
                match thing:
                    case bytes():
                        require(len(thing) % 2 == 0, f"a piece of {len(thing)} bytes is cut within a sample")
                        sound.append(thing)
                    case Points():
                        points.extend(thing.points)
                    case Billed():
                        billed.append(thing.characters)
                    case other:
                        raise Broken(f"yielded {type(other).__name__}")

    await within(SPEAK_S, whole(), "a sentence")
    return Said("".join(pieces), b"".join(sound), voice.sample_rate_hz, tuple(points), tuple(billed))


def _can_be_heard(asked: Asked, said: Said) -> None:
    least, most = (len(said.text) * ms for ms in asked.ms_per_character)
    require(least <= said.ms <= most, f"{len(said.text)} characters take {said.ms:.0f} ms: {said.text[:40]!r}")
    loudest = int(np.abs(np.frombuffer(said.pcm, "<i2").astype(np.int32)).max(initial=0))
    require(loudest >= LOUD, f"{said.ms:.0f} ms of silence: {said.text[:40]!r}")


def _alike(one: Said, other: Said, when: str) -> None:
    ratio = other.ms / max(1.0, one.ms)
    require(ALIKE[0] <= ratio <= ALIKE[1], f"{one.ms:.0f} ms in one piece, {other.ms:.0f} ms {when}")


# --- the rules --------------------------------------------------------------------------------------------------------


async def speaks_sentences_that_can_be_heard(asked: Asked) -> None:
    """Sentences, one after the other, are whole samples at the voice's rate, audible and of a plausible length."""
    async with _provider(asked) as provider, _voice(asked, provider) as voice:
        require(8_000 <= voice.sample_rate_hz <= 48_000, f"a rate of {voice.sample_rate_hz} Hz")
        for sentence in (SENTENCE, OTHER, SENTENCE):
            _can_be_heard(asked, await _say(voice, sentence))


async def speaks_a_sentence_that_is_still_being_written(asked: Asked) -> None:
    """With `streams_text`, a sentence in pieces cut between words is about as long as the same in one piece."""
    async with _provider(asked) as provider, _voice(asked, provider) as voice:
        if not provider.capabilities.streams_text:
            return
        whole = await _say(voice, SENTENCE)
        words = re.findall(r"\S+ ?", SENTENCE)
        for size in (1, 4):
            pieces = ["".join(words[at : at + size]) for at in range(0, len(words), size)]
            in_pieces = await _say(voice, *pieces)
            _can_be_heard(asked, in_pieces)
            _alike(whole, in_pieces, f"in {len(pieces)} pieces")


async def stops_when_it_is_closed(asked: Asked) -> None:
    """Closing or cancelling a sentence takes a second at most, and nothing of it is in the next one."""
    async with _provider(asked) as provider, _voice(asked, provider) as voice:
        whole = await _say(voice, OTHER)
        await within(STOP_S, voice.speak(_written(LONG)).aclose(), "closing what has not begun")
        begun = voice.speak(_written(LONG))
        await within(SPEAK_S, anext(begun), "the first sound")
        await within(STOP_S, begun.aclose(), "closing a sentence")
        _alike(whole, await _say(voice, OTHER), "after a sentence that was closed")
        waited = voice.speak(_written(LONG))
        waiting = asyncio.ensure_future(anext(waited))
        await asyncio.sleep(0)
        waiting.cancel()
        await within(STOP_S, asyncio.wait({waiting}), "cancelling whoever waits")
        await within(STOP_S, waited.aclose(), "closing what was cancelled")
        _alike(whole, await _say(voice, OTHER), "after a sentence that was cancelled")


async def survives_what_cannot_be_pronounced(asked: Asked) -> None:
    """A sentence of nothing to pronounce ends, without error or with a `ProviderError`; the next one is spoken."""
    async with _provider(asked) as provider, _voice(asked, provider) as voice:
        for nothing in ("…", "—"):
            try:
                await _say(voice, nothing)
            except ProviderError:
                continue
        _can_be_heard(asked, await _say(voice, SENTENCE))


async def places_words_within_their_sentence(asked: Asked) -> None:
    """`Points` come only with `word_times`; they rise, and lie within the sentence's text and audio.

    None may come for these settings: a vendor may tell times on one of its transports only.
    """
    async with _provider(asked) as provider, _voice(asked, provider) as voice:
        for sentence in (SENTENCE, OTHER):
            said = await _say(voice, sentence)
            if not said.points:
                continue
            require(provider.capabilities.word_times, "Points without word_times")
            rising = all(one[0] <= other[0] and one[1] <= other[1] for one, other in pairwise(said.points))
            require(rising, f"they do not rise: {said.points}")
            inside = min(said.points[0]) >= 0 and said.points[-1][0] <= len(sentence)
            require(
                inside and said.points[-1][1] <= said.ms + _SLACK_MS,
                f"not within {len(sentence)} characters and {said.ms:.0f} ms: {said.points}",
            )


async def tells_what_a_sentence_used(asked: Asked) -> None:
    """With `usage`, `Billed` comes for a sentence; whenever it comes, it counts something."""
    async with _provider(asked) as provider, _voice(asked, provider) as voice:
        said = await _say(voice, SENTENCE)
        require(said.billed or not provider.capabilities.usage, "no Billed")
        require(all(characters > 0 for characters in said.billed), f"billed {said.billed}")


async def speaks_a_long_sentence(asked: Asked) -> None:
    """A sentence of 900 characters is spoken whole."""
    async with _provider(asked) as provider, _voice(asked, provider) as voice:
        _can_be_heard(asked, await _say(voice, LONG))


async def keeps_two_calls_apart(asked: Asked) -> None:
    """Two voices at once speak their sentences, each at its length; closing one leaves the other."""
    async with _provider(asked) as provider, _voice(asked, provider) as one:
        alone = await _say(one, SENTENCE)
        async with _voice(asked, provider) as other:
            both = await asyncio.gather(_say(one, SENTENCE), _say(other, OTHER))
        for said in both:
            _can_be_heard(asked, said)
        _alike(alone, both[0], "beside another voice")
        _alike(alone, await _say(one, SENTENCE), "after another voice was closed")


async def closes_within_a_second(asked: Asked) -> None:
    """`aclose` of a voice returns within a second: unused, after a sentence, and a second time."""
    async with _provider(asked) as provider:
        async with _voice(asked, provider):
            pass
        async with _voice(asked, provider) as voice:
            await _say(voice, OTHER)
            await within(STOP_S, voice.aclose(), "aclose of the voice")


async def leaves_nothing_running(asked: Asked) -> None:
    """When voices and provider are closed, no task of theirs runs on."""
    async with nothing_left(), _provider(asked) as provider:
        await provider.warm(asked.tts)
        async with _voice(asked, provider) as voice:
            await _say(voice, OTHER)
            begun = voice.speak(_written(LONG))
            await within(SPEAK_S, anext(begun), "the first sound")
            await begun.aclose()


async def says_that_nobody_can_be_reached(asked: Asked) -> None:
    """When its service cannot be reached, `speak` raises a `ProviderError` within 5 s; `warm` and `open` do not."""
    if asked.unreachable is None:
        return
    async with nothing_left(), _provider(asked, asked.unreachable) as provider:
        await within(LOST_S, provider.warm(asked.tts), "warm")
        async with _voice(asked, provider) as voice:
            try:
                said = await within(LOST_S, _say(voice, SENTENCE), "failing")
            except ProviderError:
                return
            raise Broken(f"{said.ms:.0f} ms of sound without a service")


RULES: Final[tuple[Rule, ...]] = (
    speaks_sentences_that_can_be_heard,
    speaks_a_sentence_that_is_still_being_written,
    stops_when_it_is_closed,
    survives_what_cannot_be_pronounced,
    places_words_within_their_sentence,
    tells_what_a_sentence_used,
    speaks_a_long_sentence,
    keeps_two_calls_apart,
    closes_within_a_second,
    leaves_nothing_running,
    says_that_nobody_can_be_reached,
)
"""In the order they are tried."""
