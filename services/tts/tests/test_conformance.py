"""Our voices keep the rules of every voice, and the rules catch voices that do not."""

import asyncio

import pytest

from trunkline.proto.agent import Timeouts, Tts
from trunkline.providers import conformance as shared
from trunkline.providers.conformance import stated
from trunkline.providers.errors import Transient
from trunkline.testing.patience import PATIENCE_S
from trunkline.testing.providers.content import tones
from trunkline.testing.providers.deepgram import DeepgramEmulator
from trunkline.testing.providers.elevenlabs import ElevenLabsEmulator
from trunkline.testing.providers.openai_audio import OpenAiAudioEmulator
from trunkline.tts import conformance
from trunkline.tts.conformance import RULES, NotConformant, check_tts_provider
from trunkline.tts.provider import Points, TtsCapabilities, providers

pytestmark = pytest.mark.integration

NOBODY = "http://127.0.0.1:9"
KEYS = {f"{name}_API_KEY": "test-key" for name in ("OPENAI", "DEEPGRAM", "ELEVENLABS")}
VOICE = tones(440)


def test_every_rule_is_stated():
    assert all(stated(rule).endswith(".") for rule in RULES)


def at(url):
    return {"OPENAI_BASE_URL": f"{url}/v1", "DEEPGRAM_BASE_URL": url, "ELEVENLABS_BASE_URL": url}


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    """Have the rules about closing and failing catch only who never does: how soon is the machine's business too."""
    for where, limit in ((conformance, "STOP_S"), (conformance, "LOST_S"), (shared, "_LINGER_S")):
        monkeypatch.setattr(where, limit, PATIENCE_S)


def conforms(name, emulator, *, pace=None, **settings):
    async def run():
        async with emulator:
            if pace is not None:
                emulator.pace = pace
            await check_tts_provider(
                lambda: providers(KEYS | at(emulator.url), []).get(name),
                Tts(provider=name, timeouts=Timeouts(connect_ms=60_000), **settings),
                unreachable=lambda: providers(KEYS | at(NOBODY), []).get(name),
            )

    asyncio.run(run())


@pytest.mark.parametrize("transport", ["websocket", "http"])
def test_elevenlabs_conforms(transport):
    emulator = ElevenLabsEmulator(voice=VOICE, first_s=0.02)
    conforms("elevenlabs", emulator, pace=200, options={"transport": transport})


def test_deepgram_conforms():
    conforms("deepgram", DeepgramEmulator(voice=VOICE, speak_first_s=0.02), pace=200)


def test_openai_conforms():
    conforms("openai", OpenAiAudioEmulator(voice=VOICE, speech_first_s=0.02, speech_pace=200), voice="coral")


def test_espeak_conforms():
    asyncio.run(check_tts_provider(lambda: providers({}, []).get("local"), Tts()))


def test_bench_conforms_but_for_its_length():
    asyncio.run(
        check_tts_provider(lambda: providers({}, []).get("bench"), Tts(provider="bench"), ms_per_character=(2, 250))
    )


# --- voices that break a rule -----------------------------------------------------------------------------------------


class Honest:
    """A voice, and who provides it, that does all as it should."""

    capabilities = TtsCapabilities(streams_text=True, word_times=True)
    sample_rate_hz = 8_000

    def check(self, tts):
        pass

    async def warm(self, tts):
        pass

    async def open(self, _tts):
        return self

    async def speak(self, text):
        sentence = "".join([piece async for piece in text])
        if not any(character.isalnum() for character in sentence):
            return
        pcm = self.sound(sentence)
        yield Points(((0, 0), (len(sentence), len(pcm) // 16)))
        for start in range(0, len(pcm), 640):
            yield pcm[start : start + 640]
            await asyncio.sleep(0)

    def sound(self, sentence):
        return VOICE(sentence).astype("<i2").tobytes()

    async def aclose(self):
        pass


class Silent(Honest):
    def sound(self, sentence):
        return bytes(len(super().sound(sentence)))


class Hasty(Honest):
    def sound(self, sentence):
        return super().sound(sentence)[: 16 * 400]


class Uneven(Honest):
    async def speak(self, text):
        async for thing in super().speak(text):
            yield thing
        yield b"\0"


class Forgetful(Honest):
    """Speaks the last piece of what is written only."""

    async def speak(self, text):
        async def last():
            pieces = [piece async for piece in text]
            yield pieces[-1]

        async for thing in super().speak(last()):
            yield thing


class Lagging(Honest):
    """What was not spoken of a sentence is spoken with the next."""

    def __init__(self):
        self.left = []

    async def speak(self, text):
        left, self.left = self.left, [thing async for thing in super().speak(text)]
        self.left[:0] = left
        while self.left:
            yield self.left.pop(0)


class Brittle(Honest):
    async def speak(self, text):
        sentence = "".join([piece async for piece in text])
        if sentence == "…":
            raise ValueError(sentence)
        yield self.sound(sentence)


class Misplaced(Honest):
    async def speak(self, text):
        yield Points(((5, 400), (10, 200)))
        async for thing in super().speak(text):
            yield thing


class Short(Honest):
    def sound(self, sentence):
        return super().sound(sentence[:200])


class Single(Honest):
    """There is one line for all voices."""

    busy = False

    async def speak(self, text):
        if self.busy:
            raise Transient("one sentence at a time")
        self.busy = True
        try:
            async for thing in super().speak(text):
                yield thing
        finally:
            self.busy = False


class Slow(Honest):
    closing_s = 1.1

    async def aclose(self):
        closing_s, self.closing_s = self.closing_s, 0
        await asyncio.sleep(closing_s)


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (Silent, "speaks_sentences_that_can_be_heard"),
        (Hasty, "speaks_sentences_that_can_be_heard"),
        (Uneven, "speaks_sentences_that_can_be_heard"),
        (Forgetful, "speaks_a_sentence_that_is_still_being_written"),
        (Lagging, "stops_when_it_is_closed"),
        (Brittle, "survives_what_cannot_be_pronounced"),
        (Misplaced, "places_words_within_their_sentence"),
        (Short, "speaks_a_long_sentence"),
        (Single, "keeps_two_calls_apart"),
        (Slow, "closes_within_a_second"),
    ],
)
def test_a_voice_that_breaks_a_rule_is_caught(broken, rule, monkeypatch):
    monkeypatch.setattr(conformance, "STOP_S", 1.0)
    one = broken()
    caught(lambda: one, rule)


def test_a_voice_that_speaks_for_nobody_is_caught():
    caught(Honest, "says_that_nobody_can_be_reached", unreachable=Honest)


def test_a_voice_that_keeps_all_rules_is_not_caught():
    asyncio.run(check_tts_provider(Honest, Tts()))


def caught(make, rule, **settings):
    rules = [one for one in RULES if one.__name__ == rule]
    with pytest.raises(NotConformant) as broken:
        asyncio.run(check_tts_provider(make, Tts(), rules=rules, **settings))
    assert broken.value.rule == rule
