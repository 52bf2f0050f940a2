"""A provider's voice as the call has it: opened when needed, at the telephone's rate, its faults the provider's."""

import asyncio
import contextlib
from contextlib import aclosing

import pytest

from trunkline.proto.agent import Tts
from trunkline.proto.messages import Say
from trunkline.providers.errors import Misconfigured, ProviderError, Refusal, Rejected, Transient, Unavailable
from trunkline.providers.prices import Prices
from trunkline.providers.usage import Meter
from trunkline.tts.feed import Bell, Draft, Feed
from trunkline.tts.provider import Billed, Points, TtsCapabilities
from trunkline.tts.sentence import Sentence
from trunkline.tts.voices import CallVoice, Opened, open_first

pytestmark = pytest.mark.unit


class Recital:
    """A voice that yields what it is told to, whatever the text."""

    def __init__(self, *things, rate_hz=8_000):
        self.things = things
        self.sample_rate_hz = rate_hz
        self.closed = 0

    async def speak(self, text):
        async for _ in text:
            pass
        for thing in self.things:
            if isinstance(thing, Exception):
                raise thing
            yield thing

    async def aclose(self):
        self.closed += 1


def sentence(text, *, goes_on=False):
    return Sentence(Say(epoch=1, generation=1, utterance=1, text=text, goes_on=goes_on))


def voice_with(*openings, meter=None, capabilities=None):
    """A voice that is opened with the first of `openings`, then with the next, …"""
    left = list(openings)

    async def open_voice(_tts):
        opening = left.pop(0)
        if isinstance(opening, Exception):
            raise opening
        return Opened(opening, capabilities or TtsCapabilities(model="m"))

    return CallVoice(Tts(provider="acme"), open_voice, meter or Meter("tts", 1, Prices(as_of="")))


async def spoken(voice, text="Hello."):
    feed = Feed(Draft(sentence(text), Bell(), 1.0), 0, lambda: 0.0)
    async with aclosing(voice.speak(feed)) as things:
        return [thing async for thing in things]


def test_samples_cut_in_two_and_what_is_no_speech_at_all_harm_nothing():
    things = asyncio.run(spoken(voice_with(Recital(b"a", b"", b"bc", None, "x", Points(((1, 2),)), b"d"))))
    assert things == [Points(((1, 2),)), b"abcd"]


def test_sound_that_trickles_is_passed_on_by_the_frame():
    trickle = Recital(*[b"a"] * 700)
    things = asyncio.run(spoken(voice_with(trickle)))
    assert [len(thing) for thing in things] == [320, 320, 60]


def test_what_had_come_of_a_sentence_that_breaks_off_is_heard_to_its_last_sample():
    heard = [b""]

    async def story():
        voice = voice_with(Recital(bytes(32_000), Transient("gone", "dropped"), rate_hz=16_000))
        feed = Feed(Draft(sentence("Hello."), Bell(), 1.0), 0, lambda: 0.0)
        async with aclosing(voice.speak(feed)) as things:
            async for thing in things:
                heard[0] += thing

    with pytest.raises(Transient, match="gone"):
        asyncio.run(story())
    assert len(heard[0]) == 16_000


def test_a_provider_that_does_not_stop_is_stopped():
    with pytest.raises(Transient, match="does not stop"):
        asyncio.run(spoken(voice_with(Recital(*[bytes(160_000)] * 31))))


@pytest.mark.parametrize(
    ("opening", "error"),
    [
        (Misconfigured("tts.voice", "no"), Rejected),  # this agent's fault: no breaker opens for it
        (Unavailable("no library"), Refusal),
        (Transient("no", "connect"), Transient),
        (ValueError("what?"), Transient),
    ],
)
def test_a_voice_that_cannot_be_opened_is_a_failed_attempt(opening, error):
    with pytest.raises(ProviderError) as raised:
        asyncio.run(spoken(voice_with(opening)))
    assert type(raised.value) is error


def test_a_voice_is_opened_once_and_again_only_where_that_may_help():
    async def story():
        recital = Recital(b"ab")
        voice = voice_with(Transient("no"), recital)
        with pytest.raises(Transient):
            await spoken(voice)
        assert await spoken(voice) == await spoken(voice) == [b"ab"]
        await voice.aclose()
        assert recital.closed == 1
        broken = voice_with(Unavailable("no"))
        for _ in range(2):
            with pytest.raises(Refusal):
                await spoken(broken)

    asyncio.run(story())


def test_a_call_is_refused_when_no_voice_can_be_had_and_for_good_when_none_ever_can():
    wrong, away, late = Misconfigured("tts.voice", "no"), Unavailable("no"), Transient("no")

    async def story(*openings):
        await open_first([voice_with(opening) for opening in openings])

    asyncio.run(story(wrong, Recital()))
    asyncio.run(story(wrong, late))  # it may come back
    with pytest.raises(Misconfigured):
        asyncio.run(story(wrong, wrong))
    with pytest.raises(Exception, match="no") as raised:
        asyncio.run(story(away, wrong))
    assert not isinstance(raised.value, Misconfigured)


@pytest.mark.parametrize(
    ("things", "characters", "estimated"),
    [
        ((b"ab",), 6, True),
        ((b"ab", Billed(9)), 9, False),
        ((b"ab", Transient("gone")), 6, True),
        ((Transient("gone"),), 0, False),
    ],
)
def test_what_the_provider_charges_is_counted_or_else_what_it_was_given(things, characters, estimated):
    meter = Meter("tts", 1, Prices(as_of=""))

    async def story():
        with contextlib.suppress(Transient):
            await spoken(voice_with(Recital(*things), meter=meter))

    asyncio.run(story())
    used = meter.used()
    assert [(each.characters, each.estimated, each.model) for each in used] == [(characters, estimated, "m")] * len(
        used
    )
    assert bool(used) == bool(characters)


def test_the_provider_owes_nothing_while_we_owe_it_words():
    async def story():
        text, bell, at = sentence("One two ", goes_on=True), Bell(), 10.0
        feed = Feed(Draft(text, bell, 5.0), 0, lambda: at)
        pieces = feed.pieces()
        assert feed.owing_since == 10.0
        assert await anext(pieces) == "One two"
        at = 11.0
        waiting = asyncio.create_task(anext(pieces, None))
        await asyncio.sleep(0)
        assert feed.owing_since is None
        text.add(Say(epoch=1, generation=1, utterance=1, text="three."))
        bell.ring()
        assert await waiting == " three."
        assert feed.owing_since == 11.0
        at = 12.0
        assert await anext(pieces, None) is None
        assert feed.owing_since == 11.0
        assert feed.text == "One two three."

    asyncio.run(story())
