"""What every speech-to-text provider must do, as checks that anybody can run on their own.

Each rule is a function of `RULES`; its docstring states it. They speak to a live service, or to what stands in for it,
and break nothing on purpose; where `unreachable` is given, they also see what happens when nobody answers. Needs no
test framework.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Final as Constant

import msgspec

from trunkline.proto.agent import Stt
from trunkline.proto.ids import UtteranceId
from trunkline.providers.conformance import Broken, NotConformant, keeps, nothing_left, require, within
from trunkline.stt.intake import PCM_BYTES
from trunkline.stt.provider import Failed, Final, Heard, Lost, Partial, SttProvider, SttStream

__all__ = ["RULES", "NotConformant", "Utterance", "check_stt_provider"]

OPEN_S: Constant = 0.05
CLOSE_S: Constant = 1.0
FINAL_S: Constant = 10.0
"""How long a `Final` is waited for; the limits of a call are the service's business."""
LOST_S: Constant = 5.0
ALIKE: Constant = 0.5
"""From which likeness on, 0 … 1, an utterance counts as understood: recognisers err, and spell as they like."""
_BEFORE_BYTES: Constant = 300 * 16
_AFTER_BYTES: Constant = 600 * 16
_ONSET_BYTES: Constant = 96 * 16
"""Voice that has been pushed before it is known to be an utterance."""
FIRST, SECOND = UtteranceId(1), UtteranceId(2)


