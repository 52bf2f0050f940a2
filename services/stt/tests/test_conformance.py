"""Our ears keep the rules of every ear, and the rules catch ears that do not."""

import asyncio

import numpy as np
import pytest

from trunkline.proto.agent import Stt, Timeouts
from trunkline.providers.conformance import stated
from trunkline.stt import conformance
from trunkline.stt.conformance import RULES, NotConformant, Utterance, check_stt_provider
from trunkline.stt.provider import Final, Partial, SttCapabilities, Word, providers
from trunkline.stt.providers.bench import TEXT
from trunkline.testing.patience import PATIENCE_S
from trunkline.testing.providers.deepgram import DeepgramEmulator
from trunkline.testing.providers.elevenlabs import ElevenLabsEmulator
from trunkline.testing.providers.openai_audio import OpenAiAudioEmulator
from trunkline.testing.providers.phrases import Phrases

pytestmark = pytest.mark.integration

TEXTS = ("a table for four people please", "what time do you close")
NOBODY = "http://127.0.0.1:9"
KEYS = {"DEEPGRAM_API_KEY": "test-key", "OPENAI_API_KEY": "test-key", "ELEVENLABS_API_KEY": "test-key"}
PACE = 64.0


@pytest.fixture(scope="module")
def said(voice):
    return tuple(Utterance(text, voice.say(text, lead_ms=0, tail_ms=0)) for text in TEXTS)


@pytest.fixture
def ear(said):
    return Phrases({one.text: np.frombuffer(one.pcm, "<i2") for one in said})


@pytest.fixture
def patient(monkeypatch):
    """Let a machine stand still; a provider that hangs is caught all the same."""
    for limit in ("CLOSE_S", "FINAL_S", "LOST_S"):
        monkeypatch.setattr(conformance, limit, PATIENCE_S)
    monkeypatch.setattr("trunkline.providers.conformance._LINGER_S", PATIENCE_S)


def test_every_rule_is_stated():
    assert all(stated(rule).endswith(".") for rule in RULES)


def at(url):
    return {"DEEPGRAM_BASE_URL": url, "ELEVENLABS_BASE_URL": url, "OPENAI_BASE_URL": f"{url}/v1"}


def conforms(name, emulator, said):
    async def run():
        async with emulator:
            await check_stt_provider(
                lambda: providers(KEYS | at(emulator.url), []).get(name),
                Stt(provider=name, timeouts=Timeouts(connect_ms=60_000)),
                utterances=said,
                unreachable=lambda: providers(KEYS | at(NOBODY), []).get(name),
                pace=PACE,
            )

    asyncio.run(run())


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("name", ["deepgram", "deepgram-flux"])
def test_deepgram_conforms(name, ear, said):
    conforms(name, DeepgramEmulator(ear=ear, final_s=0.05), said)


@pytest.mark.usefixtures("patient")
def test_scribe_conforms(ear, said):
    conforms("elevenlabs", ElevenLabsEmulator(ear=ear, final_s=0.05), said)


@pytest.mark.usefixtures("patient")
def test_openai_conforms(ear, said):
    conforms("openai", OpenAiAudioEmulator(ear=ear, transcribe_s=0.02), said)


@pytest.mark.usefixtures("patient")
def test_bench_conforms_to_all_but_words(said):
    async def run():
        hello = [Utterance(TEXT, one.pcm) for one in said]
        await check_stt_provider(lambda: providers({}, []).get("bench"), Stt(), utterances=hello, pace=PACE)

    asyncio.run(run())


@pytest.mark.usefixtures("patient")
def test_local_conforms_to_what_matters_most(grammar, said):
    async def run():
        environ = {"TRUNKLINE_POCKETSPHINX_DECODERS": "2"}
        await check_stt_provider(
            lambda: providers(environ, []).get("local"),
            Stt(grammar=grammar),
            utterances=said,
            pace=PACE,
            rules=[RULES[1], RULES[6], RULES[-2]],  # each starts decoders anew, which takes its time
        )

    asyncio.run(run())


# --- ears that break a rule -------------------------------------------------------------------------------------------