class Utterance(msgspec.Struct, frozen=True):
    """Something said: its words, and its sound without silence around it, PCM16 little-endian at 8 kHz, up to 8 s."""

    text: str
    pcm: bytes


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules are tried on; see `check_stt_provider`."""

    make: Callable[[], SttProvider]
    stt: Stt
    said: tuple[Utterance, Utterance]
    unreachable: Callable[[], SttProvider] | None
    pace: float

    @property
    def quiet_s(self) -> float:
        """How long to listen for what should not be told."""
        return max(0.2, 1 / self.pace)


Rule = Callable[[Asked], Awaitable[None]]


async def check_stt_provider(
    make: Callable[[], SttProvider],
    stt: Stt,
    *,
    utterances: Sequence[Utterance],
    unreachable: Callable[[], SttProvider] | None = None,
    pace: float = 1.0,
    rules: Sequence[Rule] | None = None,
) -> None:
    """Try `RULES` on a provider.

    Args:
        make: makes it, as a process would; called anew for every rule.
        stt: what an agent asks of it.
        utterances: two that differ, in the language of `stt`.
        unreachable: makes one whose service does not answer: its address is a closed port.
        pace: how many times faster than life is spoken; services may not take more than 1.
        rules: others than `RULES`, or some of them.

    Raises:
        NotConformant: a rule is broken.
    """
    first, second = utterances
    await keeps(
        RULES if rules is None else rules,
        Asked(make=make, stt=stt, said=(first, second), unreachable=unreachable, pace=pace),
    )


class Line:
    """A caller, and what is heard of them."""

    def __init__(self, asked: Asked, provider: SttProvider) -> None:
        self._pace = asked.pace
        self._segments = provider.capabilities.needs_vad_segments
        self.heard: list[Heard] = []
        self.stray: list[Heard] = []
        self._owed: set[UtteranceId] = set()
        self._news = asyncio.Event()
        self.stream: SttStream | None = None

    @property
    def ear(self) -> SttStream:
        """The stream, once it is open."""
        if self.stream is None:
            raise Broken("there is no stream")
        return self.stream

    def on_heard(self, heard: Heard) -> None:
        """Note what is told."""
        self.heard.append(heard)
        if isinstance(heard, Partial) and heard.utterance not in self._owed:
            self.stray.append(heard)
        if isinstance(heard, Final | Failed):
            self._owed.discard(heard.utterance)
        self._news.set()

    async def say(self, utterance: UtteranceId, said: Utterance, *, at_once: bool = False) -> None:
        """Say it as a call delivers it: at the pace, or all at once."""
        if self._segments:
            self._begin(utterance)
            await self._push(bytes(_BEFORE_BYTES), at_once=at_once, voiced=False)
            await self._push(said.pcm, at_once=at_once)
        else:
            await self._push(bytes(_BEFORE_BYTES), at_once=at_once, voiced=False)
            await self._push(said.pcm[:_ONSET_BYTES], at_once=at_once)
            self._begin(utterance)
            await self._push(said.pcm[_ONSET_BYTES:], at_once=at_once)
        await self._push(bytes(_AFTER_BYTES), at_once=at_once, voiced=False)
        self.ear.finish()

    async def answered(self, utterance: UtteranceId) -> Final:
        """Wait for the words of `utterance`, while the call goes on in silence, and return them."""

        def answers(heard: Heard) -> bool:
            return isinstance(heard, Lost) or (isinstance(heard, Final | Failed) and heard.utterance == utterance)

        heard = await within(FINAL_S, self._told(answers), f"the final of utterance {utterance}")
        if not isinstance(heard, Final):
            raise Broken(f"utterance {utterance} got {heard!r}")
        return heard

    async def given_up(self) -> None:
        """Wait until the provider says that words will not come."""
        await self._told(lambda heard: isinstance(heard, Lost | Failed))

    def finals(self, *utterances: UtteranceId) -> list[UtteranceId]:
        """Return whose finals have come, in order."""
        chosen = utterances or (FIRST, SECOND)
        return [heard.utterance for heard in self.heard if isinstance(heard, Final) and heard.utterance in chosen]

    async def _told(self, wanted: Callable[[Heard], bool]) -> Heard:
        while not (found := [heard for heard in self.heard if wanted(heard)]):
            if not self._segments:
                await self._push(bytes(PCM_BYTES), voiced=False)
            else:
                self._news.clear()
                await self._news.wait()
        return found[0]

    def _begin(self, utterance: UtteranceId) -> None:
        self._owed.add(utterance)
        self.ear.begin(utterance)

    async def _push(self, pcm: bytes, *, voiced: bool = True, at_once: bool = False) -> None:
        for at in range(0, len(pcm), PCM_BYTES):
            frame = pcm[at : at + PCM_BYTES]
            self.ear.push(frame, voiced=voiced)
            if not at_once:
                await asyncio.sleep(len(frame) / 16_000 / self._pace)


@asynccontextmanager
async def _provider(asked: Asked, make: Callable[[], SttProvider] | None = None) -> AsyncIterator[SttProvider]:
    provider = (make or asked.make)()
    try:
        provider.check(asked.stt)
        await provider.warm_up()
        yield provider
    finally:
        await provider.aclose()


@asynccontextmanager
async def _line(asked: Asked, provider: SttProvider) -> AsyncIterator[Line]:
    line = Line(asked, provider)
    line.stream = await provider.open(asked.stt, line.on_heard)
    try:
        yield line
    finally:
        await line.stream.aclose()


@asynccontextmanager
async def _call(asked: Asked) -> AsyncIterator[Line]:
    async with _provider(asked) as provider, _line(asked, provider) as line:
        yield line


def _understood(final: Final, said: Utterance) -> None:
    expected, found = _words(said.text), _words(final.text)
    alike = SequenceMatcher(None, expected, found, autojunk=False).ratio()
    require(alike >= ALIKE, f"utterance {final.utterance} is {said.text!r}, heard as {final.text!r}")


def _words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


# --- the rules --------------------------------------------------------------------------------------------------------


async def opens_at_once(asked: Asked) -> None:
    """`open` returns within 50 ms; the connection is made behind it (the quickest of three counts)."""
    loop, took_s = asyncio.get_running_loop(), []
    async with _provider(asked) as provider:
        for _ in range(3):
            began = loop.time()
            stream = await provider.open(asked.stt, lambda _: None)
            took_s.append(loop.time() - began)
            await stream.aclose()
    require(min(took_s) <= OPEN_S, f"open takes {min(took_s) * 1000:.0f} ms")


async def tells_one_final_for_each_utterance_in_order(asked: Asked) -> None:
    """Two utterances give exactly one `Final` each, in order, under their ids, with their words."""
    async with _call(asked) as line:
        for utterance, said in zip((FIRST, SECOND), asked.said, strict=True):
            await line.say(utterance, said)
            _understood(await line.answered(utterance), said)
        await asyncio.sleep(asked.quiet_s)
        require(line.finals() == [FIRST, SECOND], f"finals for utterances {line.finals()}")


async def may_be_given_the_next_utterance_before_the_final(asked: Asked) -> None:
    """An utterance may begin while an earlier one awaits its `Final`: both come, in order, with their words."""
    async with _call(asked) as line:
        for utterance, said in zip((FIRST, SECOND), asked.said, strict=True):
            await line.say(utterance, said)
        for utterance, said in zip((FIRST, SECOND), asked.said, strict=True):
            _understood(await line.answered(utterance), said)
        require(line.finals() == [FIRST, SECOND], f"finals for utterances {line.finals()}")


async def tells_partials_only_where_they_belong(asked: Asked) -> None:
    """`Partial`s come only with `interim_results`, and only for an utterance that has begun and has no final yet."""
    async with _provider(asked) as provider, _line(asked, provider) as line:
        for utterance, said in zip((FIRST, SECOND), asked.said, strict=True):
            await line.say(utterance, said)
            await line.answered(utterance)
        await asyncio.sleep(asked.quiet_s)
        partials = sum(isinstance(heard, Partial) for heard in line.heard)
        require(not line.stray, f"of no utterance that is awaited: {line.stray[:1]}")
        require(provider.capabilities.interim_results or not partials, f"{partials} partials without interim_results")


async def places_words_within_their_utterance(asked: Asked) -> None:
    """With `word_times`, a `Final` has words whose times rise and lie within the utterance's audio."""
    async with _provider(asked) as provider, _line(asked, provider) as line:
        if not provider.capabilities.word_times:
            return
        for utterance, said in zip((FIRST, SECOND), asked.said, strict=True):
            await line.say(utterance, said)
            final = await line.answered(utterance)
            require(final.words, f"utterance {utterance} has no words with times")
            rising = all(word.start_ms <= word.end_ms for word in final.words) and all(
                one.start_ms <= other.start_ms for one, other in pairwise(final.words)
            )
            require(rising, f"times do not rise: {final.words}")
            length_ms = (_BEFORE_BYTES + len(said.pcm) + _AFTER_BYTES) / 16
            inside = final.words[0].start_ms >= 0 and final.words[-1].end_ms <= length_ms
            require(inside, f"not within {length_ms:.0f} ms: {final.words}")


async def takes_audio_faster_than_real_time_and_before_it_is_connected(asked: Asked) -> None:
    """An utterance pushed whole, at once, as soon as `open` has returned, is heard like any other."""
    async with _call(asked) as line:
        await line.say(FIRST, asked.said[0], at_once=True)
        _understood(await line.answered(FIRST), asked.said[0])


async def keeps_two_calls_apart(asked: Asked) -> None:
    """Two streams at once hear what is said to them, and nothing of each other."""
    one, other = asked.said

    async def caller(provider: SttProvider, *said: Utterance) -> None:
        async with _line(asked, provider) as line:
            for utterance, words in zip((FIRST, SECOND), said, strict=True):
                await line.say(utterance, words)
                _understood(await line.answered(utterance), words)
            require(line.finals() == [FIRST, SECOND], f"finals for utterances {line.finals()}")

    async with _provider(asked) as provider:
        await _together(caller(provider, one, other), caller(provider, other, one))


async def goes_on_after_an_utterance_is_given_up(asked: Asked) -> None:
    """After `give_up` the next utterance is heard as ever; what was given up has one `Final` at most."""
    async with _call(asked) as line:
        await line.say(FIRST, asked.said[0])
        line.ear.give_up(FIRST)
        await line.say(SECOND, asked.said[1])
        _understood(await line.answered(SECOND), asked.said[1])
        require(len(line.finals(FIRST)) <= 1, "more than one final for what was given up")


async def tells_nothing_once_it_is_closed(asked: Asked) -> None:
    """After `aclose` nothing is told, not even of an utterance that awaits its words."""
    async with _call(asked) as line:
        await line.say(FIRST, asked.said[0])
        await line.ear.aclose()
        told = len(line.heard)
        await asyncio.sleep(asked.quiet_s)
        require(len(line.heard) == told, f"told after aclose: {line.heard[told:][:1]}")


async def closes_within_a_second_and_twice(asked: Asked) -> None:
    """`aclose` returns within a second, at once after `open` and while words are awaited; a second one does no harm."""
    for words in (None, asked.said[0]):
        async with _call(asked) as line:
            if words is not None:
                await line.say(FIRST, words)
            await within(CLOSE_S, line.ear.aclose(), "aclose")
            await within(CLOSE_S, line.ear.aclose(), "aclose for the second time")


async def leaves_nothing_running(asked: Asked) -> None:
    """When streams and provider are closed, no task of theirs runs on."""
    async with nothing_left(), _provider(asked) as provider:
        await provider.warm(asked.stt)
        async with _line(asked, provider):
            pass
        async with _line(asked, provider) as line:
            await line.say(FIRST, asked.said[0])


async def says_that_nobody_can_be_reached(asked: Asked) -> None:
    """When its service cannot be reached it tells `Lost` or `Failed` within 5 s; neither `warm` nor a call raises."""
    if asked.unreachable is None:
        return
    async with nothing_left(), _provider(asked, asked.unreachable) as provider:
        await within(LOST_S, provider.warm(asked.stt), "warm")
        async with _line(asked, provider) as line:
            await line.say(FIRST, asked.said[0], at_once=True)
            await within(LOST_S, line.given_up(), "telling Lost or Failed")
            require(not line.finals(), "a final without a service")


async def _together(*doing: Awaitable[None]) -> None:
    for outcome in await asyncio.gather(*doing, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


RULES: Constant[tuple[Rule, ...]] = (
    opens_at_once,
    tells_one_final_for_each_utterance_in_order,
    may_be_given_the_next_utterance_before_the_final,
    tells_partials_only_where_they_belong,
    places_words_within_their_utterance,
    takes_audio_faster_than_real_time_and_before_it_is_connected,
    keeps_two_calls_apart,
    goes_on_after_an_utterance_is_given_up,
    tells_nothing_once_it_is_closed,
    closes_within_a_second_and_twice,
    leaves_nothing_running,
    says_that_nobody_can_be_reached,
)
"""In the order they are tried."""