class Honest:
    """An ear that does all as it should: it is told beforehand what it will hear."""

    capabilities = SttCapabilities(word_times=True)
    late_s = 0.01

    def __init__(self, said):
        self._said = said

    def check(self, stt):
        pass

    async def warm_up(self):
        pass

    async def warm(self, stt):
        pass

    async def open(self, _stt, on_heard):
        return self.Stream(self._said, on_heard, self.late_s)

    async def aclose(self):
        pass

    class Stream:
        def __init__(self, said, on_heard, late_s):
            self.said, self.on_heard, self.late_s = said, on_heard, late_s
            self.audio, self.timers = b"", []

        def begin(self, utterance):
            self.utterance, self.audio = utterance, b""

        def push(self, pcm, **_):
            self.audio += pcm

        def finish(self):
            text = next((one.text for one in self.said if one.pcm in self.audio), "")
            loop = asyncio.get_running_loop()
            self.timers.append(loop.call_later(self.late_s, self.tell, self.utterance, text))

        def tell(self, utterance, text):
            self.on_heard(Final(utterance, text, words=(Word(text, 300, 900),)))

        def give_up(self, utterance):
            pass

        async def aclose(self):
            for timer in self.timers:
                timer.cancel()


class Connecting(Honest):
    async def open(self, stt, on_heard):
        await asyncio.sleep(0.06)
        return await super().open(stt, on_heard)


class Twice(Honest):
    class Stream(Honest.Stream):
        def tell(self, utterance, text):
            super().tell(utterance, text)
            super().tell(utterance, text)


class Deaf(Honest):
    class Stream(Honest.Stream):
        def tell(self, utterance, _text):
            super().tell(utterance, "no such words")


class Chatty(Honest):
    class Stream(Honest.Stream):
        def tell(self, utterance, text):
            self.on_heard(Partial(utterance, text))
            super().tell(utterance, text)


class Early(Honest):
    class Stream(Honest.Stream):
        def tell(self, utterance, text):
            self.on_heard(Final(utterance, text, words=(Word("late", 900, 1_000), Word("early", 100, 200))))


class Mixing(Honest):
    """Tells every line what one of them said."""

    def __init__(self, said):
        super().__init__(said)
        self.lines = []

    async def open(self, stt, on_heard):
        self.lines.append(on_heard)
        return await super().open(stt, lambda heard: [line(heard) for line in self.lines[-2:]])


class Sulking(Honest):
    class Stream(Honest.Stream):
        def give_up(self, _utterance):
            self.said = ()


class Talkative(Honest):
    class Stream(Honest.Stream):
        async def aclose(self):
            pass


class Slow(Honest):
    class Stream(Honest.Stream):
        async def aclose(self):
            await super().aclose()
            if self.timers:
                self.timers = []
                await asyncio.sleep(1.1)


class Littering(Honest):
    async def warm(self, _stt):
        self.task = asyncio.create_task(asyncio.sleep(30), name="litter")


class Raising(Honest):
    class Stream(Honest.Stream):
        def push(self, pcm, **_):
            raise ConnectionRefusedError(len(pcm))


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (Connecting, "opens_at_once"),
        (Twice, "tells_one_final_for_each_utterance_in_order"),
        (Deaf, "tells_one_final_for_each_utterance_in_order"),
        (Chatty, "tells_partials_only_where_they_belong"),
        (Early, "places_words_within_their_utterance"),
        (Mixing, "keeps_two_calls_apart"),
        (Sulking, "goes_on_after_an_utterance_is_given_up"),
        (Talkative, "tells_nothing_once_it_is_closed"),
        (Slow, "closes_within_a_second_and_twice"),
        (Littering, "leaves_nothing_running"),
    ],
)
def test_an_ear_that_breaks_a_rule_is_caught(broken, rule, said):
    caught(lambda: broken(said), rule, said)


def test_an_ear_that_raises_when_nobody_answers_is_caught(said):
    caught(lambda: Honest(said), "says_that_nobody_can_be_reached", said, unreachable=lambda: Raising(said))


def caught(make, rule, said, **settings):
    rules = [one for one in RULES if one.__name__ == rule]
    with pytest.raises(NotConformant) as broken:
        asyncio.run(check_stt_provider(make, Stt(), utterances=said, pace=PACE, rules=rules, **settings))
    assert broken.value.rule == rule
